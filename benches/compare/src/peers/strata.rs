//! Strata's row store, without a column store: a table of kind `row`.
//!
//! A buffered commit is in memory until the next sync, a tenth of a second at most; the engine offers no level that only
//! hands a commit to the operating system.

use std::any::Any;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use arrow_schema::{DataType, Field};
use strata_oltp::cold::{ColdJob, ColdOutput, ColdPlan, RowPart, SealedMarks, SegmentRecord};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;
use strata_oltp::key::table_range;
use strata_oltp::schema::{Column, StorageKind};
use strata_oltp::{ColdTier, ColdView, ColumnId, Db, Error, FileId, Location, Options, SeqNo, TableId, TableSchema};

use super::{Peer, Session, Store, Tuning};
use crate::data::{KEY_BYTES, Key};
use crate::works::Work;

pub const TABLE: TableId = TableId(1);
const FULL_KEY_BYTES: usize = 6 + KEY_BYTES;

pub struct Strata;

struct Open {
    db: Db,
    schema: Arc<TableSchema>,
}

/// Opens a database whose one table has a key and a value, and starts its background threads.
pub fn open(dir: &Path, options: Options) -> Result<(Db, Arc<TableSchema>)> {
    open_shaped(dir, options, CompactionOptions::default())
}

/// [`open`] with a shape of the table's levels.
pub fn open_shaped(dir: &Path, options: Options, compaction: CompactionOptions) -> Result<(Db, Arc<TableSchema>)> {
    let column = |id, name| Column { id: ColumnId(id), field: Field::new(name, DataType::BinaryView, false) };
    let schema = Arc::new(TableSchema::new(TABLE, 1, vec![column(1, "key"), column(2, "value")], vec![0])?);
    let env: Arc<dyn Env> = Arc::new(OsEnv::new());
    let db = Db::open(env, dir, options, Arc::new(RowsOnly))?;
    db.register_table_with(Arc::clone(&schema), StorageKind::Row, compaction);
    db.start_background();
    Ok((db, schema))
}

/// `key` as the table's full key.
pub fn full_key(key: &Key) -> [u8; FULL_KEY_BYTES] {
    let mut full = [0; FULL_KEY_BYTES];
    full[..4].copy_from_slice(&TABLE.0.to_be_bytes());
    full[6..].copy_from_slice(key);
    full
}

impl Peer for Strata {
    fn name(&self) -> &'static str {
        "strata"
    }

    fn does(&self, _: Work) -> bool {
        true
    }

    fn open(&self, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>> {
        let mut options = Options {
            block_cache_bytes_max: tuning.cache_bytes,
            memtable_bytes_max: tuning.memtable_bytes,
            ..Options::default()
        };
        if !tuning.checkpoints {
            options.wal_bytes_max = 8 << 30;
            options.memory_bytes_max = 8 << 30;
        }
        let (db, schema) = open(dir, options)?;
        Ok(Box::new(Open { db, schema }))
    }

    fn is_log(&self, name: &str) -> bool {
        name.starts_with("wal/")
    }
}

impl Store for Open {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        let durability = if durable { Durability::Durable } else { Durability::Buffered };
        Ok(Box::new(Access { open: self, durability }))
    }

    fn load(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let mut transaction = self.db.begin()?;
            for (key, value) in rows.by_ref().take(1000) {
                transaction.put(TABLE, full_key(&key).to_vec(), value)?;
            }
            transaction.commit(Durability::Buffered)?;
        }
        Ok(())
    }

    fn settle(&self, whole: bool) -> Result<()> {
        if whole {
            self.db.merge_runs(TABLE)?;
        } else {
            self.db.flush(None)?;
        }
        while self.db.step()? {}
        Ok(())
    }

    fn log_bytes(&self) -> Result<Option<u64>> {
        Ok(Some(self.db.stats().wal_bytes))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Err(error) = self.db.clone().close() {
            eprintln!("strata: closing failed: {error}");
        }
    }
}

struct Access<'a> {
    open: &'a Open,
    durability: Durability,
}

impl Session for Access<'_> {
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        loop {
            let mut transaction = self.open.db.begin()?;
            transaction.put(TABLE, full_key(key).to_vec(), value.to_vec())?;
            match transaction.commit(self.durability) {
                Ok(_) => return Ok(()),
                // Another thread wrote the row at the same moment.
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn get(&mut self, key: &Key) -> Result<bool> {
        Ok(self.open.db.get(&self.open.schema, &full_key(key))?.is_some())
    }

    fn scan(&mut self, key: &Key, count: usize) -> Result<usize> {
        let snapshot = self.open.db.snapshot();
        let (start, end) = (full_key(key), table_range(TABLE).end);
        let Some(rows) = snapshot.view().rows(TABLE) else { return Ok(0) };
        let mut cursor = rows.scan(&start..&end, snapshot.seqno(), None)?;
        let mut found = 0;
        while found < count && cursor.next()? {
            std::hint::black_box(cursor.key());
            std::hint::black_box(cursor.value()?);
            found += 1;
        }
        Ok(found)
    }
}

/// No column store: tables of kind `row` have no use for one.
struct RowsOnly;

impl ColdView for RowsOnly {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn locate(&self, _: TableId, _: &[u8], _: SeqNo) -> strata_oltp::Result<Option<(Location, SeqNo)>> {
        Ok(None)
    }

    fn read_row(&self, _: &TableSchema, location: Location) -> strata_oltp::Result<Vec<u8>> {
        Err(Error::Invalid(format!("no segment {}", location.segment)))
    }

    fn scan_keys(&self, _: TableId, _: Range<&[u8]>, _: SeqNo) -> strata_oltp::Result<Vec<(Vec<u8>, Location)>> {
        Ok(Vec::new())
    }

    fn segments(&self, _: TableId) -> Vec<FileId> {
        Vec::new()
    }

    fn key_range(&self, _: FileId) -> Option<(Vec<u8>, Vec<u8>)> {
        None
    }
}

impl ColdTier for RowsOnly {
    fn restore(&self, _: &[SegmentRecord]) -> strata_oltp::Result<Arc<dyn ColdView>> {
        Ok(Arc::new(RowsOnly))
    }

    fn mark(&self, _: &dyn ColdView, _: Location, _: SeqNo) {}

    fn replay_mark(&self, _: &dyn ColdView, _: &[u8], _: SeqNo) -> strata_oltp::Result<()> {
        Ok(())
    }

    fn plan(&self, _: &dyn ColdView, _: &RowPart) -> Option<ColdPlan> {
        None
    }

    fn run(&self, _: &dyn ColdView, _: ColdJob<'_>) -> strata_oltp::Result<ColdOutput> {
        Err(Error::Invalid("no column store here".to_owned()))
    }

    fn translate(&self, _: &ColdOutput, _: &[(Vec<u8>, SeqNo)]) -> strata_oltp::Result<Vec<(Location, SeqNo)>> {
        Ok(Vec::new())
    }

    fn install(&self, _: &dyn ColdView, _: ColdOutput, _: &[(Location, SeqNo)]) -> Arc<dyn ColdView> {
        Arc::new(RowsOnly)
    }

    fn seal(
        &self,
        _: &dyn ColdView,
        _: TableId,
        _: SeqNo,
        _: &dyn Fn() -> FileId,
    ) -> strata_oltp::Result<Vec<SealedMarks>> {
        Ok(Vec::new())
    }

    fn verify(&self, _: &dyn ColdView) -> strata_oltp::Result<u64> {
        Ok(0)
    }

    fn drop_table(&self, _: &dyn ColdView, _: TableId) -> Arc<dyn ColdView> {
        Arc::new(RowsOnly)
    }
}
