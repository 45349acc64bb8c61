//! What the memory budget is charged for committed rows.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{key, row, schema};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::schema::StorageKind;
use strata_oltp::{Db, Options, TableId};

/// A budget of a few megabytes takes ten thousand small commits: each is charged for its rows, not for the step in which
/// its transaction reserved memory, and a flush gives the memory back.
#[test]
fn small_commits_are_charged_for_their_rows() {
    const TABLE: TableId = TableId(10);
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let dir = Path::new("/db");
    let options = Options { memory_bytes_max: 8 << 20, block_cache_bytes_max: 1 << 20, ..Options::default() };
    let db = Db::open(Arc::clone(&env), dir, options, RowTier::make(&env, dir)).unwrap();
    db.register_table(schema(TABLE), StorageKind::Hybrid);
    for id in 0..10_000 {
        let mut transaction = db.begin().unwrap();
        transaction.put(TABLE, key(TABLE, id), row(TABLE, id, 1)).unwrap();
        transaction.commit(Durability::Buffered).unwrap();
    }
    let charged = |db: &Db| {
        let usage = db.budget().usage_by_consumer();
        usage.iter().filter(|(name, _)| *name == "memtables").map(|(_, bytes)| *bytes).sum::<u64>()
    };
    let full = charged(&db);
    assert!((100_000..4_000_000).contains(&full), "{full} bytes for 10,000 rows");
    db.flush(None).unwrap();
    assert_eq!(charged(&db), 0, "a flushed memtable gives its memory back");
}
