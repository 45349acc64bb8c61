//! The anomalies by their published names, tried at every isolation level that a session may ask for, with the rows in
//! every placement.
//!
//! Each anomaly is a short play of two or three sessions, step by step, and a judgement of what they saw. The plays are
//! those of Hermitage (Kleppmann, github.com/ept/hermitage); the names are Adya's (1999) and Berenson's (1995). What is
//! claimed is the table of [docs/isolation.md](../../../docs/isolation.md), and a test compares the two.

use anyhow::{Result, anyhow};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use strata_sql::{Engine, Session, StatementResult};

use crate::placement::{Placement, options};

/// Levels that can be asked for.
const LEVELS: [&str; 4] = ["READ COMMITTED", "REPEATABLE READ", "SNAPSHOT", "SERIALIZABLE"];

/// One play. All sessions have begun when it starts, rows 1 and 2 have the values 10 and 20.
struct Play {
    name: &'static str,
    /// Session, and what it says.
    steps: &'static [(usize, &'static str)],
    /// Whether it happened, from what each step gave and from the rows in the end.
    happened: fn(&[Seen], &[i64]) -> bool,
}

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Done,
    Refused,
    /// All values of all rows.
    Values(Vec<i64>),
}

const ONE: &str = "SELECT value FROM test WHERE id = 1";
const TWO: &str = "SELECT value FROM test WHERE id = 2";
const BOTH: &str = "SELECT value FROM test WHERE id IN (1, 2) ORDER BY id";
const THIRDS: &str = "SELECT id, value FROM test WHERE value % 3 = 0 ORDER BY id";

fn is(seen: &Seen, values: &[i64]) -> bool {
    *seen == Seen::Values(values.to_vec())
}

const PLAYS: [Play; 10] = [
    Play {
        name: "G0",
        steps: &[
            (0, "UPDATE test SET value = 11 WHERE id = 1"),
            (1, "UPDATE test SET value = 12 WHERE id = 1"),
            (0, "UPDATE test SET value = 21 WHERE id = 2"),
            (0, "COMMIT"),
            (1, "UPDATE test SET value = 22 WHERE id = 2"),
            (1, "COMMIT"),
        ],
        happened: |_, rows| rows != [11, 21] && rows != [12, 22],
    },
    Play {
        name: "G1a",
        steps: &[(0, "UPDATE test SET value = 101 WHERE id = 1"), (1, ONE), (0, "ROLLBACK"), (1, ONE), (1, "COMMIT")],
        happened: |seen, _| is(&seen[1], &[101]) || is(&seen[3], &[101]),
    },
    Play {
        name: "G1b",
        steps: &[
            (0, "UPDATE test SET value = 101 WHERE id = 1"),
            (1, ONE),
            (0, "UPDATE test SET value = 11 WHERE id = 1"),
            (0, "COMMIT"),
            (1, ONE),
            (1, "COMMIT"),
        ],
        happened: |seen, _| is(&seen[1], &[101]) || is(&seen[4], &[101]),
    },
    Play {
        name: "G1c",
        steps: &[
            (0, "UPDATE test SET value = 11 WHERE id = 1"),
            (1, "UPDATE test SET value = 22 WHERE id = 2"),
            (0, TWO),
            (1, ONE),
            (0, "COMMIT"),
            (1, "COMMIT"),
        ],
        happened: |seen, _| is(&seen[2], &[22]) && is(&seen[3], &[11]),
    },
    Play {
        name: "OTV",
        steps: &[
            (0, "UPDATE test SET value = 11 WHERE id = 1"),
            (0, "UPDATE test SET value = 19 WHERE id = 2"),
            (0, "COMMIT"),
            (1, "UPDATE test SET value = 12 WHERE id = 1"),
            (2, ONE),
            (1, "UPDATE test SET value = 18 WHERE id = 2"),
            (2, TWO),
            (1, "COMMIT"),
            (2, TWO),
            (2, ONE),
            (2, "COMMIT"),
        ],
        // The third session saw the first one's row and then no more of it.
        happened: |seen, _| seen[4] != seen[9] || seen[6] != seen[8],
    },
    Play {
        name: "PMP",
        steps: &[
            (0, "SELECT id FROM test WHERE value = 30"),
            (1, "INSERT INTO test VALUES (3, 30)"),
            (1, "COMMIT"),
            (0, "SELECT id FROM test WHERE value % 3 = 0"),
            (0, "COMMIT"),
        ],
        happened: |seen, _| !is(&seen[3], &[]),
    },
    Play {
        name: "P4",
        steps: &[
            (0, ONE),
            (1, ONE),
            (0, "UPDATE test SET value = 11 WHERE id = 1"),
            (1, "UPDATE test SET value = 11 WHERE id = 1"),
            (0, "COMMIT"),
            (1, "COMMIT"),
        ],
        happened: |seen, _| seen[3] == Seen::Done && seen[4] == Seen::Done && seen[5] == Seen::Done,
    },
    Play {
        name: "G-single",
        steps: &[
            (0, ONE),
            (1, BOTH),
            (1, "UPDATE test SET value = 12 WHERE id = 1"),
            (1, "UPDATE test SET value = 18 WHERE id = 2"),
            (1, "COMMIT"),
            (0, TWO),
            (0, "COMMIT"),
        ],
        happened: |seen, _| is(&seen[0], &[10]) && is(&seen[5], &[18]),
    },
    Play {
        name: "G2-item",
        steps: &[
            (0, BOTH),
            (1, BOTH),
            (0, "UPDATE test SET value = 11 WHERE id = 1"),
            (1, "UPDATE test SET value = 21 WHERE id = 2"),
            (0, "COMMIT"),
            (1, "COMMIT"),
        ],
        happened: |seen, _| seen[4] == Seen::Done && seen[5] == Seen::Done,
    },
    Play {
        name: "G2",
        steps: &[
            (0, THIRDS),
            (1, THIRDS),
            (0, "INSERT INTO test VALUES (3, 30)"),
            (1, "INSERT INTO test VALUES (4, 42)"),
            (0, "COMMIT"),
            (1, "COMMIT"),
        ],
        happened: |seen, _| seen[4] == Seen::Done && seen[5] == Seen::Done,
    },
];

/// Prints the table as it is. Whether no placement differs from another.
pub fn run() -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut alike = true;
    println!("| anomaly | {} |", LEVELS.join(" | "));
    for play in &PLAYS {
        let mut cells = Vec::new();
        for level in LEVELS {
            let mut found = Vec::new();
            for placement in Placement::ALL {
                found.push(runtime.block_on(happens(play, level, placement))?);
            }
            alike &= found.iter().all(|happened| *happened == found[0]);
            cells.push(if found[0] { "possible" } else { "prevented" });
        }
        println!("| {} | {} |", play.name, cells.join(" | "));
    }
    if !alike {
        println!("the placement of rows makes a difference");
    }
    Ok(alike)
}

async fn happens(play: &Play, level: &str, placement: Placement) -> Result<bool> {
    let told = |error: strata_sql::Error| anyhow!("{} at {level}: {}", play.name, error.report());
    let engine = Engine::open_in_memory(options(1)).map_err(told)?;
    let mut first = engine.session();
    first.execute("CREATE TABLE test (id INT PRIMARY KEY, value INT)").await.map_err(told)?;
    // Placed one after the other, so that `half` has a row in each part.
    for (turn, row) in ["(1, 10)", "(2, 20)"].into_iter().enumerate() {
        first.execute(&format!("INSERT INTO test VALUES {row}")).await.map_err(told)?;
        placement.move_rows(&engine, turn as u64).await.map_err(told)?;
    }
    let mut sessions: Vec<Session> = (0..3).map(|_| engine.session()).collect();
    for session in &mut sessions {
        session.execute(&format!("BEGIN ISOLATION LEVEL {level}")).await.map_err(told)?;
    }
    let (mut seen, mut turn) = (Vec::new(), 2);
    for (number, sql) in play.steps {
        seen.push(step(&mut sessions[*number], sql).await.map_err(told)?);
        if *sql == "COMMIT" {
            placement.move_rows(&engine, turn).await.map_err(told)?;
            turn += 1;
        }
    }
    let Seen::Values(rows) = step(&mut first, BOTH).await.map_err(told)? else {
        return Err(anyhow!("{}: the rows cannot be read in the end", play.name));
    };
    Ok((play.happened)(&seen, &rows))
}

/// Runs a statement. A lost race is part of the play; any other error is not.
async fn step(session: &mut Session, sql: &str) -> strata_sql::Result<Seen> {
    let results = match session.execute(sql).await {
        Ok(results) => results,
        Err(error) if matches!(error.sqlstate(), "40001" | "25P01" | "25P02") => return Ok(Seen::Refused),
        Err(error) => return Err(error),
    };
    let mut values = Vec::new();
    for result in results {
        let StatementResult::Rows(rows) = result else {
            // COMMIT of a transaction that failed says ROLLBACK.
            let lost = matches!(&result, StatementResult::Affected { tag: "ROLLBACK", .. } if sql == "COMMIT");
            return Ok(if lost { Seen::Refused } else { Seen::Done });
        };
        for batch in rows.collect().await? {
            for row in 0..batch.num_rows() {
                for column in batch.columns() {
                    let numbers = cast(column, &DataType::Int64)
                        .map_err(|error| strata_sql::Error::internal(error.to_string()))?;
                    values.push(numbers.as_primitive::<Int64Type>().value(row));
                }
            }
        }
    }
    Ok(Seen::Values(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What docs/isolation.md says of an anomaly, level by level.
    fn claimed(name: &str) -> Vec<bool> {
        let page = include_str!("../../../docs/isolation.md");
        let row = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        cells[cells.len() - LEVELS.len()..].iter().map(|cell| *cell == "possible").collect()
    }

    #[test]
    fn anomalies_are_as_claimed_in_every_placement() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for play in &PLAYS {
            let claimed = claimed(play.name);
            for (level, claimed) in LEVELS.into_iter().zip(claimed) {
                for placement in Placement::ALL {
                    let found = runtime.block_on(happens(play, level, placement)).unwrap();
                    assert_eq!(found, claimed, "{} at {level}, {}", play.name, placement.name());
                }
            }
        }
    }

    /// Judgements that call nothing an anomaly would pass the test above at every level.
    #[test]
    fn judgements_know_the_anomalies() {
        let values = |list: &[i64]| Seen::Values(list.to_vec());
        let judge = |name: &str, told: &[(usize, Seen)], rows: &[i64]| {
            let play = PLAYS.iter().find(|play| play.name == name).unwrap();
            let mut seen = vec![Seen::Done; play.steps.len()];
            told.iter().for_each(|(at, what)| seen[*at] = what.clone());
            (play.happened)(&seen, rows)
        };
        assert!(judge("G0", &[], &[11, 22]) && !judge("G0", &[], &[12, 22]));
        assert!(judge("G1a", &[(1, values(&[101]))], &[]) && !judge("G1a", &[(1, values(&[10]))], &[]));
        assert!(judge("G1b", &[(4, values(&[101]))], &[]));
        assert!(judge("G1c", &[(2, values(&[22])), (3, values(&[11]))], &[]));
        assert!(judge("OTV", &[(4, values(&[11])), (9, values(&[12]))], &[]));
        assert!(judge("PMP", &[(3, values(&[3]))], &[]) && !judge("PMP", &[(3, values(&[]))], &[]));
        assert!(judge("P4", &[], &[]) && !judge("P4", &[(5, Seen::Refused)], &[]));
        assert!(judge("G-single", &[(0, values(&[10])), (5, values(&[18]))], &[]));
        assert!(judge("G2-item", &[], &[]) && judge("G2", &[], &[]));
        assert!(!judge("G2-item", &[(5, Seen::Refused)], &[]) && !judge("G2", &[(5, Seen::Refused)], &[]));
    }
}
