//! BEGIN, COMMIT and ROLLBACK of a session, and how a commit is carried out.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_oltp::commit::Durability;
use strata_oltp::txn::{Isolation, Transaction, TransactionOptions};
use tokio::time::Instant;

use super::open::Open;
use super::{Session, StatementResult, blocking, within};
use crate::catalog::Catalog;
use crate::ddl::Effects;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::statement::with_modes;

impl Session {
    pub(super) fn begin(&mut self, modes: &[ast::TransactionMode]) -> Result<StatementResult> {
        if self.open.is_some() {
            return Err(Error::new(SqlState::ActiveTransaction, "a transaction is open already")
                .with_hint("COMMIT or ROLLBACK it first; SAVEPOINT marks a point within it"));
        }
        let options = with_modes(self.settings.transaction(), modes);
        self.open = Some(Open::new(&self.engine, &self.names, &options, &self.settings)?);
        Ok(StatementResult::done("BEGIN"))
    }

    pub(super) async fn commit(&mut self) -> Result<StatementResult> {
        let Some(mut open) = self.open.take() else { return Err(no_transaction()) };
        if open.has_failed() {
            self.settings = open.before;
            // As in PostgreSQL, COMMIT of a failed transaction ends it and says that it was rolled back.
            return Ok(StatementResult::done("ROLLBACK"));
        }
        let durability = open.local.as_ref().unwrap_or(&self.settings).durability;
        let before = open.before.clone();
        let settled = within(self.deadline, open.settle(&self.engine, &self.base, &mut self.counters)).await;
        let committed = match settled {
            Ok(()) => commit(&self.engine, open, durability).await,
            Err(error) => Err(error),
        };
        if committed.is_err() {
            self.settings = before;
        }
        committed.map(|()| StatementResult::done("COMMIT"))
    }

    pub(super) fn rollback(&mut self) -> Result<StatementResult> {
        let open = self.open.take().ok_or_else(no_transaction)?;
        self.settings = open.before;
        Ok(StatementResult::done("ROLLBACK"))
    }

    pub(super) fn rollback_to(&mut self, name: &str) -> Result<StatementResult> {
        self.settings = self.opened()?.rollback_to(name)?;
        self.take_up_path();
        Ok(StatementResult::done("ROLLBACK"))
    }

    pub(super) fn opened(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(no_transaction)
    }

    /// SET TRANSACTION: begins the transaction anew, which has done nothing yet.
    pub(super) fn set_transaction(&mut self, modes: &[ast::TransactionMode]) -> Result<()> {
        let open = self.opened()?;
        if !open.is_untouched() {
            return Err(Error::new(SqlState::ActiveTransaction, "the transaction has run statements already")
                .with_hint("SET TRANSACTION comes first; or say it in BEGIN"));
        }
        let options = with_modes(*open.txn.options(), modes);
        let mut begun = Open::new(&self.engine, &self.names, &options, &self.settings)?;
        // Settings that were changed since BEGIN are undone by a rollback all the same.
        let open = self.opened()?;
        (begun.before, begun.local) = (open.before.clone(), open.local.take());
        Catalog::set_path(&mut begun.catalog, &begun.local.as_ref().unwrap_or(&begun.before).search_path);
        self.open = Some(begun);
        Ok(())
    }

    /// Options of the transaction of a single statement: alone, it is serializable whatever its level.
    pub(super) fn own_transaction(&self) -> TransactionOptions {
        TransactionOptions { isolation: Isolation::Snapshot, ..self.settings.transaction() }
    }

    /// Rolls an open transaction back that has waited for its next statement for longer than
    /// `idle_in_transaction_session_timeout` allows, and returns when it would: for whoever serves the session. Without
    /// it, the next statement does.
    pub fn expire_idle(&mut self) -> Option<Instant> {
        let timeout = self.settings().idle_in_transaction_timeout;
        if self.open.is_none() || timeout.is_zero() {
            return None;
        }
        let deadline = self.idle_since + timeout;
        if Instant::now() >= deadline {
            if let Some(Open { before, .. }) = self.open.take() {
                self.settings = before;
            }
            return None;
        }
        Some(deadline)
    }
}

/// Commits on a thread that may block, then drops the storage of dropped tables.
pub(super) async fn commit(engine: &Engine, open: Open, durability: Durability) -> Result<()> {
    let Open { mut txn, effects, catalog, .. } = open;
    // Neither the disk nor background work is waited for: going to another thread and back would take longer.
    let is_quick = durability == Durability::Buffered && effects == Effects::default() && !engine.db().commits_wait();
    if is_quick {
        return commit_now(txn, durability).map_err(|error| name_table(error, &catalog));
    }
    let engine = engine.clone();
    blocking(move || {
        let before = Arc::clone(&catalog);
        for id in &effects.reshaped {
            if let Some(table) = catalog.find_id(*id) {
                txn.reshape(Arc::clone(&table.shape), table.storage.kind, table.storage.compaction.clone());
            }
        }
        commit_now(txn, durability).map_err(|error| name_table(error, &before))?;
        for table in effects.dropped {
            // The catalog entry is gone whatever happens here; what is left over goes at the next open.
            if let Err(error) = engine.db().drop_table(table) {
                tracing::warn!(%error, "cannot drop the storage of table {} yet", table.0);
            }
        }
        Ok(())
    })
    .await
}

pub(super) fn commit_now(txn: Transaction, durability: Durability) -> strata_oltp::Result<()> {
    txn.commit(durability).map(|_| ())
}

/// A conflict names its table by number; people know it by name.
pub(super) fn name_table(error: strata_oltp::Error, catalog: &Catalog) -> Error {
    let strata_oltp::Error::Conflict { table, .. } = &error else { return Error::from(error) };
    let name = match catalog.owner_of(*table) {
        Some(table) => table.qualified_name().to_string(),
        None => "the catalog".to_owned(),
    };
    Error::new(SqlState::SerializationFailure, format!("a concurrent transaction changed a row of {name} first"))
        .with_hint("run the transaction again")
        .with_source(error)
}

pub(super) fn no_transaction() -> Error {
    Error::new(SqlState::NoActiveTransaction, "no transaction is open").with_hint("BEGIN one first")
}
