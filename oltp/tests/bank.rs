//! Concurrent transfers between accounts while background threads flush, convert and merge: at every snapshot the
//! balances sum to what they summed to at the start, lost updates never happen, and a reopened database agrees.
//!
//! The bank test is Jepsen's; snapshot isolation suffices, because a transfer writes both rows that it reads.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, contents, key, row, schema};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::row::{RowCodec, RowRef};
use strata_oltp::{Db, Error, Options, Result, Transaction};

const ACCOUNTS: i32 = 16;
const OPENING: i64 = 100;
const WRITERS: u64 = 3;
const TRANSFERS: u64 = 400;

fn open(env: &Arc<dyn Env>) -> Db {
    let options =
        Options { memtable_bytes_max: 4_000, sealed_bytes_max: 16_000, idle_flush_ms: 5, ..Options::default() };
    harness::open(env, options, RowTier::make(env, Path::new(DIR))).unwrap()
}

fn amount(bytes: &[u8]) -> i64 {
    RowRef::new(&RowCodec::new(&schema(HYBRID)), bytes).unwrap().i64(1)
}

fn balance(transaction: &Transaction, id: i32) -> i64 {
    amount(&transaction.get(&schema(HYBRID), &key(HYBRID, id)).unwrap().expect("accounts are never deleted"))
}

fn transfer(db: &Db, from: i32, to: i32, durability: Durability) -> Result<()> {
    let mut transaction = db.begin()?;
    let (source, target) = (balance(&transaction, from), balance(&transaction, to));
    transaction.put(HYBRID, key(HYBRID, from), row(HYBRID, from, source - 1))?;
    transaction.put(HYBRID, key(HYBRID, to), row(HYBRID, to, target + 1))?;
    transaction.commit(durability).map(drop)
}

fn sum(db: &Db) -> i64 {
    let rows = contents(&db.snapshot(), HYBRID);
    assert_eq!(rows.len(), usize::try_from(ACCOUNTS).unwrap());
    rows.values().map(|row| amount(row)).sum()
}

#[test]
fn money_is_neither_made_nor_lost() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let db = open(&env);
    let mut opening = db.begin().unwrap();
    for id in 0..ACCOUNTS {
        opening.put(HYBRID, key(HYBRID, id), row(HYBRID, id, OPENING)).unwrap();
    }
    opening.commit(Durability::Durable).unwrap();
    db.start_background();

    let (conflicts, running) = (AtomicU64::new(0), AtomicU64::new(WRITERS));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, conflicts, running) = (&db, &conflicts, &running);
            scope.spawn(move || {
                let mut state = writer + 1;
                for nth in 0..TRANSFERS {
                    // A linear congruential step: Knuth, TAOCP vol. 2, 3.3.4.
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let (from, to) = ((state >> 33) % 16, (state >> 40) % 15);
                    let to = if to == from { 15 } else { to };
                    let durability = if nth % 3 == 0 { Durability::Buffered } else { Durability::Durable };
                    match transfer(db, i32::try_from(from).unwrap(), i32::try_from(to).unwrap(), durability) {
                        Ok(()) => {}
                        Err(Error::Conflict { .. }) => drop(conflicts.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => panic!("{error}"),
                    }
                }
                running.fetch_sub(1, Ordering::Release);
            });
        }
        scope.spawn(|| {
            while running.load(Ordering::Acquire) > 0 {
                assert_eq!(sum(&db), i64::from(ACCOUNTS) * OPENING, "a snapshot saw half a transfer");
            }
        });
    });
    db.compact(HYBRID).unwrap();
    assert_eq!(sum(&db), i64::from(ACCOUNTS) * OPENING);
    db.close().unwrap();
    assert_eq!(sum(&open(&env)), i64::from(ACCOUNTS) * OPENING);
    assert!(conflicts.load(Ordering::Relaxed) < WRITERS * TRANSFERS, "some transfers must go through");
}
