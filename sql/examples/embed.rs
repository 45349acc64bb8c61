//! Strata inside a Rust program: SQL sessions to write, a DataFusion `SessionContext` to read, side by side with tables
//! of other origin.
//!
//! `cargo run --example embed -p strata-sql`

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::prelude::col;
use strata_sql::{Engine, EngineOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A folder instead makes it durable: Engine::open("my.db", EngineOptions::default()).
    let engine = Engine::open_in_memory(EngineOptions::default())?;

    // Writing goes through a session: transactions, checks, durability.
    let mut session = engine.session();
    session
        .execute(
            "CREATE TABLE sales (id BIGINT PRIMARY KEY, city TEXT, amount DECIMAL(12, 2));
             BEGIN;
             INSERT INTO sales VALUES (1, 'Oslo', 12.50), (2, 'Rome', 99.90);
             INSERT INTO sales {\"id\": 3, \"city\": \"Oslo\", \"amount\": 7.25};
             COMMIT",
        )
        .await?;

    // Many rows at once: Arrow batches, through the same log.
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(100..1100));
    let cities: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|_| "Bergen")));
    let mut writer = engine.bulk_writer("sales", 500)?;
    writer.write(&RecordBatch::try_from_iter([("id", ids), ("city", cities)])?)?;
    println!("loaded {} rows", writer.finish()?);

    // Reading through DataFusion: data frames …
    let context = engine.session_context();
    let totals = context.table("sales").await?.aggregate(vec![col("city")], vec![sum(col("amount"))])?;
    println!("{}", pretty_format_batches(&totals.sort_by(vec![col("city")])?.collect().await?)?);

    // … and SQL that joins a table of another origin. All Strata tables of a plan are read at one snapshot.
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(["Oslo", "Rome"]));
    let countries: ArrayRef = Arc::new(StringArray::from_iter_values(["Norway", "Italy"]));
    let batch = RecordBatch::try_from_iter([("city", names), ("country", countries)])?;
    let other = Arc::new(MemoryCatalogProvider::new());
    other.register_schema("public", Arc::new(MemorySchemaProvider::new()))?;
    context.register_catalog("other", other);
    context.register_table("other.public.cities", Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))?;
    let joined = context
        .sql("SELECT country, count(*) AS sales FROM sales JOIN other.public.cities USING (city) GROUP BY 1 ORDER BY 1")
        .await?;
    println!("{}", pretty_format_batches(&joined.collect().await?)?);

    engine.close()?;
    Ok(())
}
