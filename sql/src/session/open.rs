//! `Open`: a transaction that a session holds open, with the catalog it sees and its named savepoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strata_oltp::txn::{Savepoint, Transaction, TransactionOptions};

use crate::catalog::Catalog;
use crate::catalog::path::PathCache;
use crate::ddl::Effects;
use crate::dml::foreign_keys::Suspects;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::settings::Settings;

/// An open transaction.
pub(super) struct Open {
    pub txn: Transaction,
    /// What the transaction sees, its own DDL included.
    pub catalog: Arc<Catalog>,
    pub effects: Effects,
    /// Foreign keys to be looked at before the statement ends.
    pub suspects: Vec<Suspects>,
    /// Foreign keys to be looked at before the commit. One that was undone since is nobody's fault and passes.
    pub deferred: Vec<Suspects>,
    /// Set by a failed statement, or by a query that fails while its rows are read.
    pub failed: Arc<AtomicBool>,
    /// Settings of the session when the transaction began, to return to.
    pub before: Settings,
    /// Settings in force, if the transaction has changed some.
    pub local: Option<Settings>,
    /// Whether a statement that wrote was not run to its end, because whoever waited for it does no more.
    pub interrupted: bool,
    savepoints: Vec<Named>,
    /// Whether no statement has read or written yet.
    untouched: bool,
}

/// A savepoint, and what besides rows it returns to.
struct Named {
    name: String,
    mark: Savepoint,
    catalog: Arc<Catalog>,
    effects: Effects,
    /// Settings of the session, and those of the transaction.
    settings: (Settings, Option<Settings>),
}

impl Open {
    pub(super) fn new(
        engine: &Engine,
        names: &PathCache,
        options: &TransactionOptions,
        settings: &Settings,
    ) -> Result<Open> {
        let txn = engine.db().begin_with(*options)?;
        let catalog = names.on(engine.catalog_at(txn.snapshot())?, &settings.search_path);
        let failed = Arc::new(AtomicBool::new(false));
        let (effects, suspects, deferred) = (Effects::default(), Vec::new(), Vec::new());
        Ok(Open {
            txn,
            catalog,
            effects,
            suspects,
            deferred,
            failed,
            before: settings.clone(),
            local: None,
            interrupted: false,
            savepoints: Vec::new(),
            untouched: true,
        })
    }

    /// Notes that a statement reads or writes.
    pub(super) fn touch(&mut self) {
        self.untouched = false;
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    pub(super) fn has_failed(&self) -> bool {
        self.interrupted || self.failed.load(Ordering::Acquire)
    }

    /// A second savepoint of the same name hides the first until it is released.
    pub(super) fn savepoint(&mut self, name: String, settings: Settings) {
        let mark = self.txn.savepoint();
        let (catalog, effects) = (Arc::clone(&self.catalog), self.effects.clone());
        let settings = (settings, self.local.clone());
        self.savepoints.push(Named { name, mark, catalog, effects, settings });
    }

    /// Undoes everything since the savepoint, which stays; a failed transaction is whole again. Returns the settings that
    /// the session had there.
    ///
    /// # Errors
    /// 3B001.
    pub(super) fn rollback_to(&mut self, name: &str) -> Result<Settings> {
        let at = self.find(name)?;
        for later in self.savepoints.drain(at + 1..).rev() {
            self.txn.release(later.mark);
        }
        let Named { mark, catalog, effects, settings, .. } = &self.savepoints[at];
        self.txn.rollback_to(mark);
        self.catalog = Arc::clone(catalog);
        self.effects = effects.clone();
        let (settings, local) = settings.clone();
        self.local = local;
        // Queries that still run belong to what was undone; their failures no longer matter.
        self.failed = Arc::new(AtomicBool::new(false));
        self.interrupted = false;
        Ok(settings)
    }

    /// Forgets the savepoint and later ones; what was written stays.
    ///
    /// # Errors
    /// 3B001.
    pub(super) fn release(&mut self, name: &str) -> Result<()> {
        let at = self.find(name)?;
        for released in self.savepoints.drain(at..).rev() {
            self.txn.release(released.mark);
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint.name == name)
            .ok_or_else(|| Error::new(SqlState::InvalidSavepoint, format!("savepoint {name} does not exist")))
    }
}
