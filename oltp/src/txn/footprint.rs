//! `Footprint`: what a transaction wrote and read, and the check that nobody committed any of it since its snapshot.
//!
//! This is backward validation at commit (Kung and Robinson, 1981), by keys for snapshot isolation and by keys and ranges for
//! serializable transactions. A small footprint is looked up in the index of recent commits. A large one, and ranges, are
//! compared with the commits themselves, nearly all of them before the commit mutex is taken: what is left inside is what
//! was committed during the last look.

use std::collections::HashMap;

use crate::commit::record::CommitRecord;
use crate::error::{Error, Result};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::txn::conflict::{Forgotten, LARGE_KEYS, RecentCommits, Since, common, fingerprint};
use crate::txn::reads::ReadSet;

/// Keys or commits taken along in one look at the recent ones: a few microseconds of the commit mutex.
const LOOK_MAX: usize = 4096;
/// A look that found fewer was the last: the rest is for the commit mutex.
const LOOK_MIN: usize = 64;
/// Looks before the mutex is taken whatever is left, so that a stream of commits cannot keep a transaction from its own.
const LOOKS_MAX: usize = 10_000;

/// A transaction's claims, ready to be checked.
pub(crate) struct Footprint<'a> {
    snapshot: SeqNo,
    record: &'a CommitRecord<'a>,
    unchanged: &'a [(TableId, Vec<u8>)],
    untouched: &'a [TableId],
    read_set: &'a ReadSet,
    /// Fingerprints of written keys, ascending.
    writes: Vec<u64>,
    /// Fingerprints of keys read and keys that must not have changed, ascending.
    reads: Vec<u64>,
    has_ranges: bool,
    /// Commits up to here were compared with what is not looked up.
    checked: SeqNo,
}

/// Why a footprint is not valid any more.
enum Hit {
    Fingerprint(u64),
    Key(Vec<u8>),
    Forgotten,
}

impl From<Forgotten> for Hit {
    fn from(_: Forgotten) -> Hit {
        Hit::Forgotten
    }
}

impl<'a> Footprint<'a> {
    pub(crate) fn new(
        snapshot: SeqNo,
        record: &'a CommitRecord<'a>,
        (unchanged, untouched): (&'a [(TableId, Vec<u8>)], &'a [TableId]),
        read_set: &'a ReadSet,
    ) -> Footprint<'a> {
        let mut writes: Vec<u64> = record.keys().map(fingerprint).collect();
        writes.sort_unstable();
        let mut reads = read_set.fingerprints();
        reads.extend(unchanged.iter().map(|(_, key)| fingerprint(key)));
        reads.sort_unstable();
        let has_ranges = read_set.ranges().next().is_some();
        Footprint { snapshot, record, unchanged, untouched, read_set, writes, reads, has_ranges, checked: snapshot }
    }

    /// Fingerprints of the written keys, ascending, to be remembered; they are gone from here.
    pub(crate) fn take_writes(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.writes)
    }

    fn is_large(&self) -> bool {
        self.writes.len() + self.reads.len() > LARGE_KEYS
    }

    /// Checks as much as can be checked without holding anything up; `look` calls back with the recent commits, the newest
    /// commit of each table, and the newest of all.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub(crate) fn check_ahead(
        &mut self,
        look: impl Fn(&mut dyn FnMut(&RecentCommits, &HashMap<TableId, SeqNo>, SeqNo)),
    ) -> Result<()> {
        if !self.is_large() && !self.has_ranges {
            return Ok(());
        }
        for _ in 0..LOOKS_MAX {
            let mut since = Ok(Since::default());
            look(&mut |recent, newest, last| since = self.since(recent, newest, last, LOOK_MAX));
            let since = since.map_err(|_| self.error(Hit::Forgotten))?;
            self.check_since(&since).map_err(|hit| self.error(hit))?;
            self.checked = since.through;
            if since.fingerprints.len() + since.keys.len() < LOOK_MIN {
                break;
            }
        }
        Ok(())
    }

    /// Checks the rest. Inside the commit mutex, so nothing is committed afterwards but this.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub(crate) fn check(
        &mut self,
        recent: &RecentCommits,
        newest: &HashMap<TableId, SeqNo>,
        last: SeqNo,
    ) -> Result<()> {
        let is_touched = |table: &&TableId| newest.get(*table).is_some_and(|seqno| *seqno > self.snapshot);
        if let Some(table) = self.untouched.iter().find(is_touched) {
            return Err(Error::Conflict { table: *table, key: Vec::new() });
        }
        self.check_rest(recent, newest, last).map_err(|hit| self.error(hit))?;
        self.checked = last;
        Ok(())
    }

    fn check_rest(&self, recent: &RecentCommits, newest: &HashMap<TableId, SeqNo>, last: SeqNo) -> Result<(), Hit> {
        if self.is_large() || self.has_ranges {
            self.check_since(&self.since(recent, newest, last, usize::MAX)?)?;
        }
        if !self.is_large() {
            let found = recent.find(&self.writes, self.snapshot)?;
            if let Some(hit) = found.or(recent.find(&self.reads, self.snapshot)?) {
                return Err(Hit::Fingerprint(hit));
            }
        }
        Ok(())
    }

    fn since(
        &self,
        recent: &RecentCommits,
        newest: &HashMap<TableId, SeqNo>,
        last: SeqNo,
        count_max: usize,
    ) -> Result<Since, Forgotten> {
        // Most ranges lie in tables that nobody wrote to.
        let changed = |table: TableId| newest.get(&table).is_some_and(|seqno| *seqno > self.checked);
        let with_keys = self.read_set.ranges().any(|(table, _, _)| changed(table));
        recent.since(self.checked, last, (self.is_large(), with_keys), count_max)
    }

    fn check_since(&self, since: &Since) -> Result<(), Hit> {
        for own in [&self.writes, &self.reads] {
            let mut small = since.fingerprints.iter();
            let found = small.find(|key| own.binary_search(key).is_ok()).copied();
            if let Some(hit) = found.or_else(|| since.large.iter().find_map(|large| common(own, large))) {
                return Err(Hit::Fingerprint(hit));
            }
        }
        for (_, start, end) in self.read_set.ranges() {
            if let Some(key) = since.keys.iter().find_map(|keys| keys.find(start, end)) {
                return Err(Hit::Key(key.to_vec()));
            }
        }
        Ok(())
    }

    fn error(&self, hit: Hit) -> Error {
        let conflict = |key: &[u8]| Error::Conflict { table: table_of(key), key: key.to_vec() };
        match hit {
            Hit::Key(key) => conflict(&key),
            Hit::Fingerprint(hit) => {
                let unchanged = self.unchanged.iter().map(|(_, key)| key.as_slice());
                match self.record.keys().chain(unchanged).find(|key| fingerprint(key) == hit) {
                    Some(key) => conflict(key),
                    None => {
                        Error::Conflict { table: self.read_set.table_of(hit).unwrap_or(TableId(0)), key: Vec::new() }
                    }
                }
            }
            Hit::Forgotten => {
                let table = self.record.tables.first().map_or(TableId(0), |(table, _)| *table);
                Error::Conflict { table, key: Vec::new() }
            }
        }
    }
}

/// The table that a full key belongs to.
pub(crate) fn table_of(key: &[u8]) -> TableId {
    TableId(key.first_chunk::<4>().map_or(0, |table| u32::from_be_bytes(*table)))
}
