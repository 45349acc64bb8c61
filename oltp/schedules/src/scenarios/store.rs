//! `Store`: a database on a [`Disk`], and the record of what was committed and seen, checked when all threads are done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use arrow_schema::{DataType, Field};

use super::disk::{self, Disk};
use super::row_tier::RowTier;
use crate::db::Durability;
use crate::env::Env;
use crate::key::table_range;
use crate::schema::{Column, StorageKind};
use crate::wal::WalOptions;
use crate::{ColumnId, Db, Options, Result, SeqNo, Snapshot, TableId, TableSchema};

/// A table whose rows are converted.
pub(super) const HYBRID: TableId = TableId(10);

/// Key number → the commit that wrote the row.
pub(super) type Rows = BTreeMap<u32, u32>;

/// What a commit does to a key.
pub(super) type Write = (u32, bool);

fn schema() -> &'static Arc<TableSchema> {
    static SCHEMA: OnceLock<Arc<TableSchema>> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let column = Column { id: ColumnId(1), field: Field::new("id", DataType::Int32, false) };
        Arc::new(TableSchema::new(HYBRID, 1, vec![column], vec![0]).unwrap())
    })
}

fn key(id: u32) -> Vec<u8> {
    [HYBRID.0.to_be_bytes(), id.to_be_bytes()].concat()
}

fn id_of(key: &[u8]) -> u32 {
    u32::from_be_bytes(key[4..].try_into().unwrap())
}

/// A row that says which shape it is of, as every row must, and then only who wrote it.
fn row_of(commit: u32) -> Vec<u8> {
    [schema().version.to_le_bytes().as_slice(), &disk::marker(commit)].concat()
}

fn commit_of(row: &[u8]) -> u32 {
    u32::from_be_bytes(row[10..14].try_into().unwrap())
}

/// Small enough that opening costs little, with log files of a few commits each.
pub(super) fn options() -> Options {
    Options {
        memory_bytes_max: 64 << 20,
        block_cache_bytes_max: 1 << 16,
        idle_flush_ms: 0,
        wal: WalOptions { segment_bytes: 4096 + 200, fill_bytes: 0, spare_count_max: 1, buffer_bytes_max: 1 << 20 },
        ..Options::default()
    }
}

/// The database and what is known about it.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) db: Db,
    pub(super) disk: Disk,
    history: Arc<Mutex<History>>,
}

/// Never locked across a point where another thread may run.
#[derive(Default)]
struct History {
    /// Acknowledged commits.
    commits: BTreeMap<SeqNo, (u32, Vec<Write>)>,
    durable: BTreeSet<u32>,
    /// What snapshots showed.
    seen: Vec<(SeqNo, Rows)>,
}

impl Store {
    pub(super) fn new(options: Options) -> Store {
        Store::on(Disk::new(), options)
    }

    fn on(disk: Disk, options: Options) -> Store {
        let env: Arc<dyn Env> = Arc::new(disk.clone());
        let tier = RowTier::make(&env, &disk::dir());
        let db = Db::open(env, &disk::dir(), options, tier).unwrap();
        db.register_table(Arc::clone(schema()), StorageKind::Hybrid);
        Store { db, disk, history: Arc::default() }
    }

    /// Commits `writes` (key, and whether it is put or deleted) and notes it.
    pub(super) fn commit(&self, commit: u32, writes: &[Write], durability: Durability) -> Result<SeqNo> {
        let mut transaction = self.db.begin()?;
        for &(id, is_put) in writes {
            if is_put {
                transaction.put(HYBRID, key(id), row_of(commit))?;
            } else {
                transaction.delete(HYBRID, key(id))?;
            }
        }
        if durability == Durability::Durable {
            self.history.lock().unwrap().durable.insert(commit);
        }
        let seqno = transaction.commit(durability)?;
        if durability == Durability::Durable {
            let has_marker = writes.iter().any(|(_, is_put)| *is_put);
            assert!(!has_marker || self.disk.is_durable(commit), "P1: acknowledged and not on the disk");
        }
        let mut history = self.history.lock().unwrap();
        let twice = history.commits.insert(seqno, (commit, writes.to_vec()));
        assert!(twice.is_none(), "I5: two commits at {seqno}");
        Ok(seqno)
    }

    /// The newest commit acknowledged so far.
    fn acknowledged(&self) -> SeqNo {
        self.history.lock().unwrap().commits.last_key_value().map_or(SeqNo::ZERO, |(seqno, _)| *seqno)
    }

    /// Reads everything at a new snapshot, which must not be older than `last`, and notes what it showed.
    pub(super) fn look(&self, last: SeqNo) -> SeqNo {
        let acknowledged = self.acknowledged();
        let snapshot = self.db.snapshot();
        assert!(snapshot.seqno() >= last, "I2: the read point went back");
        assert!(snapshot.seqno() >= acknowledged, "P4: acknowledged and not visible");
        self.read(&snapshot);
        snapshot.seqno()
    }

    /// Reads everything at `snapshot` and notes it.
    pub(super) fn read(&self, snapshot: &Snapshot) -> Rows {
        let rows = contents(snapshot);
        let mut history = self.history.lock().unwrap();
        for commit in rows.values().filter(|commit| history.durable.contains(commit)) {
            assert!(self.disk.is_durable(*commit), "read commit {commit}, which a power loss would take back");
        }
        history.seen.push((snapshot.seqno(), rows.clone()));
        rows
    }

    /// Every snapshot showed exactly the commits up to its own, and so does what is there now.
    pub(super) fn check(&self) {
        self.look(SeqNo::ZERO);
        let history = self.history.lock().unwrap();
        for (seqno, rows) in &history.seen {
            assert_eq!(*rows, history.rows_at(*seqno), "P3: what a snapshot at {seqno} shows");
        }
    }

    /// After power loss every durable commit is there, and all before it.
    pub(super) fn check_reboot(&self, options: Options) {
        let survivor = Store::on(self.disk.reboot(), options);
        let rows = contents(&survivor.db.snapshot());
        let history = self.history.lock().unwrap();
        let at = survivor.db.stats().read_point;
        let newest = history.commits.iter().rev().find(|(_, (commit, _))| history.durable.contains(commit));
        assert!(newest.is_none_or(|(seqno, _)| *seqno <= at), "P1: a durable commit is gone");
        assert_eq!(rows, history.rows_at(at), "P2: a prefix of the commits");
    }

    /// After power loss every acknowledged durable commit that wrote a key of its own is there. For histories with
    /// commits whose fate is unknown.
    pub(super) fn check_survivors(&self, options: Options) {
        let survivor = Store::on(self.disk.reboot(), options);
        let rows = contents(&survivor.db.snapshot());
        let history = self.history.lock().unwrap();
        for (commit, writes) in history.commits.values().filter(|(commit, _)| history.durable.contains(commit)) {
            for (id, _) in writes {
                assert_eq!(rows.get(id), Some(commit), "P1: a durable commit is gone");
            }
        }
    }
}

impl History {
    fn rows_at(&self, seqno: SeqNo) -> Rows {
        let mut rows = Rows::new();
        for (commit, writes) in self.commits.range(..=seqno).map(|(_, commit)| commit) {
            for (id, is_put) in writes {
                if *is_put {
                    rows.insert(*id, *commit);
                } else {
                    rows.remove(id);
                }
            }
        }
        rows
    }
}

/// Every row at the snapshot, each found once (I7), and found again by a point read.
fn contents(snapshot: &Snapshot) -> Rows {
    let range = table_range(HYBRID);
    let range = range.start.as_slice()..range.end.as_slice();
    let view = snapshot.view();
    let mut found = Rows::new();
    if let Some(rows) = view.rows(HYBRID) {
        let mut scan = rows.scan(range.clone(), snapshot.seqno(), None).unwrap();
        while scan.next().unwrap() {
            let id = id_of(scan.key());
            assert!(found.insert(id, commit_of(scan.value().unwrap())).is_none(), "I7: a row twice");
        }
    }
    for (key, location) in view.cold().scan_keys(HYBRID, range, snapshot.seqno()).unwrap() {
        let row = view.cold().read_row(schema(), location).unwrap();
        assert!(found.insert(id_of(&key), commit_of(&row)).is_none(), "I6: two homes");
    }
    for (id, commit) in &found {
        let row = snapshot.get(schema(), &key(*id)).unwrap();
        assert_eq!(row.as_deref().map(commit_of), Some(*commit), "point read of {id}");
    }
    found
}
