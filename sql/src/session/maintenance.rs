//! CALL, REINDEX and VACUUM of a session: work on what is stored that changes no answer.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;

use super::work::Work;
use super::{Session, StatementResult, blocking, within};
use crate::call::Procedure;
use crate::ddl::{self, Online};
use crate::error::Result;
use crate::query::Rows;
use crate::statement::own::{Own, Reindexed, Vacuum};
use crate::statement::{Kind, name_parts};
use crate::verification;

impl Session {
    /// A procedure of ours.
    pub(super) async fn call(&mut self, function: &ast::Function) -> Result<StatementResult> {
        let procedure = Procedure::parse(function)?;
        if let Procedure::Verify(table) = &procedure {
            let deadline = self.deadline;
            let verified = within(deadline, self.verify_indexes(table.as_deref()));
            return verified.await.map(StatementResult::Rows);
        }
        let engine = self.engine.clone();
        blocking(move || procedure.run(&engine)).await?;
        Ok(StatementResult::done("CALL"))
    }

    /// A statement that the parser has no rule for: some are not run like other DDL outside of a transaction.
    pub(super) async fn run_own(&mut self, kind: &Kind, own: &Own) -> Result<StatementResult> {
        match own {
            Own::Reindex(what, name) if self.open.is_none() => self.reindex(*what, name).await,
            Own::Vacuum(vacuum) if self.open.is_none() => self.vacuum(vacuum).await,
            _ => self.write(&Work::Statement(kind)).await,
        }
    }

    /// VACUUM: rows of the tables to where queries read them best; with FULL, segments without what was deleted. Versions
    /// that nobody sees go on the way. There are no statistics to gather for ANALYZE.
    async fn vacuum(&mut self, vacuum: &Vacuum) -> Result<StatementResult> {
        let catalog = self.catalog_at(&self.engine.db().snapshot())?;
        let mut tables = Vec::new();
        for name in &vacuum.tables {
            tables.push(Arc::clone(catalog.table(&catalog.locate(&name_parts(name)?)?)?));
        }
        if vacuum.tables.is_empty() {
            tables = catalog.tables().cloned().collect();
        }
        let (engine, is_full) = (self.engine.clone(), vacuum.is_full);
        let work = blocking(move || {
            for table in tables {
                let indexes = table.rules.indexes.iter().map(|index| TableId(index.id));
                for id in std::iter::once(table.id()).chain(indexes) {
                    if is_full { engine.db().compact(id)? } else { engine.db().convert(id)? }
                }
            }
            Ok(())
        });
        work.await?;
        Ok(StatementResult::done("VACUUM"))
    }

    /// REINDEX outside of a transaction: each index is built anew while others write, then takes the place of the old one.
    async fn reindex(&mut self, what: Reindexed, name: &ast::ObjectName) -> Result<StatementResult> {
        let snapshot = self.engine.db().snapshot();
        let catalog = self.catalog_at(&snapshot)?;
        for (table, id) in ddl::reindexed(&catalog, what, name)? {
            self.add_online(Online::Reindex(table, id)).await?;
        }
        Ok(StatementResult::done("REINDEX"))
    }

    /// Compares indexes with their tables, at one snapshot of committed rows.
    async fn verify_indexes(&self, table: Option<&str>) -> Result<Rows> {
        let snapshot = self.engine.db().snapshot();
        let catalog = self.catalog_at(&snapshot)?;
        let parts = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
        let only = table.map(|name| catalog.locate(&parts(name))).transpose()?;
        verification::verify(&self.engine, &self.base, &catalog, &snapshot, only.as_ref()).await
    }
}
