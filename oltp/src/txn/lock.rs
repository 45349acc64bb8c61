//! `LockTable`: rows that transactions hold locked, as `SELECT … FOR UPDATE` does. In memory; a crash leaves none.
//!
//! A lock says that no other transaction commits a change to the key until it is released. Nobody needs one to write:
//! conflicts are found at commit. A commit that writes a key which another transaction holds waits for that lock, as an
//! `UPDATE` in PostgreSQL would, and is then checked like any other.
//!
//! Always true:
//! * locks are granted in the order in which they were asked for, except that a holder who wants more comes first;
//! * a transaction waits for one key at a time, and no circle of waiting transactions exists: whoever would close one is
//!   refused instead, at once. New edges arise only where somebody begins to wait, so that is where circles are looked for.
//!   Source: wait-for graphs, Gray and Reuter, "Transaction Processing", 7.11.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::commit::record::CommitRecord;
use crate::env::Env;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a lock keeps others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// From committing a change and from locking exclusively; several may hold it at once (`FOR SHARE`).
    Shared,
    /// From committing a change and from locking (`FOR UPDATE`).
    Exclusive,
}

impl LockMode {
    fn allows(self, other: LockMode) -> bool {
        self == LockMode::Shared && other == LockMode::Shared
    }
}

/// Why a lock was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Waiting would have closed a circle.
    Deadlock,
    /// It was not free in time.
    Timeout,
}

/// A transaction, to the lock table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owner(u64);

/// Who holds which key, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    state: Mutex<State>,
    /// Keys in the table, so that commits need no lock while there are none.
    key_count: AtomicUsize,
    next_owner: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<Arc<[u8]>, KeyLock>,
    /// The key that each waiting transaction waits for.
    waiting: HashMap<Owner, Arc<[u8]>>,
}

#[derive(Debug, Default)]
struct KeyLock {
    holders: Vec<(Owner, LockMode)>,
    queue: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    owner: Owner,
    mode: LockMode,
    granted: Arc<Condvar>,
}

impl LockTable {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &State) {
        self.key_count.store(state.keys.len(), Ordering::Release);
    }

    /// A key that `record` writes and somebody else holds. Called inside the commit mutex: whoever has been granted a
    /// lock checks in that mutex, after the grant, that its key has not changed, so one of the two sees the other.
    pub(crate) fn find_held(&self, record: &CommitRecord<'_>, held: &HeldLocks) -> Option<Arc<[u8]>> {
        if self.key_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let state = self.lock();
        let is_other = |lock: &KeyLock| lock.holders.iter().any(|(owner, _)| Some(*owner) != held.owner);
        if state.keys.len() < record.entry_count() {
            let mut written = state.keys.iter().filter(|(key, _)| record.contains(key));
            return written.find(|(_, lock)| is_other(lock)).map(|(key, _)| Arc::clone(key));
        }
        let mut found = record.keys().filter_map(|key| state.keys.get_key_value(key));
        found.find(|(_, lock)| is_other(lock)).map(|(key, _)| Arc::clone(key))
    }

    /// What `owner` held on `key` before, once it holds `mode`.
    fn acquire(
        &self,
        owner: Owner,
        key: &Arc<[u8]>,
        mode: LockMode,
        timeout: Option<Duration>,
        env: &dyn Env,
    ) -> Result<Option<LockMode>, Refused> {
        let mut state = self.lock();
        let lock = state.keys.entry(Arc::clone(key)).or_default();
        let before = lock.held_by(owner);
        if before >= Some(mode) {
            return Ok(before);
        }
        let granted = Arc::new(Condvar::new());
        let waiter = Waiter { owner, mode, granted: Arc::clone(&granted) };
        // One that holds the key already would wait for those behind it, and they for it.
        if before.is_some() {
            lock.queue.push_front(waiter);
        } else {
            lock.queue.push_back(waiter);
        }
        state.waiting.insert(owner, Arc::clone(key));
        state.grant(key);
        if state.waiting.contains_key(&owner) {
            if timeout != Some(Duration::ZERO) && state.is_circle(owner) {
                state.give_up(owner, key);
                self.count(&state);
                return Err(Refused::Deadlock);
            }
            state = wait(state, &granted, owner, timeout, env);
            if state.waiting.contains_key(&owner) {
                state.give_up(owner, key);
                self.count(&state);
                return Err(Refused::Timeout);
            }
        }
        self.count(&state);
        Ok(before)
    }

    /// Sets what `owner` holds on `key` back to `before`.
    fn restore(&self, owner: Owner, key: &Arc<[u8]>, before: Option<LockMode>) {
        let mut state = self.lock();
        if let Some(lock) = state.keys.get_mut(key) {
            lock.holders.retain(|(holder, _)| *holder != owner);
            lock.holders.extend(before.map(|mode| (owner, mode)));
        }
        state.grant(key);
        self.count(&state);
    }
}

/// Sleeps until the lock is granted or `timeout` has passed.
fn wait<'a>(
    mut state: MutexGuard<'a, State>,
    granted: &Condvar,
    owner: Owner,
    timeout: Option<Duration>,
    env: &dyn Env,
) -> MutexGuard<'a, State> {
    let began = env.monotonic();
    while state.waiting.contains_key(&owner) {
        let Some(timeout) = timeout else {
            state = granted.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = timeout.saturating_sub(env.monotonic().saturating_sub(began));
        if left.is_zero() {
            break;
        }
        let (woken, result) = granted.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        state = woken;
        // A simulated clock may stand still.
        if result.timed_out() {
            break;
        }
    }
    state
}

impl State {
    /// Grants `key` to those at the head of its queue who need not wait any more, and forgets a key nobody wants.
    fn grant(&mut self, key: &Arc<[u8]>) {
        let Some(lock) = self.keys.get_mut(key) else { return };
        while let Some(waiter) = lock.queue.front()
            && lock.is_free_for(waiter.owner, waiter.mode)
        {
            let Some(waiter) = lock.queue.pop_front() else { break };
            lock.holders.retain(|(holder, _)| *holder != waiter.owner);
            lock.holders.push((waiter.owner, waiter.mode));
            self.waiting.remove(&waiter.owner);
            waiter.granted.notify_one();
        }
        if lock.holders.is_empty() && lock.queue.is_empty() {
            self.keys.remove(key);
        }
    }

    /// `owner` waits no more; those who waited behind it may now be next.
    fn give_up(&mut self, owner: Owner, key: &Arc<[u8]>) {
        self.waiting.remove(&owner);
        if let Some(lock) = self.keys.get_mut(key) {
            lock.queue.retain(|waiter| waiter.owner != owner);
        }
        self.grant(key);
    }

    /// Whether somebody that `owner` waits for waits for `owner`, directly or through others.
    fn is_circle(&self, owner: Owner) -> bool {
        let (mut open, mut seen) = (self.blockers(owner), HashSet::new());
        while let Some(next) = open.pop() {
            if next == owner {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.blockers(next));
            }
        }
        false
    }

    /// Those that must let go, or give up, before `owner` gets what it waits for.
    fn blockers(&self, owner: Owner) -> Vec<Owner> {
        let Some(lock) = self.waiting.get(&owner).and_then(|key| self.keys.get(key)) else { return Vec::new() };
        let Some(at) = lock.queue.iter().position(|waiter| waiter.owner == owner) else { return Vec::new() };
        let mode = lock.queue[at].mode;
        let holders = lock.holders.iter().filter(|(holder, held)| *holder != owner && !held.allows(mode));
        let ahead = lock.queue.iter().take(at).filter(|waiter| !waiter.mode.allows(mode));
        holders.map(|(holder, _)| *holder).chain(ahead.map(|waiter| waiter.owner)).collect()
    }
}

impl KeyLock {
    fn held_by(&self, owner: Owner) -> Option<LockMode> {
        self.holders.iter().find(|(holder, _)| *holder == owner).map(|(_, mode)| *mode)
    }

    fn is_free_for(&self, owner: Owner, mode: LockMode) -> bool {
        self.holders.iter().all(|(holder, held)| *holder == owner || held.allows(mode))
    }
}

/// The locks of one transaction, in the order it took them; dropping releases them.
#[derive(Debug)]
pub(crate) struct HeldLocks {
    table: Arc<LockTable>,
    /// `None` until the first lock.
    owner: Option<Owner>,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    key: Arc<[u8]>,
    before: Option<LockMode>,
}

impl HeldLocks {
    pub(crate) fn new(table: &Arc<LockTable>) -> HeldLocks {
        HeldLocks { table: Arc::clone(table), owner: None, held: Vec::new() }
    }

    /// Number of locks taken, to return to with [`HeldLocks::release_to`].
    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }

    /// Takes a lock, waiting at most `timeout` for it. Whether it is new, or stronger than before.
    pub(crate) fn acquire(
        &mut self,
        key: &Arc<[u8]>,
        mode: LockMode,
        timeout: Option<Duration>,
        env: &dyn Env,
    ) -> Result<bool, Refused> {
        let next_owner = &self.table.next_owner;
        let owner = *self.owner.get_or_insert_with(|| Owner(next_owner.fetch_add(1, Ordering::Relaxed)));
        let before = self.table.acquire(owner, key, mode, timeout, env)?;
        if before >= Some(mode) {
            return Ok(false);
        }
        self.held.push(Held { key: Arc::clone(key), before });
        Ok(true)
    }

    /// Releases the locks taken after the first `count`, the newest first.
    pub(crate) fn release_to(&mut self, count: usize) {
        while self.held.len() > count
            && let (Some(Held { key, before }), Some(owner)) = (self.held.pop(), self.owner)
        {
            self.table.restore(owner, &key, before);
        }
    }
}

impl Drop for HeldLocks {
    fn drop(&mut self) {
        self.release_to(0);
    }
}

#[cfg(test)]
mod tests;
