//! COPY as a library sees it: every type through every format, bytes of a caller instead of a file, the folders that a
//! server permits, files of many pieces, and disks that fail.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::sim::{Repeat, SimEnv};
use strata_sql::{Background, Engine, EngineOptions, FileAccess, Session, parse_script, write_text};

fn options() -> EngineOptions {
    EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() }
}

fn on(env: Arc<dyn Env>) -> Engine {
    Engine::open_with_env(env, Path::new("db"), options()).unwrap()
}

async fn number(session: &mut Session, sql: &str) -> i64 {
    let batches = session.query(sql).await.unwrap().collect().await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

/// All values of a table as text, NULL apart from any text.
async fn dump(session: &mut Session, table: &str) -> Vec<Vec<Option<String>>> {
    let batches = session.query(&format!("SELECT * FROM {table} ORDER BY id")).await.unwrap().collect().await.unwrap();
    let text = |array: &dyn Array, row: usize| {
        let mut text = String::new();
        write_text(array, row, &mut text).unwrap();
        (!array.is_null(row)).then_some(text)
    };
    let rows = batches.iter().flat_map(|batch| {
        (0..batch.num_rows()).map(move |row| batch.columns().iter().map(|array| text(array.as_ref(), row)).collect())
    });
    rows.collect()
}

const EVERY_TYPE: &str =
    "id INT PRIMARY KEY, b BOOLEAN, s SMALLINT, l BIGINT, r REAL, d DOUBLE PRECISION, n DECIMAL(38,9),
    t TEXT, v VARCHAR(9), y BYTEA, da DATE, ti TIME, ts TIMESTAMP, tz TIMESTAMPTZ, u UUID, j JSON";

const EVERY_VALUE: &str = r#"INSERT INTO every VALUES
    (1, true, -32768, 9223372036854775807, 1e-37, 0.1, 12345678901234567890123456789.123456789, E'a,"b"\n\\N\t', 'naïve…',
     '\x00ff0a', '0044-03-15 BC', '23:59:59.999999', '1969-12-31 23:59:59.999999', '2024-02-29 12:00:00+02',
     '550e8400-e29b-41d4-a716-446655440000', '{"a": [1, null], "b": "x,y"}'),
    (2, false, 0, -9223372036854775808, 'NaN', '-Infinity', -0.000000001, '', '', '', '9999-12-31', '00:00',
     '0001-01-01 00:00:00', '1970-01-01 00:00:00+00', '00000000-0000-0000-0000-000000000000', '[]'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#;

#[tokio::test]
async fn every_type_comes_back_from_every_format() {
    let engine = on(Arc::new(MemEnv::new()));
    let mut session = engine.session();
    session.execute(&format!("CREATE TABLE every ({EVERY_TYPE}); CREATE TABLE again ({EVERY_TYPE})")).await.unwrap();
    session.execute(EVERY_VALUE).await.unwrap();
    let expected = dump(&mut session, "every").await;
    assert_eq!(expected.len(), 3);
    for (name, how) in [
        ("f.csv", ""),
        ("g.csv", "(HEADER, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL 'nil', FORCE_QUOTE *)"),
        ("f.txt", ""),
        ("f.tsv", "(FORMAT text, DELIMITER '|', NULL '')"),
        ("f.json", ""),
        ("f.parquet", ""),
        ("g.parquet", "(COMPRESSION lz4)"),
        ("f.arrow", ""),
    ] {
        let back = how.replace(", FORCE_QUOTE *", "").replace("(COMPRESSION lz4)", "");
        session.execute(&format!("COPY every TO 'db/{name}' {how}")).await.unwrap();
        session.execute(&format!("TRUNCATE again; COPY again FROM 'db/{name}' {back}")).await.unwrap();
        let mut found = dump(&mut session, "again").await;
        if name == "f.tsv" {
            // There an empty text reads as NULL: that is what the statement asked for.
            for row in [7, 8] {
                assert_eq!(found[1][row].take(), None);
                found[1][row] = expected[1][row].clone();
            }
        }
        assert_eq!(found, expected, "{name} {how}");
    }
}

#[tokio::test]
async fn a_client_gives_and_takes_bytes() {
    let engine = Engine::open_in_memory(options()).unwrap();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)").await.unwrap();
    let statements =
        parse_script("COPY t FROM STDIN (FORMAT csv, HEADER); COPY t TO STDOUT; COPY t TO STDOUT (FORMAT arrow)")
            .unwrap();
    let input = Cursor::new(b"id,v\r\n1,one\r\n2,\r\n".to_vec());
    assert_eq!(session.copy_in(&statements[0], input).await.unwrap(), 2);
    let mut output = Vec::new();
    assert_eq!(session.copy_out(&statements[1], &mut output).await.unwrap(), 2);
    assert_eq!(output, b"1\tone\n2\t\\N\n");
    let mut stream = Vec::new();
    session.copy_out(&statements[2], &mut stream).await.unwrap();
    session.execute("TRUNCATE t").await.unwrap();
    let back = parse_script("COPY t FROM STDIN (FORMAT arrow)").unwrap();
    assert_eq!(session.copy_in(&back[0], Cursor::new(stream)).await.unwrap(), 2);
    let error = session.copy_in(&statements[0], Cursor::new(b"id,v\r\n3,c\r\n1,x\r\n".to_vec())).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.context()), ("23505", Some("COPY t, line 3")));
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 2);
    assert_eq!(session.copy_in(&statements[1], Cursor::new(Vec::new())).await.unwrap_err().sqlstate(), "42601");
    let parquet = parse_script("COPY t FROM STDIN (FORMAT parquet)").unwrap();
    assert_eq!(session.copy_in(&parquet[0], Cursor::new(Vec::new())).await.unwrap_err().sqlstate(), "0A000");
}

/// Several pieces of 8192 rows, with the failure in the last of them.
#[tokio::test]
async fn long_files_are_read_in_pieces_and_loaded_whole_or_not_at_all() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let engine = on(env);
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT); CREATE INDEX ON t (v)").await.unwrap();
    let rows = |last: &str| {
        let mut text: String = (0..20_000).map(|id| format!("{id},\"line{id}\nnext\"\n")).collect();
        text.push_str(last);
        Cursor::new(text.into_bytes())
    };
    let copy = parse_script("COPY t FROM STDIN (FORMAT csv)").unwrap();
    let error = session.copy_in(&copy[0], rows("20000,x\n17,again\n")).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.context()), ("23505", Some("COPY t, line 40002")));
    let error = session.copy_in(&copy[0], rows("x,y\n")).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.context()), ("22P02", Some("COPY t, line 40001, column id: \"x\"")));
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 0);
    assert_eq!(session.copy_in(&copy[0], rows("")).await.unwrap(), 20_000);
    for (name, found) in [("big.csv", 20_000), ("big.json", 20_000), ("big.parquet", 20_000), ("big.arrow", 20_000)] {
        session.execute(&format!("COPY t TO 'db/{name}'; TRUNCATE t; COPY t FROM 'db/{name}'")).await.unwrap();
        assert_eq!(
            number(&mut session, "SELECT count(*) FROM t WHERE v = 'line' || id || chr(10) || 'next'").await,
            found
        );
    }
}

#[tokio::test]
async fn a_server_says_which_folders_may_be_touched() {
    let dir = tempfile_dir("folders");
    #[allow(clippy::disallowed_methods)]
    std::fs::create_dir_all(dir.join("open/below")).unwrap();
    #[allow(clippy::disallowed_methods)]
    std::fs::create_dir_all(dir.join("closed")).unwrap();
    let allowed = FileAccess::Within(vec![dir.join("open")]);
    let engine = Engine::open_in_memory(EngineOptions { copy_files: allowed, ..options() }).unwrap();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT)").await.unwrap();
    std::os::unix::fs::symlink(dir.join("closed"), dir.join("open/link")).unwrap();
    for (file, is_allowed) in [
        ("open/t.csv", true),
        ("open/below/t.csv", true),
        ("open/../closed/t.csv", false),
        ("closed/t.csv", false),
        ("open/link/t.csv", false),
    ] {
        let file = dir.join(file);
        for sql in [format!("COPY t TO '{}'", file.display()), format!("COPY t FROM '{}'", file.display())] {
            let result = session.execute(&sql).await;
            assert_eq!(result.is_ok(), is_allowed, "{sql}");
            assert!(result.err().is_none_or(|error| error.sqlstate() == "42501"), "{sql}");
        }
    }
    // A link to a file leads out as well; COPY … TO would replace it, but says no all the same.
    std::os::unix::fs::symlink(dir.join("closed/t.csv"), dir.join("open/leak.csv")).unwrap();
    let error = session.execute(&format!("COPY t FROM '{}'", dir.join("open/leak.csv").display())).await.unwrap_err();
    assert_eq!(error.sqlstate(), "42501");
    let none = EngineOptions { copy_files: FileAccess::Within(Vec::new()), ..options() };
    let mut session = Engine::open_in_memory(none).unwrap().session();
    let error = session.execute(&format!("COPY (SELECT 1) TO '{}'", dir.join("open/x").display())).await.unwrap_err();
    assert_eq!(error.sqlstate(), "42501");
    #[allow(clippy::disallowed_methods)]
    std::fs::remove_dir_all(dir).unwrap();
}

fn tempfile_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("strata-copying-{name}-{}", std::process::id()));
    #[allow(clippy::disallowed_methods)]
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

/// Whatever call fails, the file of before is there whole, or the new one is; nothing else is left in the folder.
#[tokio::test]
async fn a_disk_that_fails_leaves_the_old_file_or_the_new_one() {
    let mut failures = 0;
    for after in 0..12 {
        let env = Arc::new(SimEnv::new(7));
        let engine = on(env.clone());
        let mut session = engine.session();
        session
            .execute("CREATE TABLE t (id INT); INSERT INTO t VALUES (1), (2); COPY (SELECT 1) TO 'db/out.csv'")
            .await
            .unwrap();
        env.fail_op(env.ops() + after, std::io::ErrorKind::Other, Repeat::Once);
        let result = session.execute("COPY t TO 'db/out.csv'").await;
        env.clear_faults();
        failures += usize::from(result.is_err());
        let mut names = env.list(Path::new("db")).unwrap_or_default();
        names.retain(|name| name.contains("out"));
        assert_eq!(names, ["out.csv"], "after {after}");
        session.execute("CREATE TABLE found (id INT)").await.unwrap();
        session.execute("COPY found FROM 'db/out.csv'").await.unwrap();
        let count = number(&mut session, "SELECT count(*) FROM found").await;
        assert!(count == 2 || count == 1 && result.is_err(), "after {after}: {count} rows, {result:?}");
    }
    assert!(failures >= 4, "open, write, sync and rename were tried: {failures}");
}

/// What PostgreSQL 15 wrote for the rows below, byte by byte.
const FROM_POSTGRESQL: [(&str, &[u8]); 4] = [
    (
        "(FORMAT csv, HEADER)",
        b"id,v\n1,\"a,b\"\n2,\"quo\"\"te\"\n3,\"two\nlines\"\n4,\"carriage\rreturn\"\n5,\"\"\n6,\n7,\\N\n8,\\.\n9,tab\there\n\
          10,  blanks  \n11,back\\slash\n12,\x1b\x0b\x08\x0c\n13,NULL\n14,\"\"\"\"\"\"\n",
    ),
    (
        "",
        b"1\ta,b\n2\tquo\"te\n3\ttwo\\nlines\n4\tcarriage\\rreturn\n5\t\n6\t\\N\n7\t\\\\N\n8\t\\\\.\n9\ttab\\there\n\
          10\t  blanks  \n11\tback\\\\slash\n12\t\x1b\\v\\b\\f\n13\tNULL\n14\t\"\"\n",
    ),
    (
        "(FORMAT csv, DELIMITER ';', NULL 'NULL', QUOTE '''', ESCAPE '\\', FORCE_QUOTE (v))",
        b"1;'a,b'\n2;'quo\"te'\n3;'two\nlines'\n4;'carriage\rreturn'\n5;''\n6;NULL\n7;'\\\\N'\n8;'\\\\.'\n9;'tab\there'\n\
          10;'  blanks  '\n11;'back\\\\slash'\n12;'\x1b\x0b\x08\x0c'\n13;'NULL'\n14;'\"\"'\n",
    ),
    ("one", b"\"\"\n\n\"\\.\"\n"),
];

#[tokio::test]
async fn bytes_are_those_of_postgresql() {
    let engine = Engine::open_in_memory(options()).unwrap();
    let mut session = engine.session();
    session
        .execute(
            "CREATE TABLE odd (id INT PRIMARY KEY, v TEXT); CREATE TABLE again (id INT PRIMARY KEY, v TEXT);
             INSERT INTO odd VALUES (1, 'a,b'), (2, 'quo\"te'), (3, E'two\\nlines'), (4, E'carriage\\rreturn'), (5, ''), (6, NULL),
             (7, '\\N'), (8, '\\.'), (9, E'tab\\there'), (10, '  blanks  '), (11, 'back\\slash'),
             (12, chr(27) || chr(11) || chr(8) || chr(12)), (13, 'NULL'), (14, '\"\"')",
        )
        .await
        .unwrap();
    let expected = dump(&mut session, "odd").await;
    for (how, bytes) in FROM_POSTGRESQL {
        let out = match how {
            "one" => "COPY (SELECT v FROM odd WHERE id IN (5, 6, 8) ORDER BY id) TO STDOUT (FORMAT csv)".to_owned(),
            _ => format!("COPY (SELECT * FROM odd ORDER BY id) TO STDOUT {how}"),
        };
        let mut written = Vec::new();
        session.copy_out(&parse_script(&out).unwrap()[0], &mut written).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(bytes), "{how}");
        if how != "one" {
            session.execute("TRUNCATE again").await.unwrap();
            let back =
                parse_script(&format!("COPY again FROM STDIN {}", how.replace(", FORCE_QUOTE (v)", ""))).unwrap();
            session.copy_in(&back[0], Cursor::new(bytes.to_vec())).await.unwrap();
            assert_eq!(dump(&mut session, "again").await, expected, "{how}");
        }
    }
}
