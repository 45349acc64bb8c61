//! Open data (P8): after `CALL strata.compact` the files listed in `strata.segments` are the table. A stranger reads
//! them here: DataFusion's own Parquet source, which knows nothing of Strata. `benches/open_files.py` does the same with
//! pyarrow and DuckDB.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use strata_sql::{Background, Engine, EngineOptions, Session};

const TYPES: &str = "id BIGINT PRIMARY KEY, b BOOLEAN, i2 SMALLINT, i4 INT, f4 REAL, f8 DOUBLE PRECISION, \
                     n NUMERIC(20, 4), small NUMERIC(9, 2), t TEXT, vc VARCHAR(20), y BYTEA, d DATE, tm TIME, \
                     ts TIMESTAMP, tz TIMESTAMPTZ, u UUID";

/// An empty real directory: a stranger does not read through our environment.
#[expect(clippy::disallowed_methods, reason = "a test cleans up after the run before")]
fn directory() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("open-files");
    drop(std::fs::remove_dir_all(&path));
    path
}

async fn texts(session: &mut Session, sql: &str) -> Vec<String> {
    let batches = session.query(sql).await.unwrap().collect().await.unwrap();
    let columns = batches.iter().map(|batch| batch.column(0).as_string_view().clone());
    columns.flat_map(|column| column.iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()).collect()
}

async fn count(context: &SessionContext, sql: &str) -> i64 {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// Rows of every type, of which some were written again and some deleted, some of them while fresh and some after they
/// had been converted; then compacted.
async fn changed_and_compacted(session: &mut Session) {
    let row = "SELECT v, v % 3 = 0, CAST(v % 1000 AS SMALLINT), CAST(v AS INT), CAST(v AS REAL) / 7, CAST(v AS DOUBLE) / 3, \
               CAST(v AS NUMERIC(20, 4)) / 3, v % 1000, CASE WHEN v % 5 <> 0 THEN 'text ' || v END, \
               CASE WHEN v % 7 <> 0 THEN 'vc' || v % 10 END, CASE WHEN v % 2 = 0 THEN CAST('bytes' AS BYTEA) END, \
               DATE '1969-12-25' + CAST(v % 900 AS INT), TIME '12:34:56.789', TIMESTAMP '1969-12-31 23:59:59.5', \
               TIMESTAMPTZ '2024-02-29 12:00:00+02:00', '550e8400-e29b-41d4-a716-446655440000' FROM";
    for statement in [
        format!("CREATE TABLE t ({TYPES})"),
        format!("INSERT INTO t {row} generate_series(1, 3000) AS s(v)"),
        "INSERT INTO t (id, f4, f8, t) VALUES (-1, 'NaN', '-Infinity', ''), (-2, -0.0, -0.0, '𝛼 β')".to_owned(),
        "UPDATE t SET t = 'again' WHERE id % 5 = 0".to_owned(),
        "CALL strata.convert('t')".to_owned(),
        "UPDATE t SET n = n + 1, d = d + 1 WHERE id % 11 = 0".to_owned(),
        "DELETE FROM t WHERE id % 13 = 0".to_owned(),
        format!("INSERT INTO t {row} generate_series(5000, 6000) AS s(v)"),
        "CALL strata.compact('t')".to_owned(),
    ] {
        session.execute(&statement).await.unwrap();
    }
}

#[tokio::test]
async fn a_compacted_table_is_its_files() {
    let options = EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() };
    let engine = Engine::open(directory(), options).unwrap();
    let mut session = engine.session();
    changed_and_compacted(&mut session).await;

    // All of it is in segments, and nothing in them is deleted.
    assert_eq!(texts(&mut session, "SELECT path FROM strata.runs WHERE table_name = 't'").await, [""; 0]);
    assert_eq!(texts(&mut session, "SELECT segment_path FROM strata.deletion_vectors").await, [""; 0]);
    let files = texts(&mut session, "SELECT path FROM strata.segments WHERE table_name = 't'").await;

    let context = engine.session_context();
    let written = context.read_parquet(files, ParquetReadOptions::default()).await.unwrap();
    let schema = MemorySchemaProvider::new();
    schema.register_table("files".to_owned(), written.into_view()).unwrap();
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("open", Arc::new(schema)).unwrap();
    context.register_catalog("plain", Arc::new(catalog));
    assert_eq!(count(&context, "SELECT count(*) FROM plain.open.files").await, 3002 + 1001 - 3000 / 13);
    let columns = "id, b, i2, i4, f4, f8, n, small, t, vc, y, d, tm, ts, tz, u";
    for (left, right) in [("t", "plain.open.files"), ("plain.open.files", "t")] {
        let difference =
            format!("SELECT count(*) FROM (SELECT {columns} FROM {left} EXCEPT ALL SELECT {columns} FROM {right})");
        assert_eq!(count(&context, &difference).await, 0, "rows of {left} that are not in {right}");
    }
}
