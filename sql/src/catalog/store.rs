//! The catalog's rows: three system tables of kind `row`, written in the transaction of the DDL statement.
//!
//! Layout: FORMAT.md. A reader needs one point read (the version) to know whether the catalog it holds is the one its
//! snapshot sees; only after a change are the tables read again.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Weak};

use arc_swap::ArcSwap;
use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::key::{KeyCodec, table_range};
use strata_oltp::row::{RowCodec, RowRef, Value};
use strata_oltp::schema::{Column, StorageKind};
use strata_oltp::txn::Transaction;
use strata_oltp::view::{ReadView, Snapshot, TableRows};
use strata_oltp::{ColumnId, SeqNo, TableId, TableSchema};

use super::sequence::{Sequence, SequenceShape};
use super::view::View;
use super::{Catalog, DEFAULT_SCHEMA, Relations, Rules, Storage, Table, TableName};
use crate::error::{Error, Result};

/// Version of the rows' meaning; see FORMAT.md.
const FORMAT_VERSION: i16 = 2;
/// The oldest version that is still read: it has no views, no sequences and no rules.
const FORMAT_VERSION_MIN: i16 = 1;

/// One system table: its shape and codecs, built once.
pub(crate) struct SystemTable {
    pub schema: Arc<TableSchema>,
    keys: KeyCodec,
    rows: RowCodec,
}

impl SystemTable {
    fn new(id: u32, columns: &[(&str, DataType)], key_columns: usize) -> SystemTable {
        let column = |(at, (name, data_type)): (usize, &(&str, DataType))| Column {
            id: ColumnId(u32::try_from(at).unwrap_or(u32::MAX)),
            field: Field::new(*name, data_type.clone(), false),
        };
        let columns = columns.iter().enumerate().map(column).collect();
        let schema = TableSchema::new(TableId(id), 1, columns, (0..key_columns).collect());
        let schema = Arc::new(schema.expect("the system tables are well formed"));
        SystemTable { keys: KeyCodec::new(&schema), rows: RowCodec::new(&schema), schema }
    }

    fn key(&self, values: &[Value<'_>]) -> Result<Vec<u8>> {
        let mut key = Vec::new();
        self.keys.encode(values, &mut key)?;
        Ok(key)
    }

    fn put(&self, txn: &mut Transaction, values: &[Value<'_>]) -> Result<()> {
        let (mut key, mut row) = (Vec::new(), Vec::new());
        self.keys.encode_row(values, &mut key)?;
        self.rows.encode(values, &mut row)?;
        Ok(txn.put(self.schema.table, key, row)?)
    }

    fn delete(&self, txn: &mut Transaction, key: &[Value<'_>]) -> Result<()> {
        Ok(txn.delete(self.schema.table, self.key(key)?)?)
    }

    fn for_each(&self, from: ReadPoint<'_>, mut visit: impl FnMut(RowRef<'_>) -> Result<()>) -> Result<()> {
        let Some(rows) = from.view.rows(self.schema.table) else { return Ok(()) };
        let range = table_range(self.schema.table);
        let mut cursor = rows.scan(&range.start..&range.end, from.at, None)?;
        while cursor.next()? {
            visit(RowRef::new(&self.rows, cursor.value()?)?)?;
        }
        Ok(())
    }
}

static SCHEMAS: LazyLock<SystemTable> = LazyLock::new(|| SystemTable::new(1, &[("name", DataType::Utf8View)], 1));

static TABLES: LazyLock<SystemTable> = LazyLock::new(|| {
    let columns = [
        ("schema", DataType::Utf8View),
        ("name", DataType::Utf8View),
        ("kind", DataType::Int16),
        ("definition", DataType::BinaryView),
        ("options", DataType::Utf8View),
    ];
    SystemTable::new(2, &columns, 2)
});

static STATE: LazyLock<SystemTable> = LazyLock::new(|| {
    let columns = [
        ("id", DataType::Int16),
        ("format", DataType::Int16),
        ("version", DataType::Int64),
        ("next_table", DataType::Int64),
    ];
    SystemTable::new(3, &columns, 1)
});

static VIEWS: LazyLock<SystemTable> = LazyLock::new(|| {
    let columns = [
        ("schema", DataType::Utf8View),
        ("name", DataType::Utf8View),
        ("query", DataType::Utf8View),
        ("options", DataType::Utf8View),
    ];
    SystemTable::new(4, &columns, 2)
});

static SEQUENCES: LazyLock<SystemTable> = LazyLock::new(|| {
    let columns = [("schema", DataType::Utf8View), ("name", DataType::Utf8View), ("definition", DataType::Utf8View)];
    SystemTable::new(5, &columns, 2)
});

/// The system tables, to be registered with the store.
pub(crate) fn system_tables() -> [Arc<TableSchema>; 5] {
    [&SCHEMAS, &TABLES, &STATE, &VIEWS, &SEQUENCES].map(|table| Arc::clone(&table.schema))
}

/// The system table with one row per table.
pub const CATALOG_TABLE: TableId = TableId(2);

/// A table as its row in [`CATALOG_TABLE`] describes it, for tools that read a database without opening it.
#[derive(Clone, Debug)]
pub struct TableDefinition {
    /// Name without schema.
    pub name: String,
    /// Its shape.
    pub shape: TableSchema,
}

/// Reads a row of [`CATALOG_TABLE`]; `None` if it is none.
#[must_use]
pub fn table_definition(row: &[u8]) -> Option<TableDefinition> {
    let row = RowRef::new(&TABLES.rows, row).ok()?;
    Some(TableDefinition { name: row.text(1).ok()?.to_owned(), shape: TableSchema::from_bytes(row.variable(3)).ok()? })
}

/// What the `options` column holds, as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredOptions {
    /// Character limits by column number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    chars_max: BTreeMap<u32, u32>,
    /// Shape of the levels, if it is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    compaction: Option<String>,
    #[serde(skip_serializing_if = "Rules::is_empty")]
    rules: Rules,
}

/// What a statement reads the catalog from.
#[derive(Clone, Copy)]
pub(crate) struct ReadPoint<'a> {
    pub view: &'a ReadView,
    pub at: SeqNo,
}

impl<'a> From<&'a Snapshot> for ReadPoint<'a> {
    fn from(snapshot: &'a Snapshot) -> ReadPoint<'a> {
        ReadPoint { view: snapshot.view(), at: snapshot.seqno() }
    }
}

/// The newest catalog that was read.
pub(crate) struct CatalogCache {
    newest: ArcSwap<Known>,
}

/// A catalog, and how to see that it is still the one.
struct Known {
    catalog: Arc<Catalog>,
    /// The rows of the table with the version, as they lay when it was read. Held weakly, so that it keeps no file.
    rows: Weak<TableRows>,
    /// Every commit to them that there was, and from which commit on that is known.
    announced: SeqNo,
    since: SeqNo,
}

impl Known {
    /// Whether no commit can have changed the catalog for readers at `from`: the rows lie as they lay, and no newer commit
    /// to them has been announced, which it would have been before it became readable.
    fn holds_at(&self, from: ReadPoint<'_>) -> bool {
        let rows = from.view.rows(STATE.schema.table);
        rows.is_some_and(|rows| {
            std::ptr::eq(self.rows.as_ptr(), Arc::as_ptr(rows)) && rows.newest_announced() == self.announced
        }) && from.at >= self.since
    }
}

impl CatalogCache {
    pub(crate) fn new() -> CatalogCache {
        let catalog = Arc::new(Catalog::empty());
        let known = Known { catalog, rows: Weak::new(), announced: SeqNo::ZERO, since: SeqNo::MAX };
        CatalogCache { newest: ArcSwap::from_pointee(known) }
    }

    /// The catalog that `from` sees. Costs a comparison as long as nobody changes it, one point read after somebody has
    /// written to its tables, and reading it anew if it is another one.
    ///
    /// # Errors
    /// Corrupt or unreadable rows.
    pub(crate) fn at<'a>(&self, from: impl Into<ReadPoint<'a>>) -> Result<Arc<Catalog>> {
        let from = from.into();
        let newest = self.newest.load();
        if newest.holds_at(from) {
            return Ok(Arc::clone(&newest.catalog));
        }
        // Before the version is read: what comes in between only makes for another look.
        let rows = from.view.rows(STATE.schema.table);
        let announced = rows.map_or(SeqNo::ZERO, |rows| rows.newest_announced());
        let (version, next_table) = read_state(from)?;
        let catalog = if newest.catalog.version == version {
            Arc::clone(&newest.catalog)
        } else {
            Arc::new(load(from, version, next_table)?)
        };
        if version >= newest.catalog.version && announced <= from.at {
            let rows = rows.map_or_else(Weak::new, Arc::downgrade);
            let known = Arc::new(Known { catalog: Arc::clone(&catalog), rows, announced, since: from.at });
            // An older reader does not put its catalog in the place of a newer one; two of one version may.
            self.newest.rcu(
                |newest| {
                    if newest.catalog.version > version { Arc::clone(newest) } else { Arc::clone(&known) }
                },
            );
        }
        Ok(catalog)
    }
}

fn read_state(from: ReadPoint<'_>) -> Result<(u64, u32)> {
    let key = STATE.key(&[Value::Int16(0)])?;
    let Some(bytes) = from.view.get(&STATE.schema, &key, from.at)? else {
        return Ok((0, Catalog::empty().next_table));
    };
    let row = RowRef::new(&STATE.rows, &bytes)?;
    let format = row.i16(1);
    if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&format) {
        let message = format!("the catalog has format {format}, this program reads {FORMAT_VERSION}");
        return Err(Error::new(crate::SqlState::NotInPrerequisiteState, message).with_hint("upgrade Strata"));
    }
    let next_table = u32::try_from(row.i64(3)).map_err(|_| Error::internal("a table number beyond 32 bits"))?;
    Ok((row.i64(2).cast_unsigned(), next_table))
}

fn load(from: ReadPoint<'_>, version: u64, next_table: u32) -> Result<Catalog> {
    let mut catalog = Catalog { version, next_table, ..Catalog::empty() };
    SCHEMAS.for_each(from, |row| {
        catalog.schemas.entry(row.text(0)?.to_owned()).or_default();
        Ok(())
    })?;
    TABLES.for_each(from, |row| {
        let table = read_table(row)?;
        let relations = catalog.schemas.entry(table.schema_name.clone()).or_default();
        relations.tables.insert(table.name.clone(), Arc::new(table));
        Ok(())
    })?;
    VIEWS.for_each(from, |row| {
        let name = read_name(&row)?;
        let options = serde_json::from_str(row.text(3)?).map_err(|_| damaged("view", &name, "unreadable options"))?;
        let view = View { query: row.text(2)?.to_owned(), options, name };
        let relations = catalog.schemas.entry(view.name.schema.clone()).or_default();
        relations.views.insert(view.name.table.clone(), Arc::new(view));
        Ok(())
    })?;
    SEQUENCES.for_each(from, |row| {
        let name = read_name(&row)?;
        let shape = serde_json::from_str(row.text(2)?);
        let shape = shape.map_err(|_| damaged("sequence", &name, "an unreadable definition"))?;
        let relations = catalog.schemas.entry(name.schema.clone()).or_default();
        relations.sequences.insert(name.table.clone(), Arc::new(Sequence { name, shape }));
        Ok(())
    })?;
    Ok(catalog)
}

fn read_name(row: &RowRef<'_>) -> Result<TableName> {
    Ok(TableName { schema: row.text(0)?.to_owned(), table: row.text(1)?.to_owned() })
}

fn damaged(kind: &str, name: &TableName, what: &str) -> Error {
    Error::new(crate::SqlState::DataCorrupted, format!("the catalog entry of {kind} {name} has {what}"))
        .with_hint("restore the database from a checkpoint")
}

fn read_table(row: RowRef<'_>) -> Result<Table> {
    let name = read_name(&row)?;
    let damaged = |what: &str| damaged("table", &name, what);
    let kind = match row.i16(2) {
        0 => StorageKind::Hybrid,
        1 => StorageKind::Row,
        _ => return Err(damaged("an unknown storage kind")),
    };
    let shape = TableSchema::from_bytes(row.variable(3))?;
    let options: StoredOptions =
        serde_json::from_str(row.text(4)?).map_err(|_| damaged("options that do not read as JSON"))?;
    let position = |id: u32| shape.columns.iter().position(|column| column.id == ColumnId(id));
    let chars_max = options.chars_max.iter().filter_map(|(id, limit)| Some((position(*id)?, *limit))).collect();
    let compaction = options.compaction.as_deref().unwrap_or_default().parse();
    let compaction = compaction.map_err(|_| damaged("compaction options that make no sense"))?;
    Table::new(name, shape, Storage { kind, compaction }, chars_max, options.rules)
}

/// Changes of the catalog: each writes rows into the transaction.
impl Catalog {
    /// A number for a table, an index or a sequence, never given out before; taken for good by the next change.
    pub(crate) fn new_storage(&mut self) -> TableId {
        self.next_table += 1;
        TableId(self.next_table - 1)
    }

    pub(crate) fn add_schema(&mut self, txn: &mut Transaction, name: &str) -> Result<()> {
        self.schemas.insert(name.to_owned(), Relations::default());
        SCHEMAS.put(txn, &[Value::Text(name)])?;
        self.store_state(txn)
    }

    pub(crate) fn remove_schema(&mut self, txn: &mut Transaction, name: &str) -> Result<()> {
        self.schemas.remove(name);
        SCHEMAS.delete(txn, &[Value::Text(name)])?;
        self.store_state(txn)
    }

    /// Adds a table, or puts it in place of the one with its name.
    pub(crate) fn put_table(&mut self, txn: &mut Transaction, table: Table) -> Result<()> {
        write_table(txn, &table)?;
        let relations = self.relations_for(txn, &table.schema_name)?;
        relations.tables.insert(table.name.clone(), Arc::new(table));
        self.store_state(txn)
    }

    pub(crate) fn remove_table(&mut self, txn: &mut Transaction, name: &TableName) -> Result<()> {
        if let Some(relations) = self.schemas.get_mut(&name.schema) {
            relations.tables.remove(&name.table);
        }
        TABLES.delete(txn, &[Value::Text(&name.schema), Value::Text(&name.table)])?;
        self.store_state(txn)
    }

    /// Adds a view, or puts it in place of the one with its name.
    pub(crate) fn put_view(&mut self, txn: &mut Transaction, view: View) -> Result<()> {
        let options = to_json(&view.options)?;
        let TableName { schema, table } = &view.name;
        let values = [Value::Text(schema), Value::Text(table), Value::Text(&view.query), Value::Text(&options)];
        VIEWS.put(txn, &values)?;
        let relations = self.relations_for(txn, &view.name.schema)?;
        relations.views.insert(view.name.table.clone(), Arc::new(view));
        self.store_state(txn)
    }

    pub(crate) fn remove_view(&mut self, txn: &mut Transaction, name: &TableName) -> Result<()> {
        if let Some(relations) = self.schemas.get_mut(&name.schema) {
            relations.views.remove(&name.table);
        }
        VIEWS.delete(txn, &[Value::Text(&name.schema), Value::Text(&name.table)])?;
        self.store_state(txn)
    }

    /// Adds a sequence, or puts it in place of the one with its name.
    pub(crate) fn put_sequence(&mut self, txn: &mut Transaction, sequence: Sequence) -> Result<()> {
        let TableName { schema, table } = &sequence.name;
        let definition = to_json(&sequence.shape)?;
        SEQUENCES.put(txn, &[Value::Text(schema), Value::Text(table), Value::Text(&definition)])?;
        let relations = self.relations_for(txn, &sequence.name.schema)?;
        relations.sequences.insert(sequence.name.table.clone(), Arc::new(sequence));
        self.store_state(txn)
    }

    /// Puts `shape` in the place of the sequence that counts with the same counter; whether there is one.
    ///
    /// # Errors
    /// As [`Catalog::put_sequence`].
    pub(crate) fn reshape_sequence(&mut self, txn: &mut Transaction, shape: &SequenceShape) -> Result<bool> {
        self.replace_numbering(txn, shape.counter, shape)
    }

    /// [`Catalog::reshape_sequence`] of the sequence that counts with `counter`, which need not be that of `shape`.
    ///
    /// # Errors
    /// As [`Catalog::put_sequence`].
    pub(crate) fn replace_numbering(
        &mut self,
        txn: &mut Transaction,
        counter: u32,
        shape: &SequenceShape,
    ) -> Result<bool> {
        let named = self.sequences().find(|sequence| sequence.shape.counter == counter);
        if let Some(name) = named.map(|sequence| sequence.name.clone()) {
            self.put_sequence(txn, Sequence { name, shape: shape.clone() })?;
            return Ok(true);
        }
        let numbers =
            |table: &&Arc<Table>| table.rules.identities.values().any(|identity| identity.sequence.counter == counter);
        let Some(table) = self.tables().find(numbers).cloned() else { return Ok(false) };
        let mut rules = table.rules.clone();
        for identity in rules.identities.values_mut().filter(|known| known.sequence.counter == counter) {
            identity.sequence = shape.clone();
        }
        self.put_table(txn, table.with_rules(rules)?)?;
        Ok(true)
    }

    pub(crate) fn remove_sequence(&mut self, txn: &mut Transaction, name: &TableName) -> Result<()> {
        if let Some(relations) = self.schemas.get_mut(&name.schema) {
            relations.sequences.remove(&name.table);
        }
        SEQUENCES.delete(txn, &[Value::Text(&name.schema), Value::Text(&name.table)])?;
        self.store_state(txn)
    }

    /// The contents of `schema`, which must not go away at the same time; the default one never does.
    fn relations_for(&mut self, txn: &mut Transaction, schema: &str) -> Result<&mut Relations> {
        if schema != DEFAULT_SCHEMA {
            txn.require_unchanged(SCHEMAS.schema.table, SCHEMAS.key(&[Value::Text(schema)])?);
        }
        Ok(self.schemas.entry(schema.to_owned()).or_default())
    }

    /// Writes version and next table number. Every change writes this row, so two concurrent ones conflict and no
    /// version is used twice.
    fn store_state(&mut self, txn: &mut Transaction) -> Result<()> {
        self.version += 1;
        self.home = None;
        let values = [
            Value::Int16(0),
            Value::Int16(FORMAT_VERSION),
            Value::Int64(self.version.cast_signed()),
            Value::Int64(i64::from(self.next_table)),
        ];
        STATE.put(txn, &values)
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("a catalog entry cannot be written: {error}")))
}

fn write_table(txn: &mut Transaction, table: &Table) -> Result<()> {
    let id = |position: &usize| table.shape.columns[*position].id.0;
    let chars_max = table.chars_max.iter().map(|(position, limit)| (id(position), *limit)).collect();
    let compaction = &table.storage.compaction;
    let compaction = (*compaction != CompactionOptions::default()).then(|| compaction.to_string());
    let options = to_json(&StoredOptions { chars_max, compaction, rules: table.rules.clone() })?;
    let kind = match table.storage.kind {
        StorageKind::Hybrid => 0,
        StorageKind::Row => 1,
    };
    let definition = table.shape.to_bytes();
    let values = [
        Value::Text(&table.schema_name),
        Value::Text(&table.name),
        Value::Int16(kind),
        Value::Binary(&definition),
        Value::Text(&options),
    ];
    TABLES.put(txn, &values)
}

/// Makes the commit fail if `table` is dropped or changed by another transaction first.
pub(crate) fn pin_table(txn: &mut Transaction, table: &Table) -> Result<()> {
    let key = TABLES.key(&[Value::Text(&table.schema_name), Value::Text(&table.name)])?;
    txn.require_unchanged(TABLES.schema.table, key);
    Ok(())
}

/// Notes that the transaction has read which tables and schemas there are.
pub(crate) fn note_catalog(txn: &Transaction) {
    for table in [&SCHEMAS, &TABLES, &VIEWS, &SEQUENCES] {
        let keys = table_range(table.schema.table);
        txn.note_range(table.schema.table, &keys.start..&keys.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::index::Index;
    use crate::catalog::table::{Check, Validity};
    use crate::catalog::view::ViewOptions;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    }

    /// One entry of each system table, as lines of hexadecimal bytes.
    fn example() -> String {
        let column = |id, name: &str, data_type, is_nullable| Column {
            id: ColumnId(id),
            field: Field::new(name, data_type, is_nullable),
        };
        let columns = vec![column(0, "id", DataType::Int32, false), column(1, "name", DataType::Utf8View, true)];
        let shape = TableSchema::new(TableId(1025), 1, columns, vec![0]).unwrap();
        let (definition, options) = (shape.to_bytes(), to_json(&example_options()).unwrap());
        let sequence = to_json(&SequenceShape::ascending(TableId(1027), i64::MAX)).unwrap();
        let view = to_json(&ViewOptions { columns: vec!["id".to_owned()], comment: None }).unwrap();
        let entries: [(&SystemTable, Vec<Value<'_>>); 5] = [
            (&SCHEMAS, vec![Value::Text("app")]),
            (
                &TABLES,
                vec![
                    Value::Text("app"),
                    Value::Text("users"),
                    Value::Int16(0),
                    Value::Binary(&definition),
                    Value::Text(&options),
                ],
            ),
            (&STATE, vec![Value::Int16(0), Value::Int16(FORMAT_VERSION), Value::Int64(5), Value::Int64(1028)]),
            (
                &VIEWS,
                vec![
                    Value::Text("app"),
                    Value::Text("names"),
                    Value::Text("SELECT id FROM app.users"),
                    Value::Text(&view),
                ],
            ),
            (&SEQUENCES, vec![Value::Text("app"), Value::Text("numbers"), Value::Text(&sequence)]),
        ];
        let mut lines = String::new();
        for (table, values) in &entries {
            let (mut key, mut row) = (Vec::new(), Vec::new());
            table.keys.encode_row(values, &mut key).unwrap();
            table.rows.encode(values, &mut row).unwrap();
            lines.push_str(&format!("{}\n{}\n", hex(&key), hex(&row)));
        }
        lines
    }

    fn example_options() -> StoredOptions {
        let index = Index {
            name: "users_name_key".to_owned(),
            id: 1026,
            columns: vec![1],
            is_unique: true,
            nulls_are_equal: false,
            is_constraint: true,
            is_building: false,
        };
        let check = Check { name: "users_check".to_owned(), condition: "id > 0".to_owned(), validity: Validity::Valid };
        let defaults = BTreeMap::from([(1, "'nobody'".to_owned())]);
        let rules = Rules { defaults, checks: vec![check], indexes: vec![index], ..Rules::default() };
        StoredOptions { chars_max: BTreeMap::from([(1, 25)]), compaction: None, rules }
    }

    #[test]
    fn entries_are_written_as_version_2_wrote_them() {
        let fixture = include_str!("../../../data/compat/v2/catalog.hex");
        assert_eq!(example(), fixture);
        let document = include_str!("FORMAT.md");
        let state: Vec<&str> = fixture.lines().skip(4).take(2).collect();
        assert!(state.iter().all(|line| document.contains(line)), "FORMAT.md shows the state row");
        assert!(document.contains(&to_json(&example_options()).unwrap()), "FORMAT.md shows options");
    }

    /// Version 1 knew no rules, views or sequences; its tables are read as they were.
    #[test]
    fn tables_of_version_1_are_read() {
        let lines: Vec<Vec<u8>> = include_str!("../../../data/compat/v1/catalog.hex").lines().map(bytes).collect();
        let table = read_table(RowRef::new(&TABLES.rows, &lines[3]).unwrap()).unwrap();
        assert_eq!((table.schema_name.as_str(), table.name.as_str(), table.id()), ("app", "users", TableId(1025)));
        assert_eq!(table.chars_max, BTreeMap::from([(1, 25)]));
        assert!(table.rules.is_empty());
        let state = RowRef::new(&STATE.rows, &lines[5]).unwrap();
        assert!((FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&state.i16(1)));
    }

    fn bytes(line: &str) -> Vec<u8> {
        line.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    /// Otherwise a statement that took its snapshot just before a DDL commit would look for rows of a table that its
    /// snapshot does not have, or miss one that it has.
    #[tokio::test]
    async fn an_old_snapshot_sees_its_own_catalog_after_a_newer_one_was_read() {
        let options = crate::EngineOptions { background: crate::Background::Manual, ..Default::default() };
        let engine = crate::Engine::open_in_memory(options).unwrap();
        let mut session = engine.session();
        session.execute("CREATE TABLE first (id INT)").await.unwrap();
        let old = engine.db().snapshot();
        session.execute("CREATE TABLE second (id INT); DROP TABLE first").await.unwrap();
        let names = |snapshot: &Snapshot| {
            let catalog = engine.catalog_at(snapshot).unwrap();
            catalog.tables().map(|table| table.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&engine.db().snapshot()), ["second"]);
        assert_eq!(names(&old), ["first"]);
        assert_eq!(names(&engine.db().snapshot()), ["second"]);
    }

    #[test]
    fn unknown_options_are_ignored_and_missing_ones_default() {
        let options: StoredOptions = serde_json::from_str("{\"later\":1}").unwrap();
        assert!(options.chars_max.is_empty());
    }
}
