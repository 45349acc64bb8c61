//! Wrong SQL never panics: valid statements with pieces cut out, doubled, exchanged or replaced give rows or an error,
//! and never our own "internal" one; the database answers afterwards.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use proptest::prelude::*;
use strata_sql::{Background, Engine, EngineOptions};

const STATEMENTS: [&str; 16] = [
    "SELECT a, sum(b) FROM t WHERE c > 'x' GROUP BY a HAVING count(*) > 1 ORDER BY a LIMIT 3",
    "SELECT * FROM t JOIN u ON t.a = u.a WHERE t.b IN (SELECT b FROM u) AND EXISTS (SELECT 1 FROM t)",
    "WITH q AS (SELECT a FROM t) SELECT q.a, row_number() OVER (PARTITION BY a ORDER BY a) FROM q",
    "SELECT CASE WHEN a = 1 THEN 'one' ELSE CAST(b AS TEXT) END, a / 2.5, -b FROM t",
    "INSERT INTO t VALUES (1, 2, 'x'), (3, NULL, 'y')",
    "INSERT INTO t (a, c) SELECT a + 100, c FROM t WHERE b IS NOT NULL",
    "INSERT INTO t {\"a\": 5, \"b\": null, \"c\": \"text\"}, {\"a\": 6}",
    "UPDATE t SET b = b + 1, c = upper(c) WHERE a BETWEEN 1 AND 5",
    "UPDATE t SET a = a + 10 FROM u WHERE t.a = u.a",
    "DELETE FROM t WHERE a NOT IN (SELECT a FROM u) OR c LIKE 'x%'",
    "CREATE TABLE v (a INT, b DECIMAL(10, 2), c VARCHAR(5), PRIMARY KEY (a, b)) WITH (storage = 'row')",
    "DROP TABLE IF EXISTS v, w",
    "CREATE SCHEMA s; DROP SCHEMA s CASCADE",
    "BEGIN; SAVEPOINT p; INSERT INTO t VALUES (9, 9, 'z'); ROLLBACK TO p; RELEASE p; COMMIT",
    "EXPLAIN UPDATE t SET b = (SELECT max(a) FROM u) WHERE c = 'x'",
    "CALL strata.convert('t'); SET durability = 'buffered'; SELECT * FROM strata.segments",
];

/// One change of a list of words.
#[derive(Clone, Debug)]
enum Mangle {
    Cut(usize),
    Double(usize),
    Swap(usize, usize),
    Replace(usize, &'static str),
}

fn mangle() -> impl Strategy<Value = Mangle> {
    let foreign = prop::sample::select(vec![
        "NULL",
        "''",
        "(",
        ")",
        ",",
        "*",
        "SELECT",
        "t",
        "a",
        "1",
        "-1e400",
        "'x'",
        "::int",
        "$1",
        "\"\"",
        "{",
        "}",
        "é",
        "99999999999999999999",
        "DEFAULT",
        "FROM",
        "t.a.b.c.d",
        "interval '1' day",
        "[1]",
        "E'\\",
        "--",
        "/*",
        ";",
        "true",
    ]);
    prop_oneof![
        any::<usize>().prop_map(Mangle::Cut),
        any::<usize>().prop_map(Mangle::Double),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Mangle::Swap(a, b)),
        (any::<usize>(), foreign).prop_map(|(at, word)| Mangle::Replace(at, word)),
    ]
}

fn apply(statement: &str, mangles: &[Mangle]) -> String {
    let mut words: Vec<&str> = statement.split_inclusive([' ', ',', '(', ')']).collect();
    for mangle in mangles {
        if words.is_empty() {
            break;
        }
        let length = words.len();
        match mangle {
            Mangle::Cut(at) => {
                words.remove(at % length);
            }
            Mangle::Double(at) => words.insert(at % length, words[at % length]),
            Mangle::Swap(a, b) => words.swap(a % length, b % length),
            Mangle::Replace(at, word) => words[at % length] = word,
        }
    }
    words.join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn wrong_statements_give_errors_and_the_database_lives_on(
        scripts in prop::collection::vec((prop::sample::select(STATEMENTS.to_vec()), prop::collection::vec(mangle(), 0..4)), 1..6)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() };
            let engine = Engine::open_in_memory(options).unwrap();
            let mut session = engine.session();
            session
                .execute("CREATE TABLE t (a INT PRIMARY KEY, b BIGINT, c TEXT); CREATE TABLE u (a INT, b BIGINT);
                          INSERT INTO t VALUES (1, 1, 'x'), (2, NULL, NULL); INSERT INTO u VALUES (1, 1), (1, 2)")
                .await
                .unwrap();
            for (statement, mangles) in &scripts {
                let sql = apply(statement, mangles);
                if let Err(error) = session.execute(&sql).await {
                    assert_ne!(error.sqlstate(), "XX001", "{sql}: {error:?}");
                    assert!(!error.message().is_empty());
                }
                if session.in_transaction() {
                    session.execute("ROLLBACK").await.unwrap();
                }
            }
            engine.session().execute("SELECT 1").await.unwrap();
        });
    }
}

/// Long and deep statements are answered or refused; they never exhaust the stack, which would end the process.
#[test]
fn long_and_deep_statements_do_not_exhaust_the_stack() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::spawn(async {
            let options =
                EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() };
            let engine = Engine::open_in_memory(options).unwrap();
            let mut session = engine.session();
            session.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)").await.unwrap();
            let rows: Vec<String> = (0..3000).map(|at| format!("({at} + 0, 'x')")).collect();
            session.execute(&format!("INSERT INTO t VALUES {}", rows.join(", "))).await.unwrap();
            let rows: Vec<String> = (3000..3200).map(|at| format!("((SELECT {at}), 'x')")).collect();
            session.execute(&format!("INSERT INTO t VALUES {}", rows.join(", "))).await.unwrap();
            let terms: Vec<String> = (0..2000).map(|at| format!("a = {at}")).collect();
            session.execute(&format!("SELECT * FROM t WHERE {}", terms.join(" OR "))).await.unwrap();
            let terms = vec!["a"; 50_000].join(" OR a = ");
            session.execute(&format!("SELECT * FROM t WHERE a = {terms} oops oops")).await.unwrap_err();
            let error = session.execute(&format!("SELECT {}", vec!["1"; 20_000].join("+"))).await.unwrap_err();
            assert_eq!(error.sqlstate(), "54001");
            let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
            assert_eq!(session.execute(&deep).await.unwrap_err().sqlstate(), "54001");
            let nested = format!("INSERT INTO t {{\"a\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
            assert_eq!(session.execute(&nested).await.unwrap_err().sqlstate(), "42601");
        })
        .await
        .unwrap();
    });
}

/// The parser tries one reading after the other; nested, that must not double its work with every level.
#[test]
fn nested_statements_end() {
    let nest = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::spawn(async move {
            let options =
                EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() };
            let engine = Engine::open_in_memory(options).unwrap();
            let mut session = engine.session();
            session.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)").await.unwrap();
            for (open, close) in [
                ("abs(", ")"),
                ("coalesce(NULL, ", ")"),
                ("coalesce(", ", 1)"),
                ("CASE WHEN true THEN ", " END"),
                ("CASE ", " WHEN 1 THEN 1 END"),
                ("CAST(", " AS INT)"),
                ("greatest(1, least(1, ", "))"),
                ("(1 + ", ")"),
                ("-(", ")"),
                ("(", " BETWEEN 1 AND 2)::int"),
                ("(", " IN (1, 2, 3))::int"),
                ("1 * abs(a - ", ")"),
            ] {
                let sql = format!("SELECT {} FROM t", nest(open, "1", close, 5));
                session.execute(&sql).await.unwrap();
                // Too deep for the parser, or wrong at the innermost place: every reading fails.
                for (inner, depth) in
                    [("a", 12), ("1", 45), ("a", 45), ("1", 400), ("1 1", 45), ("abs(", 45), ("FROM", 45), ("", 45)]
                {
                    let sql = format!("SELECT {} FROM t", nest(open, inner, close, depth));
                    if let Err(error) = session.execute(&sql).await {
                        assert!(
                            ["42601", "54001", "42703", "42000", "42883"].contains(&error.sqlstate()),
                            "{sql}: {error:?}"
                        );
                    }
                }
            }
            for (open, inner, close) in [
                ("SELECT * FROM (", "SELECT 1 AS a", ") q"),
                ("SELECT a FROM t WHERE a IN (", "1", ")"),
                ("SELECT a FROM t WHERE EXISTS (", "SELECT 1", ")"),
                ("SELECT (", "1", ")"),
                ("SELECT t.a FROM t JOIN (", "SELECT 1 AS a", ") q ON true"),
                ("SELECT 1 UNION ALL (", "SELECT 1", ")"),
                ("((", "SELECT 1", "))"),
            ] {
                for (inner, depth) in [(inner, 8), (inner, 16), (inner, 45), ("1 1", 45), ("", 45), ("SELECT FROM", 45)]
                {
                    let sql = nest(open, inner, close, depth);
                    if let Err(error) = session.execute(&sql).await {
                        assert!(["42601", "54001"].contains(&error.sqlstate()), "{sql}: {error:?}");
                    }
                }
            }
        })
        .await
        .unwrap();
    });
}
