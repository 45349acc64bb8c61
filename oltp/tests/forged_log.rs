//! A log whose frames are sound but whose contents are not: written by a defect, or by somebody else.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, key, row};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::manifest::Manifest;
use strata_oltp::wal::{RecordKind, Wal, WalOptions};
use strata_oltp::{Db, Error, FileId, Options, Result, SeqNo};

const GARBAGE: &[u8] = b"\x01\x00\x00\x00garbage in a sound frame";

fn open(env: &SimEnv) -> Result<Db> {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    harness::open(&shared, Options::default(), RowTier::make(&shared, Path::new(DIR)))
}

/// Appends one commit to the log of a closed database, as its next process would.
fn append_garbage(env: &SimEnv) {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let (manifest, version) = Manifest::open(Arc::clone(&shared), Path::new(DIR)).unwrap();
    let next_file = Arc::new(|| FileId(9_999));
    let (wal, report) = Wal::open(
        shared,
        Path::new(DIR),
        manifest.db_id(),
        version.wal_start,
        WalOptions::default(),
        next_file,
        &mut |_, _| Ok(()),
    )
    .unwrap();
    wal.append(RecordKind::Commit, SeqNo(report.last_seqno.0 + 1), &[GARBAGE]).unwrap();
    wal.sync_to(wal.end_lsn()).unwrap();
}

#[test]
fn a_bad_commit_record_is_named_by_file_and_offset() {
    let env = SimEnv::new(1);
    let db = open(&env).unwrap();
    for id in 0..5 {
        let mut transaction = db.begin().unwrap();
        transaction.put(HYBRID, key(HYBRID, id), row(HYBRID, id, 1)).unwrap();
        transaction.commit(Durability::Durable).unwrap();
    }
    drop(db);
    let env = env.kill();
    append_garbage(&env);
    let env = env.kill();
    let Err(Error::Corrupt { file, offset, .. }) = open(&env).map(drop) else { panic!("it must not open") };
    let bytes = env.read_file(&file).unwrap();
    let at = bytes.windows(GARBAGE.len()).position(|window| window == GARBAGE).unwrap() as u64;
    assert!((at..at + GARBAGE.len() as u64).contains(&offset), "garbage at {at}, named {offset}");
}
