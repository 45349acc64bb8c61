//! Point statements: one row of one table by its primary key, run without DataFusion.
//!
//! ```text
//! SELECT a, b FROM t WHERE k = $1          INSERT INTO t VALUES ($1, 'x', 3)
//! UPDATE t SET a = $2, n = n + 1 WHERE k = $1          DELETE FROM t WHERE k = 7
//! ```
//!
//! A [`Point`] is what a statement comes to with one catalog; [`crate::Prepared`] keeps it. It reads by the key, from
//! memtables, runs or segments alike, and writes through [`crate::dml`], so that rules, indexes and foreign keys hold as
//! they do for any statement.
//!
//! Always true: whatever is not plain (another comparison, a constant of another type than its column, NULL) is left to the
//! planner, before anything is written. So a statement means the same on both ways, and errors have the planner's words.
//! `SET enable_point_statements = off` makes every statement go the long way, which tests compare.

mod change;
mod expression;
mod insert;
mod operand;
mod place;
mod select;

use datafusion::sql::sqlparser::ast;

use crate::catalog::Catalog;
use crate::dml::{Context, Written};
use crate::error::Result;
use crate::statement::Kind;

use change::{PointDelete, PointUpdate};
use insert::PointInsert;

pub(crate) use operand::{NO_PARAMETERS, Parameters};
pub(crate) use select::PointSelect;

/// A statement on single rows, bound to the tables of one catalog.
pub(crate) enum Point {
    Select(PointSelect),
    Insert(Box<PointInsert>),
    Update(Box<PointUpdate>),
    Delete(Box<PointDelete>),
}

impl Point {
    /// `kind` as a point statement, if it is one; `types` are those that PREPARE gives its parameters.
    pub(crate) fn of(kind: &Kind, catalog: &Catalog, types: &[ast::DataType]) -> Option<Point> {
        match kind {
            Kind::Query(statement) => match statement.as_ref() {
                ast::Statement::Query(query) => PointSelect::of(query, catalog, types).map(Point::Select),
                _ => None,
            },
            Kind::Insert(insert) => PointInsert::of(insert, catalog, types).map(Box::new).map(Point::Insert),
            Kind::Update(update) => PointUpdate::of(update, catalog, types).map(Box::new).map(Point::Update),
            Kind::Delete(delete) => PointDelete::of(delete, catalog, types).map(Box::new).map(Point::Delete),
            _ => None,
        }
    }

    /// The query that it is, if it is one.
    pub(crate) fn as_select(&self) -> Option<&PointSelect> {
        match self {
            Point::Select(select) => Some(select),
            _ => None,
        }
    }

    /// Runs a statement that writes; `None`, and nothing is written, if it takes the planner.
    ///
    /// # Errors
    /// As INSERT, UPDATE and DELETE.
    pub(crate) async fn write(&self, context: &mut Context<'_>, parameters: Parameters<'_>) -> Result<Option<Written>> {
        match self {
            Point::Select(_) => Ok(None),
            Point::Insert(insert) => insert.run(context, parameters).await,
            Point::Update(update) => update.run(context, parameters).await,
            Point::Delete(delete) => delete.run(context, parameters).await,
        }
    }
}

impl PointSelect {
    /// The full key of the row; `None` if it takes the planner to say which is meant.
    pub(crate) fn key(&self, parameters: Parameters<'_>) -> Option<Vec<u8>> {
        self.place.key(parameters)
    }

    /// The table it reads.
    pub(crate) fn table(&self) -> &crate::catalog::Table {
        &self.place.table
    }
}
