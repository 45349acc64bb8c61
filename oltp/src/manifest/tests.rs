//! Proves the bytes of edits, and that what was appended is there after any crash, on a simulated machine.

use std::path::Path;
use std::sync::Arc;

use super::edit::{decode_edits, encode_edits};
use super::*;

use crate::env::sim::{PowerLoss, SimEnv};
use crate::schema::TableId;
use crate::wal::WalStart;
use crate::wal::tests::hex_example;

const DIR: &str = "/db";

fn run(table: u32, run: u64) -> RunMeta {
    RunMeta {
        run: FileId(run),
        table: TableId(table),
        file_bytes: 4096,
        version_count: 10,
        tombstone_count: 1,
        key_min: vec![1],
        key_max: vec![2, 3],
        seqno_min: SeqNo(run),
        seqno_max: SeqNo(run + 1),
        unique_keys: run.is_multiple_of(2),
        checksum: run * 7,
        created_ms: 9,
    }
}

fn open(env: &SimEnv) -> Result<(Manifest, Arc<Version>)> {
    Manifest::open(Arc::new(env.clone()), Path::new(DIR))
}

fn files_of(version: &Version, table: u32) -> Vec<u64> {
    version.table(TableId(table)).map_or(Vec::new(), |table| table.runs.iter().map(|run| run.run.0).collect())
}

#[test]
fn format_example_is_what_is_written() {
    let edits = [
        Edit::FlushedThrough { table: TableId(3), seqno: SeqNo(9) },
        Edit::WalReleased(WalStart { file: FileId(7), lsn: Lsn(4096) }),
    ];
    let bytes = encode_edits(&edits);
    assert_eq!(bytes, hex_example(include_str!("FORMAT.md")), "{bytes:02x?}");
    assert_eq!(decode_edits(&bytes).expect("decodes"), edits);
}

#[test]
fn appended_edits_are_there_after_reopening() {
    let env = SimEnv::new(1);
    let (manifest, version) = open(&env).expect("open");
    assert_eq!(version.tables.len(), 0);
    let db_id = manifest.db_id();
    let first = manifest.next_file();
    manifest.append(&[Edit::AddRun(run(1, 50)), Edit::AddRun(run(1, 51)), Edit::AddRun(run(1, 52))]).expect("append");
    let merge = Edit::MergeRuns { table: TableId(1), removed: vec![FileId(50), FileId(51)], added: Some(run(1, 53)) };
    let version = manifest.append(&[merge, Edit::AddRun(run(1, 54))]).expect("append");
    assert_eq!(files_of(&version, 1), [53, 52, 54]);
    let env = env.reboot(PowerLoss::DropUnsynced);
    let (manifest, reopened) = open(&env).expect("reopen");
    assert_eq!(reopened.tables, version.tables);
    assert_eq!(manifest.db_id(), db_id);
    assert!(manifest.next_file() > first);
}
