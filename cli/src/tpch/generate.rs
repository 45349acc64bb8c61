//! TPC-H rows as Arrow batches, made in process by the `tpchgen` crate.
//!
//! [`Table::batches`] is the one door: a table, a part of it, and the rows per batch. Rows leave in primary-key order.
//!
//! Always true: the same table, scale and part give the same rows on every machine, because the generator is seeded
//! by the specification; the parts of a table, in order, are the table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringViewBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tpchgen::decimal::TPCHDecimal;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    PartSuppGeneratorIterator, RegionGenerator, SupplierGenerator,
};

/// One of the eight tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// 5 rows at every scale.
    Region,
    /// 25 rows at every scale.
    Nation,
    /// 10,000 rows per unit of scale.
    Supplier,
    /// 200,000 rows per unit of scale.
    Part,
    /// Four rows per part.
    PartSupp,
    /// 150,000 rows per unit of scale.
    Customer,
    /// Ten rows per customer.
    Orders,
    /// One to seven rows per order.
    LineItem,
}

/// An iterator over the batches of one part of a table.
pub type Batches = Box<dyn Iterator<Item = RecordBatch> + Send>;

impl Table {
    /// All tables, small ones first: the order of loading.
    pub const ALL: [Table; 8] = [
        Table::Region,
        Table::Nation,
        Table::Supplier,
        Table::Part,
        Table::PartSupp,
        Table::Customer,
        Table::Orders,
        Table::LineItem,
    ];

    /// The name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Region => "region",
            Table::Nation => "nation",
            Table::Supplier => "supplier",
            Table::Part => "part",
            Table::PartSupp => "partsupp",
            Table::Customer => "customer",
            Table::Orders => "orders",
            Table::LineItem => "lineitem",
        }
    }

    /// Rows of the whole table: exact, except for lineitem, whose exact number only generating it tells.
    #[must_use]
    pub fn rows_estimate(self, scale: f64) -> u64 {
        let rows = |base: f64| (base * scale) as u64;
        match self {
            Table::Region => 5,
            Table::Nation => 25,
            Table::Supplier => rows(10_000.0),
            Table::Part => rows(200_000.0),
            Table::PartSupp => 4 * rows(200_000.0),
            Table::Customer => rows(150_000.0),
            Table::Orders => 10 * rows(150_000.0),
            Table::LineItem => rows(6_001_215.0),
        }
    }

    /// Whether the generator can make the table in parts. Region and nation come whole.
    #[must_use]
    pub fn divides(self) -> bool {
        !matches!(self, Table::Region | Table::Nation)
    }

    /// The rows of part `part` of `parts` (from 1), at most `batch_rows` per batch.
    ///
    /// # Panics
    /// If `part` is not in `1..=parts`, or parts are asked of a table that does not divide.
    #[must_use]
    pub fn batches(self, scale: f64, part: i32, parts: i32, batch_rows: usize) -> Batches {
        assert!((1..=parts).contains(&part) && (parts == 1 || self.divides()));
        match self {
            Table::Region => chunk(RegionGenerator::new(scale, part, parts).iter(), batch_rows, region),
            Table::Nation => chunk(NationGenerator::new(scale, part, parts).iter(), batch_rows, nation),
            Table::Supplier => chunk(SupplierGenerator::new(scale, part, parts).iter(), batch_rows, supplier),
            Table::Part => chunk(PartGenerator::new(scale, part, parts).iter(), batch_rows, self::part),
            Table::PartSupp => chunk(PartSuppGenerator::new(scale, part, parts).iter(), batch_rows, partsupp),
            Table::Customer => chunk(CustomerGenerator::new(scale, part, parts).iter(), batch_rows, customer),
            Table::Orders => chunk(OrderGenerator::new(scale, part, parts).iter(), batch_rows, orders),
            Table::LineItem => chunk(LineItemGenerator::new(scale, part, parts).iter(), batch_rows, lineitem),
        }
    }
}

/// Whether primary keys are unique at this scale. With few suppliers the specification's rule for the four suppliers of a
/// part may name one twice: with S of them, when 2 or 3 times (S / 4 + a number up to 19) is a multiple of S.
#[must_use]
pub fn has_unique_keys(scale: f64) -> bool {
    let parts = Table::Part.rows_estimate(scale).cast_signed();
    // With 20 parts per supplier the number above ends at 19, so from S = 229 on neither product reaches S again.
    const PARTS_MAX: i64 = 20 * 229;
    (1..=parts.min(PARTS_MAX)).all(|part| {
        let supplier = |number| PartSuppGeneratorIterator::select_part_supplier(part, number, scale);
        let suppliers = [supplier(0), supplier(1), supplier(2), supplier(3)];
        (1..4).all(|index| !suppliers[..index].contains(&suppliers[index]))
    })
}

/// Builds the 300 MB of text that all tables draw their comments from, which the generator otherwise does before its
/// first row.
pub fn warm_up() {
    drop(Table::Region.batches(0.001, 1, 1, 1).next());
}

/// Gathers generated rows into batches. `build` turns rows into columns with their names.
fn chunk<R, I>(rows: I, batch_rows: usize, build: fn(&[R]) -> Columns) -> Batches
where
    R: 'static,
    I: Iterator<Item = R> + Send + 'static,
{
    let mut rows = rows.fuse();
    let mut schema: Option<SchemaRef> = None;
    Box::new(std::iter::from_fn(move || {
        let taken: Vec<R> = rows.by_ref().take(batch_rows).collect();
        if taken.is_empty() {
            return None;
        }
        let (fields, arrays): (Vec<_>, Vec<_>) =
            build(&taken).into_iter().map(|(name, array)| ((name, array.data_type().clone()), array)).unzip();
        let schema = schema.get_or_insert_with(|| {
            Arc::new(Schema::new(
                fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, false)).collect::<Vec<_>>(),
            ))
        });
        let batch = RecordBatch::try_new(Arc::clone(schema), arrays);
        Some(batch.expect("columns of one row set have equal lengths and fixed types"))
    }))
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn int64<R>(rows: &[R], get: impl Fn(&R) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(get)))
}

fn int32<R>(rows: &[R], get: impl Fn(&R) -> i32) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(rows.iter().map(get)))
}

/// Days since 1970-01-01.
fn date<R>(rows: &[R], get: impl Fn(&R) -> i32) -> ArrayRef {
    Arc::new(Date32Array::from_iter_values(rows.iter().map(get)))
}

fn decimal<R>(rows: &[R], get: impl Fn(&R) -> TPCHDecimal) -> ArrayRef {
    let array = Decimal128Array::from_iter_values(rows.iter().map(|row| i128::from(get(row).into_inner())));
    Arc::new(array.with_data_type(DataType::Decimal128(15, 2)))
}

/// Text by way of `Display`, because the generator writes most of its texts without holding them as strings.
fn text<R>(rows: &[R], write: impl Fn(&R, &mut String)) -> ArrayRef {
    let mut builder = StringViewBuilder::with_capacity(rows.len());
    let mut buffer = String::new();
    for row in rows {
        buffer.clear();
        write(row, &mut buffer);
        builder.append_value(&buffer);
    }
    Arc::new(builder.finish())
}

/// `[column name: kind(row field)]` lists, so that each table below reads as its schema.
macro_rules! columns {
    ($rows:ident; $($column:ident: $kind:ident),* $(,)?) => {
        vec![$((stringify!($column), columns!(@$kind $rows $column))),*]
    };
    (@text $rows:ident $column:ident) => {
        text($rows, |row, out| {
            use std::fmt::Write;
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", row.$column);
        })
    };
    (@date $rows:ident $column:ident) => { date($rows, |row| row.$column.to_unix_epoch()) };
    (@quantity $rows:ident $column:ident) => { decimal($rows, |row| TPCHDecimal(row.$column * 100)) };
    (@$kind:ident $rows:ident $column:ident) => { $kind($rows, |row| row.$column) };
}

fn region(rows: &[tpchgen::generators::Region<'static>]) -> Columns {
    columns![rows; r_regionkey: int64, r_name: text, r_comment: text]
}

fn nation(rows: &[tpchgen::generators::Nation<'static>]) -> Columns {
    columns![rows; n_nationkey: int64, n_name: text, n_regionkey: int64, n_comment: text]
}

fn part(rows: &[tpchgen::generators::Part<'static>]) -> Columns {
    columns![rows;
        p_partkey: int64, p_name: text, p_mfgr: text, p_brand: text, p_type: text, p_size: int32, p_container: text,
        p_retailprice: decimal, p_comment: text,
    ]
}

fn supplier(rows: &[tpchgen::generators::Supplier]) -> Columns {
    columns![rows;
        s_suppkey: int64, s_name: text, s_address: text, s_nationkey: int64, s_phone: text, s_acctbal: decimal,
        s_comment: text,
    ]
}

fn partsupp(rows: &[tpchgen::generators::PartSupp<'static>]) -> Columns {
    columns![rows;
        ps_partkey: int64, ps_suppkey: int64, ps_availqty: int32, ps_supplycost: decimal, ps_comment: text,
    ]
}

fn customer(rows: &[tpchgen::generators::Customer<'static>]) -> Columns {
    columns![rows;
        c_custkey: int64, c_name: text, c_address: text, c_nationkey: int64, c_phone: text, c_acctbal: decimal,
        c_mktsegment: text, c_comment: text,
    ]
}

fn orders(rows: &[tpchgen::generators::Order<'static>]) -> Columns {
    columns![rows;
        o_orderkey: int64, o_custkey: int64, o_orderstatus: text, o_totalprice: decimal, o_orderdate: date,
        o_orderpriority: text, o_clerk: text, o_shippriority: int32, o_comment: text,
    ]
}

fn lineitem(rows: &[tpchgen::generators::LineItem<'static>]) -> Columns {
    columns![rows;
        l_orderkey: int64, l_partkey: int64, l_suppkey: int64, l_linenumber: int32, l_quantity: quantity,
        l_extendedprice: decimal, l_discount: decimal, l_tax: decimal, l_returnflag: text, l_linestatus: text,
        l_shipdate: date, l_commitdate: date, l_receiptdate: date, l_shipinstruct: text, l_shipmode: text,
        l_comment: text,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_scales_with_double_keys_are_known() {
        for (scale, unique) in [(0.002, false), (0.01, true), (0.012, false), (0.02, true), (0.1, true), (1.0, true)] {
            assert_eq!(has_unique_keys(scale), unique, "{scale}");
        }
    }

    /// Parts in order are the table: the loader of the mixed placement depends on it.
    #[test]
    fn parts_make_the_table() {
        for table in Table::ALL {
            let whole: Vec<_> = table.batches(0.001, 1, 1, 100_000).collect();
            let schema = whole[0].schema();
            let parts = if table.divides() { 3 } else { 1 };
            let pieces: Vec<_> = (1..=parts).flat_map(|part| table.batches(0.001, part, parts, 7)).collect();
            assert!(pieces.iter().all(|batch| batch.num_rows() <= 7));
            let glued = arrow::compute::concat_batches(&schema, &pieces).unwrap();
            let whole = arrow::compute::concat_batches(&schema, &whole).unwrap();
            assert_eq!(glued, whole, "{}", table.name());
            if table != Table::LineItem {
                assert_eq!(whole.num_rows() as u64, table.rows_estimate(0.001), "{}", table.name());
            }
        }
    }
}
