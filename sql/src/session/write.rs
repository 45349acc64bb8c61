//! Statements of a session that write: in the open transaction, or in one of their own.

use std::sync::Arc;

use strata_oltp::TableId;

use super::open::Open;
use super::transaction::{commit, no_transaction};
use super::work::Work;
use super::{RETRIES_MAX, Session, StatementResult, blocking, within};
use crate::ddl::{self, Added, Online};
use crate::error::{Error, Result, SqlState};

impl Session {
    /// Runs a statement that writes: in the open transaction, or in one of its own that is retried when it loses.
    pub(super) async fn write(&mut self, work: &Work<'_>) -> Result<StatementResult> {
        self.current.set(self.settings());
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
        let mut open = Open::new(&self.engine, &self.names, &self.own_transaction(), &self.settings)?;
        let applied = async {
            let result = open.apply(&self.engine, &self.base, &mut self.counters, work).await?;
            open.settle(&self.engine, &self.base, &mut self.counters).await?;
            Ok(result)
        };
        let result = within(self.deadline, applied).await?;
        commit(&self.engine, open, self.settings.durability).await?;
        Ok(result)
    }

    /// Adds an index or a constraint outside of a transaction: while others write.
    pub(super) async fn add_online(&mut self, online: Online<'_>) -> Result<StatementResult> {
        if self.settings.read_only {
            return Err(read_only());
        }
        let mut attempt = 0;
        let declared = loop {
            let mut open = Open::new(&self.engine, &self.names, &self.own_transaction(), &self.settings)?;
            let declared = online.declare(&mut open.context(&self.engine, &self.base, &mut self.counters))?;
            match commit(&self.engine, open, self.settings.durability).await {
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES_MAX => attempt += 1,
                other => break other.map(|()| declared)?,
            }
        };
        let Some((table, added)) = declared else { return Ok(StatementResult::done(online.tag())) };
        let deadline = self.deadline;
        let completed = match &added {
            Added::Unique(id) => within(deadline, ddl::build_online(&self.engine, &self.base, table, *id, None)).await,
            Added::Rebuilt { id, old } => {
                within(deadline, ddl::build_online(&self.engine, &self.base, table, *id, Some(*old))).await
            }
            Added::Condition(name) => within(deadline, self.validate(table, name)).await,
        };
        if let Err(error) = completed {
            let engine = self.engine.clone();
            if let Err(left) = blocking(move || ddl::abandon_pending(&engine, table, &added)).await {
                tracing::warn!(error = %left, "what could not be added stays declared until the next open");
            }
            return Err(error);
        }
        Ok(StatementResult::done(online.tag()))
    }

    /// Looks at all rows for a constraint that writers keep already.
    async fn validate(&mut self, table: TableId, name: &str) -> Result<()> {
        let mut attempt = 0;
        loop {
            let mut open = Open::new(&self.engine, &self.names, &self.own_transaction(), &self.settings)?;
            ddl::validate(&mut open.context(&self.engine, &self.base, &mut self.counters), table, name).await?;
            match commit(&self.engine, open, self.settings.durability).await {
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES_MAX => attempt += 1,
                other => return other,
            }
        }
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
