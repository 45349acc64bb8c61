//! INSERT, UPDATE and DELETE.

use super::super::engines::Step;
use super::Generator;
use super::schema::{Kind, Scope, Table};

impl Generator {
    pub(super) fn insert(&mut self) -> Step {
        let writable = self.writable();
        let at = *self.numbers.pick(&writable);
        if self.numbers.chance(15) { self.insert_select(at) } else { self.insert_values(at, 6) }
    }

    /// Rows of constants, mostly with keys that are new.
    pub(super) fn insert_values(&mut self, at: usize, rows_max: usize) -> Step {
        let mut table = self.tables[at].clone();
        let count = 1 + self.numbers.below(rows_max);
        let rows: Vec<String> = (0..count).map(|_| self.row(&mut table)).collect();
        self.tables[at].next_key = table.next_key;
        let mut sql = if self.features.defaults && self.numbers.chance(10) && table.key > 0 {
            // Some columns are left to their defaults.
            let rows: Vec<String> = (0..count).map(|_| self.key_row(&mut table)).collect();
            self.tables[at].next_key = table.next_key;
            format!("INSERT INTO {} ({}) VALUES {}", table.name, names(&table, table.key), rows.join(", "))
        } else {
            // With all names: of a row that is too short, SQLite says that it is, and PostgreSQL puts in defaults.
            let all = names(&table, table.columns.len());
            format!("INSERT INTO {} ({all}) VALUES {}", table.name, rows.join(", "))
        };
        if self.features.on_conflict && table.key > 0 && self.numbers.chance(15) {
            sql.push_str(&self.on_conflict(&table, count));
        }
        self.returning(&mut sql, &table);
        Step::Write(sql)
    }

    /// Values of a whole row.
    fn row(&mut self, table: &mut Table) -> String {
        let columns = table.columns.clone();
        let values: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| self.value_of(table, at, column.kind, column.unique))
            .collect();
        format!("({})", values.join(", "))
    }

    fn key_row(&mut self, table: &mut Table) -> String {
        let columns = table.columns[..table.key].to_vec();
        let values: Vec<String> =
            columns.iter().enumerate().map(|(at, column)| self.value_of(table, at, column.kind, false)).collect();
        format!("({})", values.join(", "))
    }

    fn value_of(&mut self, table: &mut Table, at: usize, kind: Kind, unique: bool) -> String {
        let is_first = at == 0 && table.key > 0;
        if is_first || (unique && kind == Kind::Int) {
            if self.numbers.chance(95) {
                table.next_key += 1;
                return table.next_key.to_string();
            }
            return self.numbers.between(1, table.next_key.max(1)).to_string();
        }
        if at < table.key && self.numbers.chance(98) {
            return self.constant(kind);
        }
        if self.numbers.chance(18) { "NULL".to_owned() } else { self.constant(kind) }
    }

    fn on_conflict(&mut self, table: &Table, rows: usize) -> String {
        let key = names(table, table.key);
        let others: Vec<&str> = table.columns[table.key..]
            .iter()
            .filter(|column| !column.unique && column.kind == Kind::Int)
            .map(|column| column.name.as_str())
            .collect();
        // Two rows of one statement with one key are an error in PostgreSQL alone.
        if others.is_empty() || rows > 1 || self.numbers.chance(40) {
            let target = if self.numbers.chance(50) { format!(" ({key})") } else { String::new() };
            return format!(" ON CONFLICT{target} DO NOTHING");
        }
        let column = *self.numbers.pick(&others);
        let guard = if self.numbers.chance(50) { format!(" WHERE {}.{column} > 0", table.name) } else { String::new() };
        format!(
            " ON CONFLICT ({key}) DO UPDATE SET {column} = (excluded.{column} + {}.{column}) % 30{guard}",
            table.name
        )
    }

    fn returning(&mut self, sql: &mut String, table: &Table) {
        if self.features.returning && self.numbers.chance(15) {
            let column = self.numbers.pick(&table.columns).name.clone();
            sql.push_str(&format!(" RETURNING {column}, {}", table.columns[0].name));
        }
    }

    fn insert_select(&mut self, at: usize) -> Step {
        let from = self.numbers.below(self.tables.len());
        let source = self.tables[from].source("s");
        let mut table = self.tables[at].clone();
        let scope: Scope = vec![source];
        let int = scope[0].columns.iter().find(|(_, kind)| *kind == Kind::Int).map(|(name, _)| name.clone());
        let mut items = Vec::new();
        for (position, column) in table.columns.iter().enumerate() {
            let is_key = position == 0 && table.key > 0;
            items.push(match &int {
                Some(name) if is_key || column.unique => format!("s.{name} + {}", table.next_key + 1),
                _ => self.bounded(column.kind, &scope, 1),
            });
        }
        table.next_key += 500;
        self.tables[at].next_key = table.next_key;
        let filter = self.predicate(&scope, 1);
        let order: Vec<String> = (1..=items.len()).map(|at| format!("{at} NULLS FIRST")).collect();
        Step::Write(format!(
            "INSERT INTO {} ({}) SELECT {} FROM {} AS s WHERE {filter} ORDER BY {} LIMIT 8",
            table.name,
            names(&table, table.columns.len()),
            items.join(", "),
            self.tables[from].name,
            order.join(", ")
        ))
    }

    pub(super) fn update(&mut self) -> Step {
        let writable = self.writable();
        let at = *self.numbers.pick(&writable);
        let table = self.tables[at].clone();
        if table.key == 1 && self.numbers.chance(15) {
            return self.update_key(at, &table);
        }
        let scope = vec![table.source(&table.name)];
        let mut sets = Vec::new();
        // SQLite would show a subquery rows that this very statement has changed.
        self.plain = true;
        for column in table.columns[table.key..].iter().filter(|column| !column.unique) {
            if sets.is_empty() || self.numbers.chance(30) {
                sets.push(format!("{} = {}", column.name, self.bounded(column.kind, &scope, 2)));
            }
        }
        self.plain = false;
        if sets.is_empty() {
            return self.delete();
        }
        let mut sql = format!("UPDATE {} SET {}", table.name, sets.join(", "));
        if self.numbers.chance(90) {
            sql.push_str(&format!(" WHERE {}", self.filter(&table, &scope)));
        }
        self.returning(&mut sql, &table);
        Step::Write(sql)
    }

    /// Keys move: one to another, or a range of them to where no key of the range was.
    fn update_key(&mut self, at: usize, table: &Table) -> Step {
        let sql = if self.numbers.chance(60) {
            let (from, to) =
                (self.numbers.between(1, table.next_key.max(1)), self.numbers.between(1, table.next_key + 5));
            format!("UPDATE {} SET k = {to} WHERE k = {from}", table.name)
        } else {
            let width = self.numbers.between(1, 10);
            let start = self.numbers.between(0, table.next_key.max(1));
            let end = start + width;
            self.tables[at].next_key = table.next_key + width + 1;
            format!("UPDATE {} SET k = k + {} WHERE k >= {start} AND k < {end}", table.name, table.next_key + 1 - start)
        };
        Step::Write(sql)
    }

    pub(super) fn delete(&mut self) -> Step {
        let writable = self.writable();
        let at = *self.numbers.pick(&writable);
        let table = self.tables[at].clone();
        let scope = vec![table.source(&table.name)];
        let mut filter = self.filter(&table, &scope);
        // Most deletions leave most rows.
        if self.numbers.chance(75) {
            filter = format!("({filter}) AND {}.k % 4 = {}", table.name, self.numbers.below(4));
        }
        let mut sql = format!("DELETE FROM {} WHERE {filter}", table.name);
        self.returning(&mut sql, &table);
        Step::Write(sql)
    }

    /// A condition on rows of a table: a key, a range of keys, or anything.
    fn filter(&mut self, table: &Table, scope: &Scope) -> String {
        let key = self.numbers.between(0, table.next_key.max(1));
        match self.numbers.below(4) {
            0 => format!("{}.k = {key}", table.name),
            1 => format!("{0}.k BETWEEN {key} AND {1}", table.name, key + self.numbers.between(0, 15)),
            _ => self.predicate(scope, 2),
        }
    }

    /// An expression whose value may be stored again and again without growing.
    fn bounded(&mut self, kind: Kind, scope: &Scope, depth: usize) -> String {
        let expression = self.expression(kind, scope, depth);
        match kind {
            Kind::Int => format!("({expression}) % 40"),
            Kind::Text => format!("SUBSTR({expression}, 1, 5)"),
            Kind::Real => {
                let filter = self.predicate(scope, 0);
                format!("CASE WHEN {filter} THEN {} ELSE {} END", self.constant(kind), self.constant(kind))
            }
            Kind::Bool | Kind::Date => expression,
        }
    }
}

fn names(table: &Table, count: usize) -> String {
    table.columns[..count].iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}
