//! Prepared and small statements by their short ways and by the planner: the same rows, the same columns, the same errors.
//!
//! Two tables of one shape get the same random statements: one by the short way (prepared with parameters, or written out),
//! one by the planner (`SET enable_point_statements = off`). Rows lie in memtables, runs and segments.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use strata_sql::{Background, Engine, EngineOptions, Session, StatementResult};

const SHAPE: &str =
    "(id INT, part TEXT, n BIGINT DEFAULT 7, small SMALLINT, price DECIMAL(9,2), name VARCHAR(5), day DATE,
    flag BOOLEAN, ratio DOUBLE PRECISION, tag UUID, doc JSON, seen TIMESTAMP, CHECK (n <> 13), UNIQUE (n, name),
    PRIMARY KEY (part, id))";

struct Random(TestRng);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        (self.0.next_u64() % end as u64) as usize
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

/// A value, as text of SQL and as a parameter.
type Value = (String, ScalarValue);

fn text(text: &str) -> Value {
    (format!("'{text}'"), ScalarValue::Utf8(Some(text.to_owned())))
}

fn value(random: &mut Random, column: &str) -> Value {
    let null = ("NULL".to_owned(), ScalarValue::Null);
    let int = |value: i32| (value.to_string(), ScalarValue::Int32(Some(value)));
    let wide = |value: i64| (format!("CAST('{value}' AS BIGINT)"), ScalarValue::Int64(Some(value)));
    let odd = [null.clone(), text("abc"), int(70_000), wide(1 << 40), ("TRUE".to_owned(), ScalarValue::from(true))];
    if random.below(12) == 0 {
        return random.of(&odd);
    }
    match column {
        "id" => random.of(&[int(1), int(2), int(3), int(4), wide(2), text("3")]),
        "part" => random.of(&[text("a"), text("b"), text(""), text("é€😀")]),
        "n" => random.of(&[int(5), int(13), wide(5_000_000_000), int(-1), null, text("8")]),
        "small" => random.of(&[int(5), int(32_767), int(32_768), null]),
        "price" => random.of(&[int(12), text("1.239"), wide(7), text("99999999.999")]),
        "name" => random.of(&[text("short"), text("too long"), text(""), null, int(5)]),
        "day" => random.of(&[text("2024-02-29"), text("2023-02-29"), text("0001-01-01"), null]),
        "flag" => random.of(&[("TRUE".to_owned(), ScalarValue::from(true)), text("f"), null, text("maybe")]),
        "ratio" => random.of(&[
            int(2),
            text("1e-3"),
            text("NaN"),
            ("CAST('0.1' AS DOUBLE PRECISION)".to_owned(), ScalarValue::Float64(Some(0.1))),
        ]),
        "tag" => random.of(&[text("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), text("6ba7b810"), null]),
        "doc" => random.of(&[text("{\"a\": [1]}"), text("{"), text("7"), null]),
        _ => random.of(&[text("2024-02-29 12:30:00.5"), text("1969-12-31"), text("x"), null]),
    }
}

const COLUMNS: [&str; 12] = ["id", "part", "n", "small", "price", "name", "day", "flag", "ratio", "tag", "doc", "seen"];

/// A statement about the table `@`, with its values written out or as parameters.
#[derive(Default)]
struct Written {
    sql: String,
    prepared: String,
    values: Vec<ScalarValue>,
}

impl Written {
    fn push(&mut self, text: &str) {
        self.sql.push_str(text);
        self.prepared.push_str(text);
    }

    fn value(&mut self, (text, scalar): Value) {
        self.sql.push_str(&text);
        self.values.push(scalar);
        self.prepared.push_str(&format!("${}", self.values.len()));
    }

    fn place(&mut self, random: &mut Random) {
        self.push(random.of(&[" WHERE id = ", " WHERE @.id = ", " WHERE (id) = "]));
        self.value(value(random, "id"));
        self.push(" AND part = ");
        self.value(value(random, "part"));
        if random.below(4) == 0 {
            let column = random.of(&COLUMNS);
            self.push(&format!(" AND {column} = "));
            self.value(value(random, column));
        }
    }
}

fn statement(random: &mut Random) -> Written {
    let mut written = Written::default();
    match random.below(8) {
        0 | 1 => {
            written.push(random.of(&[
                "SELECT * FROM @",
                "SELECT n AS m, part, @.doc FROM @",
                "SELECT tag \"Tag\", id FROM @",
            ]));
            written.place(random);
            written.push(random.of(&["", " LIMIT 1"]));
        }
        2..=4 => {
            let mut columns = COLUMNS.to_vec();
            columns.retain(|column| matches!(*column, "id" | "part") || random.below(3) > 0);
            written.push(&format!("INSERT INTO @ ({}) VALUES (", columns.join(", ")));
            for (at, column) in columns.iter().enumerate() {
                written.push(if at == 0 { "" } else { ", " });
                written.value(value(random, column));
            }
            written.push(")");
            written.push(random.of(&["", "", " ON CONFLICT DO NOTHING", " RETURNING n, name"]));
        }
        5 | 6 => {
            written.push("UPDATE @ SET ");
            for at in 0..=random.below(2) {
                let column = random.of(&COLUMNS[2 * at..]);
                written.push(if at == 0 { "" } else { ", " });
                match random.below(5) {
                    0 => written.push(&format!("{column} = DEFAULT")),
                    1 => {
                        written.push("n = n + ");
                        written.value(value(random, "n"));
                        written.push(", small = small * 2");
                        break;
                    }
                    _ => {
                        written.push(&format!("{column} = "));
                        written.value(value(random, column));
                    }
                }
            }
            written.place(random);
            written.push(random.of(&["", "", " RETURNING *"]));
        }
        _ => {
            written.push("DELETE FROM @");
            written.place(random);
            written.push(random.of(&["", "", " RETURNING id, doc"]));
        }
    }
    written
}

/// What came out, as text.
async fn shown(result: Result<StatementResult, strata_sql::Error>) -> String {
    let rows = match result {
        Ok(StatementResult::Affected { tag, count }) => return format!("{tag} {count:?}"),
        Ok(StatementResult::Rows(rows)) => rows,
        Err(error) => return error_text(&error),
    };
    let schema = rows.schema();
    let fields: Vec<String> = schema.fields().iter().map(|field| format!("{field:?}")).collect();
    match rows.collect().await {
        Ok(batches) => format!("{}\n{}", fields.join("; "), pretty_format_batches(&batches).unwrap()),
        Err(error) => error_text(&error),
    }
}

fn error_text(error: &strata_sql::Error) -> String {
    let text = format!("{} {} {:?}", error.sqlstate(), error.message(), error.detail());
    text.replace("slow", "@").replace("fast", "@")
}

async fn run(session: &mut Session, sql: &str) -> String {
    let statements = strata_sql::parse_script(sql).unwrap();
    shown(session.run(&statements[0]).await).await
}

async fn run_prepared(session: &mut Session, sql: &str, values: &[ScalarValue]) -> String {
    let prepared = session.prepare(sql).unwrap();
    // The second time it is compiled already.
    if sql.starts_with("SELECT") && !session.in_transaction() {
        shown(session.run_prepared(&prepared, values).await).await;
    }
    shown(session.run_prepared(&prepared, values).await).await
}

fn engine() -> Engine {
    let options = EngineOptions { background: Background::Manual, target_partitions: 1, ..EngineOptions::default() };
    Engine::open_in_memory(options).unwrap()
}

#[tokio::test]
async fn both_ways_give_the_same() {
    let engine = engine();
    let (mut short, mut long) = (engine.session(), engine.session());
    short.execute(&format!("CREATE TABLE fast {SHAPE}; CREATE TABLE slow {SHAPE}")).await.unwrap();
    long.execute("SET enable_point_statements = off").await.unwrap();
    let mut random = Random(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut in_transaction, mut succeeded) = (false, 0);
    for step in 0..1500 {
        if random.below(60) == 0 {
            for table in ["fast", "slow"] {
                let call = [
                    "CALL strata.flush()".to_owned(),
                    format!("CALL strata.convert('{table}')"),
                    format!("CALL strata.compact('{table}')"),
                ];
                if !in_transaction {
                    short.execute(&call[step % 3]).await.unwrap();
                }
            }
        }
        if random.below(20) == 0 {
            let control = if in_transaction { random.of(&["COMMIT", "ROLLBACK"]) } else { "BEGIN" };
            assert_eq!(run(&mut short, control).await, run(&mut long, control).await);
            in_transaction = !in_transaction;
        }
        let written = statement(&mut random);
        let by_planner = run(&mut long, &written.sql.replace('@', "slow")).await;
        let by_key = if step % 2 == 0 {
            run(&mut short, &written.sql.replace('@', "fast")).await
        } else {
            run_prepared(&mut short, &written.prepared.replace('@', "fast"), &written.values).await
        };
        succeeded += usize::from(by_key.contains("Some(1)") || by_key.contains("| "));
        assert_eq!(by_key, by_planner, "step {step}: {}\n{} {:?}", written.sql, written.prepared, written.values);
        if in_transaction && short.in_failed_transaction() {
            assert_eq!(run(&mut short, "ROLLBACK").await, run(&mut long, "ROLLBACK").await);
            in_transaction = false;
        }
    }
    assert!(succeeded > 300, "only {succeeded} statements met or made a row");
}

const QUERIES: &[&str] = &[
    "SELECT * FROM fast WHERE n > $1 ORDER BY part, id",
    "SELECT part, count(*), sum(n), avg(price) FROM fast WHERE id BETWEEN $1 AND $2 GROUP BY part ORDER BY part",
    "SELECT id, n / $1 AS q FROM fast ORDER BY part, id",
    "SELECT id + $1 AS a, $2 AS b, CASE WHEN n = $1 THEN 1 ELSE $2 END AS c FROM fast ORDER BY part, id",
    "SELECT a.id AS x, b.id AS y FROM fast a JOIN slow b ON a.id = b.id + $1 WHERE b.n <> $2 ORDER BY a.part, b.part, x, y",
    "SELECT id FROM fast WHERE n IN ($1, $2, 5) ORDER BY part, id",
    "SELECT id FROM fast WHERE n = (SELECT max(n) FROM slow WHERE id < $1) ORDER BY part, id",
    "SELECT id FROM fast f WHERE EXISTS (SELECT 1 FROM slow s WHERE s.id = f.id AND s.n > $1) ORDER BY part, id",
    "SELECT id, sum(n) OVER (PARTITION BY part ORDER BY id) AS s FROM fast WHERE small < $1 ORDER BY part, id",
    "SELECT id, n FROM fast ORDER BY $1, part, id",
    "SELECT id, n FROM fast ORDER BY part, id LIMIT $1",
    "SELECT id FROM fast WHERE $1 > $2 ORDER BY part, id",
    "SELECT id FROM view_of WHERE m < $1 ORDER BY part, id",
    "SELECT DISTINCT part FROM fast WHERE id < $1 UNION ALL SELECT part FROM slow WHERE id = $2 ORDER BY part",
    "SELECT id FROM fast WHERE now() > '2000-01-01' AND id = $1 ORDER BY part",
];

/// Types of output columns are compared, their names are not: one that has none is called after its constants.
async fn values_of(result: Result<StatementResult, strata_sql::Error>) -> String {
    let rows = match result {
        Ok(result) => result.into_rows().unwrap(),
        Err(error) => return error_text(&error),
    };
    let types: Vec<String> = rows.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    match rows.collect().await {
        Ok(batches) => {
            let lines = pretty_format_batches(&batches).unwrap().to_string();
            format!("{}\n{}", types.join(", "), lines.lines().skip(3).collect::<Vec<_>>().join("\n"))
        }
        Err(error) => error_text(&error),
    }
}

#[tokio::test]
async fn kept_plans_answer_as_new_ones() {
    let engine = engine();
    let (mut kept, mut anew) = (engine.session(), engine.session());
    kept.execute(&format!("CREATE TABLE fast {SHAPE}; CREATE TABLE slow {SHAPE}")).await.unwrap();
    kept.execute("CREATE VIEW view_of AS SELECT part, id, n * 2 AS m FROM fast WHERE small > 1").await.unwrap();
    anew.execute("SET plan_cache_mode = force_custom_plan").await.unwrap();
    let mut random = Random(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut prepared = Vec::new();
    for sql in QUERIES {
        prepared.push(kept.prepare(sql).unwrap());
    }
    for round in 0..30 {
        for table in ["fast", "slow"] {
            let row = format!(
                "INSERT INTO {table} (id, part, n, small, price) VALUES ({}, '{}', {}, {}, {round}.5) ON CONFLICT DO NOTHING",
                random.below(6),
                random.of(&["a", "b", ""]),
                random.of(&["1", "5", "NULL", "3000000000", "-4"]),
                random.of(&["0", "2", "7", "NULL"]),
            );
            kept.execute(&row).await.unwrap();
        }
        match round {
            10 => drop(kept.execute("CALL strata.convert('fast'); CREATE INDEX by_n ON fast (n)").await.unwrap()),
            20 => drop(
                kept.execute("ALTER TABLE slow DROP COLUMN flag; ALTER TABLE slow ADD COLUMN flag INT").await.unwrap(),
            ),
            _ => {}
        }
        for (sql, prepared) in QUERIES.iter().zip(&prepared) {
            let mut parameter = || match random.below(6) {
                0 => ScalarValue::Int64(Some(3_000_000_000)),
                1 => ScalarValue::Int16(Some(2)),
                2 => ScalarValue::Float64(Some(2.5)),
                3 => ScalarValue::from(true),
                _ => ScalarValue::Int32(Some(random.0.next_u64() as i32 % 4)),
            };
            let values: Vec<ScalarValue> = (0..prepared.parameter_count()).map(|_| parameter()).collect();
            let by_kept = values_of(kept.run_prepared(prepared, &values).await).await;
            let by_new = values_of(anew.run_prepared(prepared, &values).await).await;
            assert_eq!(by_kept, by_new, "{sql} {values:?}");
        }
    }
}
