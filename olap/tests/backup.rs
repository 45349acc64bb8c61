//! Backups of a whole store, with real segments, taken while rows are converted: each restores to exactly its commit. The
//! machine is the row store's (`oltp/tests/harness/backup.rs`).

#[path = "../../oltp/tests/harness/mod.rs"]
mod harness;

use std::path::Path;
use std::sync::Arc;

use strata_olap::{Store, StoreOptions};
use strata_oltp::env::Env;
use strata_oltp::{ColdTier, MemoryBudget};

fn make_tier(env: &Arc<dyn Env>, dir: &Path) -> Arc<dyn ColdTier> {
    let options = StoreOptions { row_group_rows_max: 3, segment_rows_max: 7, ..StoreOptions::default() };
    Store::new(Arc::clone(env), dir, MemoryBudget::new(256 << 20), options)
}

#[test]
fn backups_restore_to_their_commit_while_rows_are_converted() {
    harness::backup::under_load(make_tier, 1, 6);
}
