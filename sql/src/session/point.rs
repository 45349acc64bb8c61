//! Point statements of a session: the way past the planner.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_olap::scan::ScanCounters as Counters;
use strata_oltp::txn::Isolation;

use super::work::Work;
use super::{Session, StatementResult};
use crate::as_of;
use crate::catalog::Catalog;
use crate::catalog::store::{self, ReadPoint};
use crate::error::Result;
use crate::point::{Parameters, Point, PointSelect};
use crate::prepared::Prepared;
use crate::query::Rows;
use crate::statement::Kind;

impl Session {
    /// Runs a prepared statement on single rows, or the statement that it stands for if it takes the planner after all.
    pub(super) async fn dispatch_prepared(
        &mut self,
        prepared: &Prepared,
        parameters: Parameters<'_>,
    ) -> Result<StatementResult> {
        prepared.check_count(parameters.len())?;
        let kind = &prepared.statement().kind;
        if !matches!(kind, Kind::Query(_)) {
            return self.write(&Work::Prepared(prepared, parameters)).await;
        }
        if let Some(rows) = self.read_point(Some(prepared), kind, parameters)? {
            return Ok(StatementResult::Rows(rows));
        }
        if let (Parameters::Scalars(values), Kind::Query(query)) = (parameters, kind)
            && matches!(query.as_ref(), ast::Statement::Query(query) if query.locks.is_empty())
            && !as_of::is_asked(query)
            && self.settings().keeps_plans
        {
            return self.start_rows(query.as_ref().clone(), Some((prepared, values))).await;
        }
        let statement = prepared.bind_parameters(parameters)?;
        self.start_query(statement.kind).await
    }

    /// The rows of a query on one row; `None` if it is another query, or takes the planner.
    ///
    /// # Errors
    /// Damaged or unreadable files; a transaction that is too old.
    pub(super) fn read_point(
        &mut self,
        prepared: Option<&Prepared>,
        kind: &Kind,
        parameters: Parameters<'_>,
    ) -> Result<Option<Rows>> {
        if !self.settings().point_statements {
            return Ok(None);
        }
        let read = match &mut self.open {
            None => self.engine.db().read(|view, at| {
                let catalog = self.engine.catalog_at(ReadPoint { view, at })?;
                let catalog = self.names.on(catalog, &self.settings.search_path);
                let Some(found) = Found::of(prepared, kind, &catalog, parameters) else { return Ok(None) };
                let row = view.get(&found.select().table().shape, &found.key, at)?;
                found.rows(row.as_deref(), parameters).map(Some)
            })?,
            Some(open) => {
                let Some(found) = Found::of(prepared, kind, &open.catalog, parameters) else { return Ok(None) };
                open.touch();
                open.txn.check_age()?;
                let options = open.txn.options();
                if options.isolation == Isolation::Serializable && !options.read_only {
                    store::pin_table(&mut open.txn, found.select().table())?;
                }
                let row = open.txn.get(&found.select().table().shape, &found.key)?;
                Some(found.rows(row.as_deref(), parameters)?)
            }
        };
        let Some((rows, count)) = read else { return Ok(None) };
        self.counters = Arc::new(Counters::default());
        self.counters.add_keys(count);
        Ok(Some(rows))
    }
}

/// A query on one row, and the key of that row.
struct Found {
    point: Arc<Point>,
    key: Vec<u8>,
}

impl Found {
    fn of(
        prepared: Option<&Prepared>,
        kind: &Kind,
        catalog: &Arc<Catalog>,
        parameters: Parameters<'_>,
    ) -> Option<Found> {
        let point = match prepared {
            Some(prepared) => prepared.point(catalog)?,
            None => Arc::new(Point::of(kind, catalog, &[])?),
        };
        let key = point.as_select()?.key(parameters)?;
        Some(Found { point, key })
    }

    fn select(&self) -> &PointSelect {
        self.point.as_select().expect("looked at when it was found")
    }

    /// The rows that come out, and how many.
    fn rows(&self, row: Option<&[u8]>, parameters: Parameters<'_>) -> Result<(Rows, usize)> {
        let select = self.select();
        let batch = select.read(row, parameters)?;
        let count = usize::from(batch.is_some());
        Ok((Rows::of(Arc::clone(select.schema()), batch.into_iter().collect()), count))
    }
}
