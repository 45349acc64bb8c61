//! Queries of a session: at which snapshot they read, and EXPLAIN.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use strata_olap::scan::BoundView;
use tokio::time::Instant;

use super::{Session, StatementResult, explain, setting, within};
use crate::as_of;
use crate::dml::{Frames, change, insert, lock, view_of};
use crate::error::{Error, Result};
use crate::point::Parameters;
use crate::prepared::Prepared;
use crate::query::Reader;
use crate::statement::Kind;

impl Session {
    /// A reader for the next statement, whose counters become the session's.
    pub(super) fn reader(&mut self) -> Result<Reader> {
        let (catalog, view) = match &self.open {
            Some(open) => (Arc::clone(&open.catalog), view_of(&open.txn)),
            None => {
                let snapshot = self.engine.db().snapshot();
                (self.catalog_at(&snapshot)?, BoundView::new(snapshot))
            }
        };
        self.counters = Arc::clone(view.counters());
        Reader::new(&self.base, &self.engine, &catalog, view, Frames::new())
    }

    pub(super) async fn start_query(&mut self, kind: Kind) -> Result<StatementResult> {
        self.current.set(self.settings());
        if let Some(rows) = self.set_config(&kind)? {
            return Ok(StatementResult::Rows(rows));
        }
        let mut query = self.explained(kind)?;
        let explain = explain::take_options(&mut query)?;
        if explain.json
            && let ast::Statement::Explain { statement, .. } = query
        {
            return Box::pin(self.explain_json(*statement, explain)).await;
        }
        let query = match (&query, &mut self.open) {
            (ast::Statement::Query(_), _) if lock::asks(&query) && as_of::is_asked(&query) => {
                return Err(Error::unsupported("FOR UPDATE of rows of the past"));
            }
            (ast::Statement::Query(locking), Some(open)) if lock::asks(&query) && !open.txn.options().read_only => {
                open.touch();
                let mut context = open.context(&self.engine, &self.base, &mut self.counters);
                return within(self.deadline, lock::run(&mut context, locking)).await.map(StatementResult::Rows);
            }
            // Outside of a transaction they would be released at once.
            _ => lock::without(query),
        };
        self.start_rows(query, None).await
    }

    /// Plans and starts a query, by the plan that a prepared statement keeps if it can.
    pub(super) async fn start_rows(
        &mut self,
        query: ast::Statement,
        prepared: Option<(&Prepared, &[ScalarValue])>,
    ) -> Result<StatementResult> {
        let reader = self.reader()?;
        let query = reader.bind(query).await?;
        if let Some(open) = &mut self.open {
            open.touch();
            open.txn.check_age()?;
            reader.note(&mut open.txn, &query)?;
        }
        let started = async {
            let Some((prepared, values)) = prepared else { return reader.query(query).await };
            match reader.query_kept(prepared, &query, values).await? {
                Some(rows) => Ok(rows),
                None => match prepared.bind_parameters(Parameters::Scalars(values))?.kind {
                    Kind::Query(bound) => reader.query(*bound).await,
                    _ => Err(Error::internal("a query that became another statement")),
                },
            }
        };
        let rows = within(self.deadline, started).await?;
        let rows = match self.deadline {
            Some(deadline) => rows.until(deadline),
            None => rows,
        };
        Ok(StatementResult::Rows(match &self.open {
            Some(open) => rows.reporting_to(Arc::clone(&open.failed)),
            None => rows,
        }))
    }

    /// EXPLAIN (FORMAT JSON): plans, and with ANALYZE runs, a query.
    pub(super) async fn explain_json(
        &mut self,
        query: ast::Statement,
        wanted: explain::Wanted,
    ) -> Result<StatementResult> {
        let reader = self.reader()?;
        let query = reader.bind(lock::without(query)).await?;
        if let Some(open) = &mut self.open {
            open.touch();
            open.txn.check_age()?;
            reader.note(&mut open.txn, &query)?;
        }
        let deadline = self.deadline;
        let text = within(deadline, async {
            let plan = reader.plan(query).await?;
            let began = Instant::now();
            let physical = reader.physical(&plan).await?;
            if wanted.analyze {
                let mut rows = reader.run(Arc::clone(&physical))?;
                while rows.next().await?.is_some() {}
            }
            explain::tree(&physical, wanted, wanted.analyze.then_some(began))
        });
        Ok(StatementResult::Rows(setting::one("QUERY PLAN", &text.await?)?))
    }

    /// The query to plan for a statement that reads, or that is only explained.
    pub(super) fn explained(&self, kind: Kind) -> Result<ast::Statement> {
        let query = match kind {
            Kind::Query(query) => *query,
            Kind::Insert(insert) => return insert::explained(&insert),
            Kind::Update(update) => return self.explained_change(&ast::Statement::Update(*update)),
            Kind::Delete(delete) => return self.explained_change(&ast::Statement::Delete(*delete)),
            _ => return Err(Error::unsupported("EXPLAIN of this statement")),
        };
        let ast::Statement::Explain { statement: inner, analyze, .. } = &query else { return Ok(query) };
        let is_query = matches!(inner.as_ref(), ast::Statement::Query(_));
        if !is_query && (*analyze || explain::take_options(&mut query.clone())?.analyze) {
            return Err(Error::unsupported("EXPLAIN ANALYZE of a statement that writes")
                .with_hint("EXPLAIN shows the plan of what it reads; to time it, run it and ROLLBACK"));
        }
        let replacement = match inner.as_ref() {
            ast::Statement::Query(_) => return Ok(query),
            ast::Statement::Insert(insert) => insert::explained(insert)?,
            other => self.explained_change(other)?,
        };
        let mut query = query;
        if let ast::Statement::Explain { statement, .. } = &mut query {
            **statement = replacement;
        }
        Ok(query)
    }

    pub(super) fn explained_change(&self, statement: &ast::Statement) -> Result<ast::Statement> {
        match &self.open {
            Some(open) => change::explained(statement, &open.catalog),
            None => change::explained(statement, self.catalog_at(&self.engine.db().snapshot())?.as_ref()),
        }
    }
}
