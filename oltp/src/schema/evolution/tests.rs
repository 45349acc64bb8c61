//! Proves: after any changes of shape, rows of every version read as a model says that knows nothing of forms; schemas
//! survive their bytes; what may not be is refused.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::row::arbitrary::{any_schema, any_type, any_value, borrowed, is_same};

fn column(id: u32, name: &str, data_type: DataType, is_nullable: bool) -> Column {
    Column { id: ColumnId(id), field: Field::new(name, data_type, is_nullable) }
}

/// `(id BIGINT PRIMARY KEY, a INT, b TEXT NOT NULL)`.
fn base() -> TableSchema {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "a", DataType::Int32, true),
        column(3, "b", DataType::Utf8View, false),
    ];
    TableSchema::new(super::super::TableId(5), 1, columns, vec![0]).unwrap()
}

fn encode(schema: &TableSchema, values: &[Value<'_>]) -> Vec<u8> {
    let mut row = Vec::new();
    RowCodec::new(schema).encode(values, &mut row).unwrap();
    row
}

/// The row in the shape of `schema`, by both ways to it.
fn read(schema: &TableSchema, row: &[u8]) -> Vec<OwnedValue> {
    let (codec, mut scratch) = (RowCodec::new(schema), Vec::new());
    let newest = schema.newest(row.to_vec()).unwrap();
    let values = codec.read(row, &mut scratch).unwrap().values().unwrap();
    let values: Vec<OwnedValue> = values.into_iter().map(Value::to_owned_value).collect();
    let again = RowRef::new(&codec, &newest).unwrap();
    for (value, other) in values.iter().zip(again.values().unwrap()) {
        assert!(is_same(&value.as_value(), &other), "both ways give {value:?}");
    }
    values
}

#[derive(Clone, Debug)]
enum Change {
    Add { data_type: DataType, is_nullable: bool, missing: Option<Index> },
    Drop(Index),
    Rename(Index),
    Widen(Index, Index),
    Nullable(Index, bool),
    Write,
}

fn any_change() -> impl Strategy<Value = Change> {
    let add = (any_type(), any::<bool>(), proptest::option::of(any::<Index>()));
    prop_oneof![
        3 => add.prop_map(|(data_type, is_nullable, missing)| Change::Add { data_type, is_nullable, missing }),
        2 => any::<Index>().prop_map(Change::Drop),
        1 => any::<Index>().prop_map(Change::Rename),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(at, to)| Change::Widen(at, to)),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(at, to)| Change::Nullable(at, to)),
        4 => Just(Change::Write),
    ]
}

/// Types that something may widen to.
fn targets(from: &DataType) -> Vec<DataType> {
    let mut targets = vec![
        DataType::Int32,
        DataType::Int64,
        DataType::Float64,
        DataType::Decimal128(38, 0),
        DataType::Decimal128(38, 9),
    ];
    if let DataType::Decimal128(precision, scale) = from {
        targets.extend([(1, 1), (1, 0), (5, 2)].map(|(p, s)| DataType::Decimal128((precision + p).min(38), scale + s)));
    }
    targets
}

/// What a value of one type is in a wider one, said anew.
fn widened(value: &OwnedValue, from: &DataType, to: &DataType) -> OwnedValue {
    let whole = match (value, from) {
        (OwnedValue::Null, _) => return OwnedValue::Null,
        (OwnedValue::Float32(v), _) if *to == DataType::Float64 => return OwnedValue::Float64(f64::from(*v)),
        (OwnedValue::Int16(v), _) => (i128::from(*v), 0),
        (OwnedValue::Int32(v), _) => (i128::from(*v), 0),
        (OwnedValue::Int64(v), _) => (i128::from(*v), 0),
        (OwnedValue::Decimal128(v), DataType::Decimal128(_, scale)) => (*v, *scale),
        _ => return value.clone(),
    };
    match to {
        DataType::Int32 => OwnedValue::Int32(whole.0 as i32),
        DataType::Int64 => OwnedValue::Int64(whole.0 as i64),
        DataType::Decimal128(_, scale) => {
            let digits = (whole.1..*scale).fold(whole.0, |digits, _| digits * 10);
            OwnedValue::Decimal128(digits)
        }
        _ => value.clone(),
    }
}

/// A value of a column, within the precision of its type. Values are picked by `salt`, so that a failure shrinks.
fn value_of(data_type: &DataType, salt: u64) -> OwnedValue {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&salt.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let value = any_value(ValueKind::of(data_type).unwrap()).new_tree(&mut runner).unwrap().current();
    match (value, data_type) {
        (OwnedValue::Decimal128(v), DataType::Decimal128(precision, _)) => {
            OwnedValue::Decimal128(v % 10_i128.pow(u32::from(*precision)))
        }
        (value, _) => value,
    }
}

/// A table as people see it: its rows' values by column number, and nothing of how they are stored.
struct Model {
    schema: TableSchema,
    rows: Vec<(Vec<u8>, BTreeMap<ColumnId, OwnedValue>)>,
    salt: u64,
}

impl Model {
    fn pick(&mut self, at: Index) -> usize {
        at.index(self.schema.columns.len())
    }

    fn next(&mut self) -> u64 {
        self.salt += 1;
        self.salt
    }

    fn is_key(&self, position: usize) -> bool {
        self.schema.primary_key.contains(&position)
    }

    fn write(&mut self) {
        let columns = self.schema.columns.clone();
        let values: Vec<OwnedValue> = columns
            .iter()
            .map(|column| {
                let salt = self.next();
                let is_null = column.field.is_nullable() && salt.is_multiple_of(4);
                if is_null { OwnedValue::Null } else { value_of(column.field.data_type(), salt) }
            })
            .collect();
        let bytes = encode(&self.schema, &borrowed(&values));
        self.rows.push((bytes, columns.iter().map(|column| column.id).zip(values).collect()));
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write => self.write(),
            Change::Add { data_type, is_nullable, missing } => {
                let salt = self.next();
                let value = missing.map_or(OwnedValue::Null, |_| value_of(data_type, salt));
                let field = Field::new(format!("added{salt}"), data_type.clone(), *is_nullable);
                self.schema = self.schema.with_column(field, value.as_value()).unwrap();
                let added = self.schema.columns[self.schema.visible_column_count() - 1].id;
                for (_, row) in &mut self.rows {
                    assert!(row.insert(added, value.clone()).is_none(), "a column number is used again");
                }
            }
            Change::Drop(at) => {
                let position = self.pick(*at);
                if self.is_key(position) {
                    assert!(self.schema.without_column(position).is_err());
                    return;
                }
                self.schema = self.schema.without_column(position).unwrap();
                // The model keeps what the dropped column held: nobody asks for it again, or its number was used again.
            }
            Change::Rename(at) => {
                let (position, salt) = (self.pick(*at), self.next());
                let version = self.schema.version;
                self.schema = self.schema.with_name(position, &format!("renamed{salt}")).unwrap();
                assert_eq!(self.schema.version, version);
            }
            Change::Widen(at, to) => {
                let position = self.pick(*at);
                let Column { id, field } = self.schema.columns[position].clone();
                let targets = targets(field.data_type());
                let target = &targets[to.index(targets.len())];
                let Ok(next) = self.schema.with_type(position, target) else { return };
                self.schema = next;
                for (_, row) in &mut self.rows {
                    let wide = widened(&row[&id], field.data_type(), target);
                    row.insert(id, wide);
                }
            }
            Change::Nullable(at, is_nullable) => {
                let position = self.pick(*at);
                let id = self.schema.columns[position].id;
                let has_null = self.rows.iter().any(|(_, row)| row[&id] == OwnedValue::Null);
                if self.is_key(position) || !is_nullable && has_null {
                    return;
                }
                self.schema = self.schema.with_nullable(position, *is_nullable).unwrap();
            }
        }
    }

    fn check(&self) {
        assert_eq!(TableSchema::from_bytes(&self.schema.to_bytes()).unwrap(), self.schema);
        for (bytes, expected) in &self.rows {
            let found = read(&self.schema, bytes);
            for (column, value) in self.schema.columns.iter().zip(&found) {
                let expected = &expected[&column.id];
                assert!(is_same(&value.as_value(), &expected.as_value()), "{column:?}: {value:?} is not {expected:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_every_version_read_as_the_model_says(
        schema in any_schema(), changes in vec(any_change(), 1..25), salt in any::<u32>(),
    ) {
        // Room for the versions that follow.
        let schema = TableSchema::new(schema.table, schema.version / 2, schema.columns.clone(), schema.primary_key).unwrap();
        let mut model = Model { schema, rows: Vec::new(), salt: u64::from(salt) << 16 };
        for change in &changes {
            model.apply(change);
            model.check();
        }
    }

    #[test]
    fn damaged_schemas_are_refused_or_are_others(
        changes in vec(any_change(), 1..12), at in any::<Index>(), flip in 1..=255_u8, cut in any::<Index>(),
    ) {
        let mut model = Model { schema: base(), rows: Vec::new(), salt: 0 };
        changes.iter().for_each(|change| model.apply(change));
        let bytes = model.schema.to_bytes();
        prop_assert!(TableSchema::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= flip;
        if let Ok(other) = TableSchema::from_bytes(&flipped) {
            prop_assert_ne!(&other, &model.schema);
            prop_assert_eq!(other.to_bytes(), flipped, "a schema has one encoding");
        }
    }

    #[test]
    fn damaged_old_rows_are_refused_or_read(row in vec(any::<u8>(), 0..60)) {
        let first = base();
        let schema = first.with_type(1, &DataType::Int64).unwrap().without_column(2).unwrap();
        let mut row = row;
        if let Some(version) = row.first_chunk_mut() {
            *version = first.version.to_le_bytes();
        }
        let _ = schema.newest(row.clone());
        let _ = RowCodec::new(&schema).read(&row, &mut Vec::new()).map(|row| row.values().map(|values| values.len()));
    }
}

#[test]
fn the_second_worked_example_is_what_the_encoder_writes() {
    let columns = vec![column(1, "id", DataType::Int64, false), column(2, "price", DataType::Decimal128(15, 2), true)];
    let schema = TableSchema::new(super::super::TableId(5), 1, columns, vec![0]).unwrap();
    let schema = schema.with_type(1, &DataType::Decimal128(17, 2)).unwrap();
    let schema = schema.with_column(Field::new("unit", DataType::Utf8View, true), Value::Text("kg")).unwrap();
    let (_, second) = include_str!("../FORMAT.md").rsplit_once("```hex\n").unwrap();
    assert_eq!(schema.to_bytes(), crate::row::arbitrary::example_bytes(&format!("```hex\n{second}")));
}

#[test]
fn a_column_dropped_and_added_anew_never_shows_old_values() {
    let first = base();
    let row = encode(&first, &[Value::Int64(1), Value::Int32(7), Value::Text("x")]);
    let dropped = first.without_column(1).unwrap();
    let again = dropped.with_column(Field::new("a", DataType::Int32, true), Value::Null).unwrap();
    assert_eq!(again.columns[2].id, ColumnId(4));
    assert_eq!(read(&again, &row)[2], OwnedValue::Null);
    let with_default = dropped.with_column(Field::new("a", DataType::Int32, false), Value::Int32(-1)).unwrap();
    assert_eq!(read(&with_default, &row)[2], OwnedValue::Int32(-1));
    assert_eq!((dropped.since(0), again.since(2)), (1, 3));
}

#[test]
fn not_null_is_what_writers_get_and_superseded_rows_keep_their_null() {
    let first = base();
    let row = encode(&first, &[Value::Int64(1), Value::Null, Value::Text("x")]);
    let strict = first.with_nullable(1, false).unwrap();
    assert_eq!((strict.version, strict.stored_nullability()), (1, vec![false, true, false]));
    assert_eq!(read(&strict, &row)[1], OwnedValue::Null);
    let mut out = Vec::new();
    let values = [Value::Int64(1), Value::Null, Value::Text("x")];
    let refused = RowCodec::new(&strict).encode(&values, &mut out).unwrap_err();
    assert!(refused.to_string().contains("null value in column \"a\""), "{refused}");
    // Back again the schema is what it was, to the byte.
    assert_eq!(strict.with_nullable(1, true).unwrap().to_bytes(), first.to_bytes());
    let loose = first.with_nullable(2, true).unwrap();
    assert_eq!(loose.version, 2, "rows have a bit more");
}

#[test]
fn a_hidden_key_stays_last() {
    let columns =
        vec![column(0, "a", DataType::Int32, true), column(1, super::super::ROW_ID_COLUMN, DataType::Int64, false)];
    let first = TableSchema::new(super::super::TableId(9), 1, columns, vec![1]).unwrap();
    let row = encode(&first, &[Value::Int32(3), Value::Int64(8)]);
    let wider = first.with_column(Field::new("b", DataType::Boolean, true), Value::Boolean(true)).unwrap();
    assert_eq!((wider.visible_column_count(), wider.primary_key.as_slice()), (2, &[2][..]));
    assert_eq!(read(&wider, &row), [OwnedValue::Int32(3), OwnedValue::Boolean(true), OwnedValue::Int64(8)]);
    let narrow = wider.without_column(0).unwrap();
    assert_eq!(narrow.primary_key, [1]);
    assert_eq!(read(&narrow, &row), [OwnedValue::Boolean(true), OwnedValue::Int64(8)]);
}

#[test]
fn what_may_not_be_is_refused() {
    let table = base();
    let cases = [
        (table.without_column(0), "column id is part of the primary key and cannot be dropped"),
        (table.with_type(0, &DataType::Decimal128(38, 0)), "column id is part of the primary key"),
        (table.with_nullable(0, true), "column id is part of the primary key and cannot be nullable"),
        (table.with_type(1, &DataType::Int16), "column a cannot become Int16: Int32 is not narrower"),
        (table.with_name(1, "b"), "column \"b\" is declared twice"),
        (table.with_column(Field::new("b", DataType::Int32, true), Value::Null), "column \"b\" is declared twice"),
        (table.with_column(Field::new("c", DataType::Int32, true), Value::Int64(1)), "holds Int32, not Int64"),
        (table.with_column(Field::new("c", DataType::UInt8, true), Value::Null), "which tables cannot store"),
    ];
    for (changed, text) in cases {
        let error = changed.unwrap_err();
        assert!(matches!(&error, Error::Invalid(what) if what.contains(text)), "{error}");
    }
    let last = TableSchema::new(table.table, u16::MAX, table.columns.clone(), vec![0]).unwrap();
    let error = last.without_column(1).unwrap_err();
    assert!(error.to_string().contains("altered too often"), "{error}");
}

#[test]
fn rows_of_unknown_versions_are_refused() {
    let old = base();
    let schema = old.with_column(Field::new("c", DataType::Int32, true), Value::Null).unwrap();
    for version in [0_u16, 3, 700] {
        let is_later = version > schema.version;
        let mut row = encode(&old, &[Value::Int64(1), Value::Null, Value::Text("x")]);
        row[..2].copy_from_slice(&version.to_le_bytes());
        let error = RowCodec::new(&schema).read(&row, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("the schema version is not one that the table had"), "{error}");
        let error = schema.newest(row).unwrap_err();
        assert_eq!(matches!(error, Error::Reshaped { .. }), is_later, "{error}");
    }
}
