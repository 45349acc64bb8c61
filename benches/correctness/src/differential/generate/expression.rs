//! Expressions of a wanted type over what a scope names.

use super::Generator;
use super::schema::{Kind, Scope};

const WORDS: [&str; 10] = ["", "a", "b", "ab", "ba", "abc", "b a", "zz", "é", "x'y"];
const DAYS: [&str; 6] = ["1969-12-31", "1970-01-01", "2000-02-29", "2024-05-05", "2024-12-31", "2100-03-01"];

impl Generator {
    /// A constant that is not NULL.
    pub(super) fn constant(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Int => number(self.numbers.between(-6, 30)),
            Kind::Text => format!("'{}'", self.numbers.pick(&WORDS).replace('\'', "''")),
            Kind::Bool => (*self.numbers.pick(&["TRUE", "FALSE"])).to_owned(),
            Kind::Date => format!("DATE '{}'", self.numbers.pick(&DAYS)),
            Kind::Real => format!("CAST({} AS DOUBLE PRECISION)", self.numbers.between(-20, 40) as f64 / 4.0),
        }
    }

    /// A column of this type, if the scope has one.
    pub(super) fn column(&mut self, kind: Kind, scope: &Scope) -> Option<String> {
        let mut columns = Vec::new();
        for source in scope {
            let fitting = source.columns.iter().filter(|(_, found)| *found == kind);
            columns.extend(fitting.map(|(name, _)| format!("{}.{name}", source.alias)));
        }
        (!columns.is_empty()).then(|| self.numbers.pick(&columns).clone())
    }

    /// A column, or else a constant.
    fn leaf(&mut self, kind: Kind, scope: &Scope) -> String {
        match self.column(kind, scope) {
            Some(column) if self.numbers.chance(85) => column,
            _ => self.constant(kind),
        }
    }

    pub(super) fn expression(&mut self, kind: Kind, scope: &Scope, depth: usize) -> String {
        if depth == 0 || self.numbers.chance(35) {
            return self.leaf(kind, scope);
        }
        let below = depth - 1;
        let one = self.expression(kind, scope, below);
        match self.numbers.below(10) {
            0 => {
                let (condition, other) = (self.predicate(scope, below), self.expression(kind, scope, below));
                format!("CASE WHEN {condition} THEN {one} ELSE {other} END")
            }
            1 => format!("COALESCE({one}, {})", self.expression(kind, scope, below)),
            2 => format!("NULLIF({one}, {})", self.leaf(kind, scope)),
            _ => match kind {
                Kind::Int => self.integer(&one, scope, below),
                Kind::Text => self.text(&one, scope),
                Kind::Bool => format!("({})", self.predicate(scope, below)),
                Kind::Date => one,
                Kind::Real => match self.numbers.below(3) {
                    0 => format!("CAST({} AS DOUBLE PRECISION)", self.leaf(Kind::Int, scope)),
                    1 => format!("({one} + {})", self.leaf(kind, scope)),
                    _ => format!("({one} * 2)"),
                },
            },
        }
    }

    fn integer(&mut self, one: &str, scope: &Scope, depth: usize) -> String {
        let other = self.leaf(Kind::Int, scope);
        let small = number(self.numbers.between(-3, 3));
        let divisor = number(*self.numbers.pick(&[-4, -3, 2, 3, 5, 7]));
        match self.numbers.below(9) {
            0 => format!("({one} + {other})"),
            1 => format!("({one} - {other})"),
            2 => format!("({one} * {small})"),
            3 => format!("({one} / {divisor})"),
            4 => format!("({one} % {divisor})"),
            5 => format!("ABS({one})"),
            6 => format!("LENGTH({})", self.leaf(Kind::Text, scope)),
            7 => format!("(- {one})"),
            _ if self.plain => one.to_owned(),
            _ => self.scalar_subquery(scope, depth),
        }
    }

    fn text(&mut self, one: &str, scope: &Scope) -> String {
        match self.numbers.below(4) {
            0 => format!("({one} || {})", self.leaf(Kind::Text, scope)),
            1 => format!("SUBSTR({one}, {}, {})", 1 + self.numbers.below(2), self.numbers.below(3)),
            2 => format!("REPLACE({one}, 'a', 'ca')"),
            _ => format!("TRIM({one})"),
        }
    }

    /// A condition.
    pub(super) fn predicate(&mut self, scope: &Scope, depth: usize) -> String {
        if depth > 0 && self.numbers.chance(40) {
            let (one, other) = (self.predicate(scope, depth - 1), self.predicate(scope, depth - 1));
            return match self.numbers.below(5) {
                0 | 1 => format!("({one} AND {other})"),
                2 | 3 => format!("({one} OR {other})"),
                _ => format!("NOT ({one})"),
            };
        }
        if depth > 0 && !self.plain && self.numbers.chance(15) {
            return self.subquery_predicate(scope, depth - 1);
        }
        let kind =
            *self.numbers.pick(&[Kind::Int, Kind::Int, Kind::Int, Kind::Text, Kind::Date, Kind::Real, Kind::Bool]);
        let one = self.expression(kind, scope, depth.min(1));
        let not = if self.numbers.chance(25) { "NOT " } else { "" };
        match self.numbers.below(12) {
            0 => format!("{one} IS {not}NULL"),
            1 if kind != Kind::Bool => {
                format!("{one} {not}BETWEEN {} AND {}", self.constant(kind), self.leaf(kind, scope))
            }
            2 | 3 if kind != Kind::Bool => {
                let mut list: Vec<String> = (0..1 + self.numbers.below(3)).map(|_| self.constant(kind)).collect();
                if self.numbers.chance(15) {
                    list.push("NULL".to_owned());
                }
                format!("{one} {not}IN ({})", list.join(", "))
            }
            4 if kind == Kind::Text => {
                format!("{one} {not}LIKE {}", self.numbers.pick(&["'a%'", "'%b'", "'_b%'", "'%'", "''", "'%a%'"]))
            }
            5 => format!("{one} IS {not}DISTINCT FROM {}", self.leaf(kind, scope)),
            _ if kind == Kind::Bool => match self.numbers.below(3) {
                0 => format!("NOT {one}"),
                1 => format!("{one} = {}", self.leaf(kind, scope)),
                _ => one,
            },
            _ => {
                let sign = *self.numbers.pick(&["=", "=", "<>", "<", "<=", ">", ">="]);
                let other = self.leaf(kind, scope);
                format!("{one} {sign} {other}")
            }
        }
    }
}

/// Negative numbers in parentheses, because two minus signs begin a comment.
fn number(value: i64) -> String {
    if value < 0 { format!("({value})") } else { value.to_string() }
}
