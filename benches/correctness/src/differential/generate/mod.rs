//! Makes scripts: some tables with rows, then a hundred steps, then a look at everything before and after reopening.
//!
//! What both engines must understand alike limits what is said. Integers stay far from overflow, doubles are quarters,
//! divisors are constants, texts look like no numbers, letters are small, NULLs are placed by every ORDER BY, LIMIT comes
//! only with an order that leaves nothing open, and no UPDATE makes two rows trade keys.

mod expression;
mod query;
mod schema;
mod write;

use super::engines::{Move, Step};
use super::features::Features;
use crate::numbers::Numbers;
use schema::Table;

/// State of the generator: what exists if everything went as planned.
pub struct Generator {
    numbers: Numbers,
    features: Features,
    tables: Vec<Table>,
    /// What to go back to: at BEGIN, then at each savepoint, with its name.
    marks: Vec<(String, Vec<Table>)>,
    /// Names given so far, so that none is given twice.
    names: usize,
    /// Whether expressions leave subqueries out.
    plain: bool,
}

/// The script of a seed.
pub fn script(seed: u64, features: Features) -> Vec<Step> {
    let mut generator = Generator {
        numbers: Numbers::new(seed),
        features,
        tables: Vec::new(),
        marks: Vec::new(),
        names: 0,
        plain: false,
    };
    let mut steps = Vec::new();
    for _ in 0..2 + generator.numbers.below(2) {
        generator.create_table(&mut steps);
    }
    let count = 60 + generator.numbers.below(80);
    for _ in 0..count {
        generator.step(&mut steps);
    }
    if generator.in_transaction() {
        steps.push(Step::Commit);
    }
    generator.look_at_everything(&mut steps);
    steps.push(Step::Move(Move::Reopen));
    generator.look_at_everything(&mut steps);
    steps
}

impl Generator {
    fn in_transaction(&self) -> bool {
        !self.marks.is_empty()
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn step(&mut self, steps: &mut Vec<Step>) {
        match self.numbers.below(100) {
            0..38 => steps.push(self.query()),
            38..58 => steps.push(self.insert()),
            58..71 => steps.push(self.update()),
            71..79 => steps.push(self.delete()),
            79..84 => self.define(steps),
            84..93 => self.control(steps),
            _ => {
                let what =
                    *self.numbers.pick(&[Move::Flush, Move::Convert, Move::Convert, Move::Compact, Move::Reopen]);
                // An open transaction is ended by reopening; that is worth less than what else it could do.
                if what != Move::Reopen || !self.in_transaction() || self.numbers.chance(20) {
                    if what == Move::Reopen {
                        self.back_to(0);
                    }
                    steps.push(Step::Move(what));
                }
            }
        }
    }

    /// Begins, ends and marks transactions.
    fn control(&mut self, steps: &mut Vec<Step>) {
        if !self.in_transaction() {
            let begin = self.numbers.pick(&["BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE"]);
            self.marks.push((String::new(), self.tables.clone()));
            return steps.push(Step::Begin((*begin).to_owned()));
        }
        match self.numbers.below(10) {
            0..3 => {
                self.marks.clear();
                steps.push(Step::Commit);
            }
            3..5 => {
                self.back_to(0);
                steps.push(Step::Rollback);
            }
            5..8 => {
                let name = self.name("s");
                self.marks.push((name.clone(), self.tables.clone()));
                steps.push(Step::Mark(format!("SAVEPOINT {name}")));
            }
            kind if self.marks.len() > 1 => {
                let at = 1 + self.numbers.below(self.marks.len() - 1);
                let (name, tables) = self.marks[at].clone();
                if kind == 8 {
                    self.marks.truncate(at);
                    return steps.push(Step::Mark(format!("RELEASE SAVEPOINT {name}")));
                }
                self.marks.truncate(at + 1);
                self.tables = tables;
                steps.push(Step::RollbackTo(name));
            }
            _ => {}
        }
    }

    /// Definitions as they were at a mark, which goes, as do those behind it.
    fn back_to(&mut self, mark: usize) {
        if let Some((_, tables)) = self.marks.get(mark) {
            self.tables = tables.clone();
            self.marks.truncate(mark);
        }
    }

    fn look_at_everything(&mut self, steps: &mut Vec<Step>) {
        for table in &self.tables {
            let sql = format!("SELECT * FROM {}", table.name);
            steps.push(Step::Query { sql, ordered: false });
            let sql = format!("SELECT count(*), min({0}), max({0}) FROM {1}", table.columns[0].name, table.name);
            steps.push(Step::Query { sql, ordered: false });
        }
    }
}
