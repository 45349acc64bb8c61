//! Scripts of the corpus: records between blank lines, in the dialect of SQLite's own sqllogictest program.
//!
//! ```text
//! skipif mysql # not compatible
//! query II rowsort label-7
//! SELECT a, b FROM t
//! ----
//! 1
//! 2
//! ```
//!
//! One value stands on a line, or the whole result is one line, `9 values hashing to 75c9…`. Comments may follow a
//! condition and stand within a statement. The crate `sqllogictest`, which runs our own scripts, reads neither of these.
//! Source: sqlite.org/sqllogictest, "About Sqllogictest".

/// One record, with the engines it is meant for.
#[derive(Debug, PartialEq)]
pub struct Record<'a> {
    /// Line of its first word, from 1.
    pub line: usize,
    pub only: Vec<&'a str>,
    pub skip: Vec<&'a str>,
    pub kind: Kind<'a>,
    pub sql: String,
}

/// What is expected.
#[derive(Debug, PartialEq)]
pub enum Kind<'a> {
    /// The rest of the script is not run.
    Halt,
    Statement {
        ok: bool,
    },
    Query {
        /// `I`, `R` or `T` per column.
        types: &'a str,
        sort: Sort,
        expected: Vec<&'a str>,
    },
}

/// What is sorted before it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Nothing,
    Rows,
    Values,
}

/// The records of a script, in order.
pub struct Script<'a> {
    lines: std::iter::Enumerate<std::str::Lines<'a>>,
}

impl<'a> Script<'a> {
    pub fn new(text: &'a str) -> Script<'a> {
        Script { lines: text.lines().enumerate() }
    }

    /// The SQL of a record, and whether results follow.
    fn sql(&mut self) -> (String, bool) {
        let mut sql = String::new();
        for (_, line) in self.lines.by_ref() {
            let line = line.trim_end();
            match line {
                "" => return (sql, false),
                "----" => return (sql, true),
                comment if comment.starts_with('#') => {}
                line => {
                    if !sql.is_empty() {
                        sql.push('\n');
                    }
                    sql.push_str(line);
                }
            }
        }
        (sql, false)
    }

    fn results(&mut self) -> Vec<&'a str> {
        self.lines.by_ref().map(|(_, line)| line.trim_end()).take_while(|line| !line.is_empty()).collect()
    }
}

impl<'a> Iterator for Script<'a> {
    type Item = Result<Record<'a>, String>;

    fn next(&mut self) -> Option<Result<Record<'a>, String>> {
        let (mut only, mut skip) = (Vec::new(), Vec::new());
        loop {
            let (at, line) = self.lines.next()?;
            let mut words = line.split_whitespace();
            let kind = match (words.next(), words.next()) {
                (None, _) => continue,
                (Some(comment), _) if comment.starts_with('#') => continue,
                (Some("hash-threshold"), _) => continue,
                (Some("onlyif"), Some(engine)) => {
                    only.push(engine);
                    continue;
                }
                (Some("skipif"), Some(engine)) => {
                    skip.push(engine);
                    continue;
                }
                (Some("halt"), _) => Kind::Halt,
                (Some("statement"), Some(outcome @ ("ok" | "error"))) => Kind::Statement { ok: outcome == "ok" },
                (Some("query"), Some(types)) => {
                    let sort = match words.next() {
                        Some("rowsort") => Sort::Rows,
                        Some("valuesort") => Sort::Values,
                        _ => Sort::Nothing,
                    };
                    Kind::Query { types, sort, expected: Vec::new() }
                }
                _ => return Some(Err(format!("line {} is no record: {line}", at + 1))),
            };
            let mut record = Record { line: at + 1, only, skip, kind, sql: String::new() };
            if record.kind != Kind::Halt {
                let (sql, has_results) = self.sql();
                record.sql = sql;
                if has_results {
                    let found = self.results();
                    if let Kind::Query { expected, .. } = &mut record.kind {
                        *expected = found;
                    }
                }
            }
            return Some(Ok(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_kind() {
        let text = "# intro\nhash-threshold 8\n\nonlyif mssql # why\nhalt\n\nstatement ok\nCREATE TABLE t (a\n# within\n INT)\n\n\
                    skipif mysql # not compatible\nskipif oracle\nquery IT rowsort label-1\nSELECT 1, 'a b'\n----\n1\na b\n\n\
                    statement error\nDROP TABLE gone\n\nquery I\nSELECT 1 WHERE 1 = 0\n----\n\nquery R valuesort\nSELECT 2\n";
        let records: Vec<Record<'_>> = Script::new(text).collect::<Result<_, _>>().unwrap();
        assert_eq!(records.len(), 6);
        assert_eq!((&records[0].kind, &records[0].only[..]), (&Kind::Halt, &["mssql"][..]));
        assert_eq!(records[1].sql, "CREATE TABLE t (a\n INT)");
        let expected = Kind::Query { types: "IT", sort: Sort::Rows, expected: vec!["1", "a b"] };
        assert_eq!((&records[2].kind, &records[2].skip[..]), (&expected, &["mysql", "oracle"][..]));
        assert_eq!(records[2].line, 14);
        assert_eq!(records[3].kind, Kind::Statement { ok: false });
        assert_eq!(records[4].kind, Kind::Query { types: "I", sort: Sort::Nothing, expected: Vec::new() });
        assert_eq!(records[5].kind, Kind::Query { types: "R", sort: Sort::Values, expected: Vec::new() });
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        assert!(Script::new("statement maybe\nSELECT 1\n").next().unwrap().unwrap_err().contains("line 1"));
    }
}
