//! Strata's row store, without a column store: a table of kind `row`.

use std::any::Any;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use arrow_schema::{DataType, Field};
use strata_oltp::cold::{ColdJob, ColdOutput, ColdPlan, RowPart, SealedMarks, SegmentRecord};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;
use strata_oltp::key::table_range;
use strata_oltp::schema::{Column, StorageKind};
use strata_oltp::{
    ColdTier, ColdView, ColumnId, Db, Error, FileId, Location, Options, SeqNo, Snapshot, TableId, TableSchema,
};

use super::{Peer, Setup};
use crate::data::{KEY_BYTES, Random, key, value};

const TABLE: TableId = TableId(1);

pub struct Strata {
    setup: Setup,
    loaded: Option<Db>,
    schema: Arc<TableSchema>,
}

impl Strata {
    pub fn new(setup: Setup) -> Strata {
        let column = |id, name| Column { id: ColumnId(id), field: Field::new(name, DataType::BinaryView, false) };
        let schema = TableSchema::new(TABLE, 1, vec![column(1, "key"), column(2, "value")], vec![0]);
        Strata { setup, loaded: None, schema: Arc::new(schema.expect("a sound schema")) }
    }

    fn open(&self, dir: &Path) -> Result<Db> {
        let env: Arc<dyn Env> = Arc::new(OsEnv::new());
        let options = Options { block_cache_bytes_max: 512 << 20, ..Options::default() };
        let db = Db::open(env, dir, options, Arc::new(RowsOnly))?;
        db.register_table(Arc::clone(&self.schema), StorageKind::Row);
        db.start_background();
        Ok(db)
    }

    /// The database that is read: all rows, merged into one run, as `db_bench` reads a compacted one.
    fn loaded(&mut self) -> Result<&Db> {
        if self.loaded.is_none() {
            let db = self.open(&self.setup.fresh("loaded")?)?;
            let mut random = Random(7);
            for from in (0..self.setup.rows).step_by(1000) {
                let mut transaction = db.begin()?;
                for id in from..(from + 1000).min(self.setup.rows) {
                    transaction.put(TABLE, full_key(id).to_vec(), value(&mut random).to_vec())?;
                }
                transaction.commit(Durability::Buffered)?;
            }
            db.merge_runs(TABLE)?;
            self.loaded = Some(db);
        }
        self.loaded.as_ref().ok_or_else(|| anyhow::anyhow!("just loaded"))
    }
}

fn full_key(id: u64) -> [u8; 6 + KEY_BYTES] {
    let mut full = [0; 6 + KEY_BYTES];
    full[..4].copy_from_slice(&TABLE.0.to_be_bytes());
    full[6..].copy_from_slice(&key(id));
    full
}

impl Peer for Strata {
    fn name(&self) -> &'static str {
        "strata"
    }

    fn installed(&self) -> bool {
        true
    }

    fn commits(&mut self, clients: usize, durable: bool) -> Result<f64> {
        let durability = if durable { Durability::Durable } else { Durability::Buffered };
        let db = self.open(&self.setup.fresh("commits")?)?;
        let rows = self.setup.rows;
        let rate = self.setup.rate(clients, |random| {
            loop {
                let mut transaction = db.begin()?;
                transaction.put(TABLE, full_key(random.next() % rows).to_vec(), value(random).to_vec())?;
                match transaction.commit(durability) {
                    Ok(_) => return Ok(()),
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        })?;
        db.close()?;
        Ok(rate)
    }

    fn point_reads(&mut self) -> Result<f64> {
        let (schema, db, rows) = (Arc::clone(&self.schema), self.loaded()?.clone(), self.setup.rows);
        self.setup.rate(1, |random| {
            ensure!(db.get(&schema, &full_key(random.next() % rows))?.is_some(), "a row is missing");
            Ok(())
        })
    }

    fn scans(&mut self) -> Result<f64> {
        let (db, rows) = (self.loaded()?.clone(), self.setup.rows);
        self.setup.rate(1, |random| scan(&db.snapshot(), random.next() % rows))
    }
}

fn scan(snapshot: &Snapshot, from: u64) -> Result<()> {
    let end = table_range(TABLE).end;
    let Some(rows) = snapshot.view().rows(TABLE) else { return Ok(()) };
    let start = full_key(from);
    let mut cursor = rows.scan(&start..&end, snapshot.seqno(), None)?;
    for _ in 0..11 {
        if !cursor.next()? {
            break;
        }
        std::hint::black_box((cursor.key(), cursor.value()));
    }
    Ok(())
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
