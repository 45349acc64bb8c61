//! Statements of a session that write: in the open transaction, or in one of their own.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use super::open::Open;
use super::transaction::{commit, no_transaction};
use super::work::Work;
use super::{RETRIES_MAX, Session, StatementResult, blocking, within};
use crate::ddl;
use crate::error::{Error, Result, SqlState};

impl Session {
    /// Runs a statement that writes: in the open transaction, or in one of its own that is retried when it loses.
    pub(super) async fn write(&mut self, work: &Work<'_>) -> Result<StatementResult> {
        if self.open.is_some() {
            return self.write_in(work).await;
        }
        let mut attempt = 0;
        loop {
            match self.write_once(work).await {
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES_MAX => attempt += 1,
                other => return other,
            }
        }
    }

    pub(super) async fn write_once(&mut self, work: &Work<'_>) -> Result<StatementResult> {
        if self.settings.read_only {
            return Err(read_only());
        }
        let mut open = Open::new(&self.engine, &self.own_transaction(), &self.settings)?;
        let applied = async {
            let result = open.apply(&self.engine, &self.base, &mut self.counters, work).await?;
            open.settle(&self.engine, &self.base, &mut self.counters).await?;
            Ok(result)
        };
        let result = within(self.deadline, applied).await?;
        commit(&self.engine, open, self.settings.durability).await?;
        Ok(result)
    }

    /// CREATE INDEX outside of a transaction: built while others write.
    pub(super) async fn create_index(&mut self, create: &ast::CreateIndex) -> Result<StatementResult> {
        if self.settings.read_only {
            return Err(read_only());
        }
        let mut attempt = 0;
        let declared = loop {
            let mut open = Open::new(&self.engine, &self.own_transaction(), &self.settings)?;
            let declared = {
                let mut context = open.context(&self.engine, &self.base, &mut self.counters);
                ddl::declare(&mut context, create, true)?
            };
            match commit(&self.engine, open, self.settings.durability).await {
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES_MAX => attempt += 1,
                other => break other.map(|()| declared)?,
            }
        };
        let Some((table, id)) = declared else { return Ok(StatementResult::done("CREATE INDEX")) };
        let built = within(self.deadline, ddl::build_online(&self.engine, &self.base, table, id)).await;
        if let Err(error) = built {
            let engine = self.engine.clone();
            if let Err(left) = blocking(move || ddl::abandon(&engine, table, id)).await {
                tracing::warn!(error = %left, "an index that was not built stays declared until the next open");
            }
            return Err(error);
        }
        Ok(StatementResult::done("CREATE INDEX"))
    }

    /// Within a transaction a statement that fails leaves nothing behind.
    pub(super) async fn write_in(&mut self, work: &Work<'_>) -> Result<StatementResult> {
        let open = self.open.as_mut().ok_or_else(no_transaction)?;
        if open.txn.options().read_only {
            return Err(read_only());
        }
        open.touch();
        let before = open.txn.savepoint();
        let (catalog, effects) = (Arc::clone(&open.catalog), open.effects.clone());
        // Whoever stops waiting in here leaves a transaction that can only be rolled back.
        open.interrupted = true;
        let result = within(self.deadline, open.apply(&self.engine, &self.base, &mut self.counters, work)).await;
        open.interrupted = false;
        if result.is_err() {
            open.txn.rollback_to(&before);
            (open.catalog, open.effects) = (catalog, effects);
        }
        open.txn.release(before);
        result
    }
}

fn read_only() -> Error {
    Error::new(SqlState::ReadOnlyTransaction, "the transaction is READ ONLY").with_hint("BEGIN READ WRITE to write")
}
