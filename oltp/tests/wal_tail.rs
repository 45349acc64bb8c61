//! The tail of the log against the commits that were made: closed, torn, beside a writer, and when the writer recycles
//! what has not been read yet.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, key, row, small_log};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::inspect::tail::TailCommit;
use strata_oltp::inspect::{TailEvent, WalTail};
use strata_oltp::iter::VersionKind;
use strata_oltp::wal::Lsn;
use strata_oltp::{Db, Error, FileKind, Options, SeqNo, TableId};

/// Full key to row, `None` for a delete; per commit.
type Model = BTreeMap<SeqNo, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

struct Writer {
    env: SimEnv,
    db: Db,
    model: Model,
    nth: i32,
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let env = SimEnv::new(seed);
        Writer { db: open(&env), env, model: Model::new(), nth: 0 }
    }

    fn commit(&mut self, durability: Durability) {
        self.nth += 1;
        let mut writes = BTreeMap::new();
        let mut transaction = self.db.begin().unwrap();
        for (at, table) in [(0, ROW), (1, HYBRID), (2, ROW)] {
            let (id, is_delete) = ((self.nth * 3 + at) % 17, (self.nth + at) % 4 == 0);
            let (key, row) = (key(table, id), row(table, id, i64::from(self.nth)));
            if is_delete {
                transaction.delete(table, key.clone()).unwrap();
            } else {
                transaction.put(table, key.clone(), row.clone()).unwrap();
            }
            writes.insert(key, (!is_delete).then_some(row));
        }
        let seqno = transaction.commit(durability).unwrap();
        self.model.insert(seqno, writes);
    }

    fn tail(&self) -> WalTail {
        WalTail::open(Arc::new(self.env.clone()), Path::new(DIR)).unwrap()
    }
}

fn open(env: &SimEnv) -> Db {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let options = Options { wal: small_log(), ..Options::default() };
    harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap()
}

fn writes_of(commit: &TailCommit) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let entry = |entry: &strata_oltp::inspect::log::LogEntry| {
        assert_eq!(TableId(u32::from_be_bytes(entry.key[..4].try_into().unwrap())), entry.table);
        (entry.key.clone(), (entry.kind == VersionKind::Put).then(|| entry.value.clone()))
    };
    commit.entries.iter().map(entry).collect()
}

/// Reads to the end; how it ended, and where the tail fell behind.
fn read(tail: &mut WalTail, into: &mut Model) -> (bool, Vec<(Lsn, Lsn)>) {
    let mut gaps = Vec::new();
    loop {
        match tail.next_event().unwrap() {
            TailEvent::Commit(commit) => {
                assert!(into.last_key_value().is_none_or(|(last, _)| *last < commit.seqno), "in commit order");
                assert!(commit.lsn < commit.end);
                into.insert(commit.seqno, writes_of(&commit));
            }
            TailEvent::Behind { from, to } => gaps.push((from, to)),
            TailEvent::End { is_closed, .. } => return (is_closed, gaps),
        }
    }
}

#[test]
fn a_closed_log_is_read_whole_and_in_order() {
    let mut writer = Writer::new(1);
    (0..40).for_each(|_| writer.commit(Durability::Durable));
    writer.db.clone().close().unwrap();
    let (mut tail, mut found) = (writer.tail(), Model::new());
    assert_eq!(read(&mut tail, &mut found), (true, vec![]));
    assert_eq!(found, writer.model);
    assert_eq!(read(&mut tail, &mut found), (true, vec![]), "and no further");
    assert_eq!(found, writer.model);
}

/// Beside a writer in one process each step is decided: after every commit the tail has read exactly what there is, also
/// across log files, a close, and the next process.
#[test]
fn beside_a_writer_nothing_is_missed_and_nothing_comes_early() {
    let mut writer = Writer::new(2);
    let (mut tail, mut found) = (writer.tail(), Model::new());
    for nth in 0..60 {
        writer.commit(Durability::Durable);
        if nth % 3 != 1 {
            assert_eq!(read(&mut tail, &mut found).1, []);
            assert_eq!(found, writer.model);
        }
        if nth % 11 == 0 {
            while writer.db.step().unwrap() {}
        }
        if nth == 30 {
            writer.db.clone().close().unwrap();
            drop(std::mem::replace(&mut writer.db, Writer::new(3).db));
            writer.db = open(&writer.env);
        }
    }
    assert_eq!(read(&mut tail, &mut found).1, []);
    assert_eq!(found, writer.model);
    assert!(writer.env.files().iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "wal")).count() > 5);
}

#[test]
fn a_tail_that_was_overtaken_says_so_and_goes_on() {
    for seed in 0..4 {
        let mut writer = Writer::new(seed);
        let (mut tail, mut found) = (writer.tail(), Model::new());
        (0..5).for_each(|_| writer.commit(Durability::Durable));
        read(&mut tail, &mut found);
        let read_before = found.len();
        (0..20 + seed).for_each(|_| writer.commit(Durability::Durable));
        // Everything but the newest file is recycled, and written again under another number.
        writer.db.flush(None).unwrap();
        (0..6).for_each(|_| writer.commit(Durability::Durable));
        let (_, gaps) = read(&mut tail, &mut found);
        assert_eq!(gaps.len(), 1, "one gap, said once");
        assert!(gaps[0].0 < gaps[0].1);
        assert!(found.len() > read_before && found.len() < writer.model.len());
        for (seqno, writes) in &found {
            assert_eq!(writer.model.get(seqno), Some(writes), "what is read is right");
        }
        let tail: Vec<_> = writer.model.keys().rev().take(6).collect();
        assert!(tail.iter().all(|seqno| found.contains_key(seqno)), "the newest commits are all there");
    }
}

/// After a power loss the tail shows what a recovery would keep: a prefix, never a torn record.
#[test]
fn a_torn_log_is_read_up_to_the_tear() {
    for seed in 0..40 {
        let mut writer = Writer::new(seed);
        (0..7).for_each(|_| writer.commit(Durability::Durable));
        let synced = writer.model.len();
        (0..6).for_each(|_| writer.commit(Durability::Buffered));
        drop(writer.db.step());
        let env = writer.env.reboot(PowerLoss::Random(seed));
        let mut found = Model::new();
        let mut tail = WalTail::open(Arc::new(env.clone()), Path::new(DIR)).unwrap();
        assert_eq!(read(&mut tail, &mut found).1, []);
        assert!(found.len() >= synced, "nothing synced is missing");
        let expected: Model = writer.model.iter().take(found.len()).map(|(k, v)| (*k, v.clone())).collect();
        assert_eq!(found, expected, "a prefix of the commits");
        let recovered = open(&env).snapshot().seqno();
        assert_eq!(Some(&recovered), found.keys().next_back(), "and just what recovery finds");
    }
}

#[test]
fn a_damaged_record_that_had_been_synced_is_an_error_with_its_place() {
    let mut writer = Writer::new(5);
    (0..12).for_each(|_| writer.commit(Durability::Durable));
    writer.db.clone().close().unwrap();
    let files = writer.env.files().into_iter().map(|(path, _)| path);
    for path in files.filter(|path| path.extension().is_some_and(|e| e == "wal")) {
        let env = writer.env.clone();
        env.corrupt(&path, 4096 + 50, 4).unwrap();
        let (mut tail, mut count) = (writer.tail(), 0);
        let error = loop {
            match tail.next_event() {
                Ok(TailEvent::Commit(_)) => count += 1,
                Ok(event) => panic!("{event:?} after {count} commits in spite of damage in {}", path.display()),
                Err(error) => break error,
            }
        };
        let Error::Corrupt { kind: FileKind::Wal, file, offset: 4096, .. } = error else { panic!("{error}") };
        assert_eq!(file, path);
        env.corrupt(&path, 4096 + 50, 4).unwrap();
    }
}

#[test]
fn what_is_proven_never_exceeds_what_was_synced() {
    let mut writer = Writer::new(6);
    (0..4).for_each(|_| writer.commit(Durability::Durable));
    let (mut tail, mut proven) = (writer.tail(), Vec::new());
    while let TailEvent::Commit(commit) = tail.next_event().unwrap() {
        assert!(commit.proven <= commit.lsn, "a frame vouches for those before it");
        proven.push(commit.proven);
    }
    assert!(proven.is_sorted() && proven.last() > proven.first());
}
