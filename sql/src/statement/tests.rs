//! What scripts are cut into, and what the JSON form of INSERT reads as.

use proptest::prelude::*;

use super::json::JsonValue;
use super::*;

fn texts(script: &str) -> Vec<String> {
    split(script)
        .unwrap()
        .into_iter()
        .map(|piece| match piece {
            Piece::Sql { text, .. } => text.to_owned(),
            Piece::JsonInsert { text, .. } => format!("json: {text}"),
        })
        .collect()
}

#[test]
fn semicolons_end_statements_only_outside_quotes_and_comments() {
    assert_eq!(texts("a; b ;;\n c"), ["a", "b", "c"]);
    assert_eq!(texts("a ';' \"x;\" ''';'; b"), ["a ';' \"x;\" ''';'", "b"]);
    assert_eq!(texts("E'\\';'; b"), ["E'\\';'", "b"]);
    assert_eq!(texts("a $$;$$ $t$ ; $x$ ; $t$; b $1;c"), ["a $$;$$ $t$ ; $x$ ; $t$", "b $1", "c"]);
    assert_eq!(texts("-- x;\na /* ; /* ; */ ; */; b"), ["a /* ; /* ; */ ; */", "b"]);
    assert_eq!(texts("a 'unfinished;"), ["a 'unfinished;"]);
    assert_eq!(texts(" ; -- only a comment"), Vec::<String>::new());
}

#[test]
fn json_form_reads_objects_with_sql_around_them() {
    let script = "SELECT 1; insert into s.\"T\" {\"id\": 1, \"t\": \"a;\\\"\\u00e9\\ud83d\\ude00\", \"n\": -1.50e3}, \
                  {\"id\":null,\"b\":true,\"x\":[1,{\"y\":2}]} ; SELECT 2";
    let statements = parse_script(script).unwrap();
    assert_eq!(statements.len(), 3);
    let Kind::InsertJson(insert) = &statements[1].kind else { panic!("not the JSON form") };
    assert_eq!(insert.table, ["s", "T"]);
    assert_eq!(
        insert.objects[0],
        [
            ("id".to_owned(), JsonValue::Number("1".to_owned())),
            ("t".to_owned(), JsonValue::Text("a;\"é😀".to_owned())),
            ("n".to_owned(), JsonValue::Number("-1.50e3".to_owned())),
        ]
    );
    assert_eq!(insert.objects[1][2], ("x".to_owned(), JsonValue::Nested("[1,{\"y\":2}]".to_owned())));
    let Kind::InsertJson(insert) = &parse_script("INSERT INTO t [{\"a\":1},{\"a\":2}]").unwrap()[0].kind else {
        panic!("not the JSON form")
    };
    assert_eq!(insert.objects.len(), 2);
}

#[test]
fn broken_json_is_a_syntax_error_with_its_place() {
    for (script, place) in [
        ("INSERT INTO t {\"a\": }", "Line: 1, Column: 21"),
        ("INSERT INTO t\n {\"a\": 1", "Line: 2, Column: 9"),
        ("INSERT INTO t {\"a\": 1} x", "Line: 1, Column: 24"),
        ("INSERT INTO t {\"a\": 1, \"a\": 2}", "Line: 1, Column: 24"),
        ("INSERT INTO t {\"a\": \"\\ud800\"}", "Line: 1"),
        ("INSERT INTO t []", "Line: 1, Column: 16"),
    ] {
        let error = parse_script(script).unwrap_err();
        assert_eq!(error.sqlstate(), "42601", "{script}");
        assert!(error.message().contains(place), "{script}: {}", error.message());
    }
}

#[test]
fn syntax_errors_count_lines_from_the_start_of_the_script() {
    let error = parse_script("SELECT 1;\nSELECT 2;\nSELEC 3").unwrap_err();
    assert_eq!(error.sqlstate(), "42601");
    assert!(error.message().contains("Line: 3, Column: 1"), "{}", error.message());
}

#[test]
fn statements_are_classified() {
    let script = "BEGIN; START TRANSACTION; COMMIT; END; ROLLBACK; SAVEPOINT A; ROLLBACK TO a; RELEASE a; \
                  CALL strata.flush(); CREATE TABLE t (a INT PRIMARY KEY); VALUES (1)";
    let kinds: Vec<String> = parse_script(script)
        .unwrap()
        .iter()
        .map(|s| format!("{:?}", s.kind).split(['(', ' ']).next().unwrap().to_owned())
        .collect();
    let expected = [
        "Begin",
        "Begin",
        "Commit",
        "Commit",
        "Rollback",
        "Savepoint",
        "RollbackTo",
        "Release",
        "Call",
        "Ddl",
        "Query",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(parse_script("LISTEN channel").unwrap_err().sqlstate(), "0A000");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(script in "[a-zA-Z0-9 ;'\"$/*{}\\[\\](),:\\\\\\-\n.é]{0,60}") {
        let _ = parse_script(&script);
    }

    #[test]
    fn no_json_makes_the_parser_panic(json in "[a-z0-9 \"{}\\[\\],:\\\\u\\-+.eé;]{0,40}") {
        let _ = parse_script(&format!("INSERT INTO t {{{json}"));
    }
}
