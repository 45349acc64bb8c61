//! `Activities`: what the sessions of an engine are doing, as `pg_stat_activity` shows it.
//!
//! A session writes into its own entry at the begin and the end of a statement, so the price is two locks that nobody else
//! holds. Rows that are still being read count as the session's next wait, not as its statement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::Engine;

/// Bytes of a statement's text that are kept, as many as PostgreSQL keeps.
const QUERY_BYTES_MAX: usize = 1024;

/// What a session is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Idle,
    Active,
    InTransaction,
    InFailedTransaction,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Active => "active",
            State::InTransaction => "idle in transaction",
            State::InFailedTransaction => "idle in transaction (aborted)",
        }
    }
}

/// One session's statement. Moments are microseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doing {
    pub state: State,
    /// The running statement, or the last one.
    pub query: String,
    pub application_name: String,
    pub session_began: i64,
    pub transaction_began: Option<i64>,
    pub query_began: Option<i64>,
    pub state_changed: i64,
    /// Of an open transaction: set also by a query that fails while its rows are read, after the statement as such.
    failed: Option<Arc<AtomicBool>>,
}

/// The sessions of one engine.
#[derive(Debug, Default)]
pub(crate) struct Activities {
    last: AtomicI32,
    all: Mutex<BTreeMap<i32, Arc<Mutex<Doing>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Activities {
    /// What every session does at the moment, by its number.
    pub(crate) fn list(&self) -> Vec<(i32, Doing)> {
        let current = |(number, doing): (&i32, &Arc<Mutex<Doing>>)| {
            let mut doing = locked(doing).clone();
            let has_failed = doing.failed.as_ref().is_some_and(|failed| failed.load(Ordering::Acquire));
            if doing.state == State::InTransaction && has_failed {
                doing.state = State::InFailedTransaction;
            }
            (*number, doing)
        };
        locked(&self.all).iter().map(current).collect()
    }
}

/// The number of a session, for functions of its statements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionNumber(pub i32);

/// A session's own entry, which goes with it.
pub(crate) struct Activity {
    engine: Engine,
    number: i32,
    doing: Arc<Mutex<Doing>>,
}

impl Activity {
    /// Enters a new session.
    pub(crate) fn new(engine: &Engine) -> Activity {
        let began = engine.wall_micros();
        let doing = Doing { session_began: began, state_changed: began, ..Doing::default() };
        let doing = Arc::new(Mutex::new(doing));
        let activities = engine.activities();
        let number = activities.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        locked(&activities.all).insert(number, Arc::clone(&doing));
        Activity { engine: engine.clone(), number, doing }
    }

    pub(crate) fn number(&self) -> SessionNumber {
        SessionNumber(self.number)
    }

    /// A statement begins.
    pub(crate) fn begin(&self, text: &str) {
        let now = self.engine.wall_micros();
        let mut doing = locked(&self.doing);
        doing.state = State::Active;
        doing.query.clear();
        let end = (0..=text.len().min(QUERY_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        doing.query.push_str(&text[..end]);
        doing.query_began = Some(now);
        doing.state_changed = now;
        doing.transaction_began.get_or_insert(now);
    }

    /// The statement ended, and left the session in `state`.
    pub(crate) fn end(&self, state: State, failed: Option<&Arc<AtomicBool>>, application_name: &str) {
        let now = self.engine.wall_micros();
        let mut doing = locked(&self.doing);
        doing.state = state;
        doing.state_changed = now;
        doing.failed = failed.cloned();
        if state == State::Idle {
            doing.transaction_began = None;
        }
        if doing.application_name != application_name {
            application_name.clone_into(&mut doing.application_name);
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        locked(&self.engine.activities().all).remove(&self.number);
    }
}
