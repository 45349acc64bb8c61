//! Tables, and definitions: CREATE, DROP, ALTER, indexes and views.

use super::super::engines::Step;
use super::Generator;

/// Types that scripts use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    Text,
    Bool,
    Date,
    Real,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Int, Kind::Text, Kind::Bool, Kind::Date, Kind::Real];

    fn sql(self) -> &'static str {
        match self {
            Kind::Int => "INT",
            Kind::Text => "TEXT",
            Kind::Bool => "BOOLEAN",
            Kind::Date => "DATE",
            Kind::Real => "DOUBLE PRECISION",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// Whether two rows may not have the same value.
    pub unique: bool,
}

/// A table or view.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// How many of the first columns are the primary key.
    pub key: usize,
    /// A number above every key given so far.
    pub next_key: i64,
    pub is_view: bool,
    pub indexes: Vec<String>,
    /// Whether another table or view needs it.
    pub is_needed: bool,
}

/// What a part of a query can name: aliases with their columns.
pub type Scope = Vec<Source>;

#[derive(Clone, Debug)]
pub struct Source {
    pub alias: String,
    pub columns: Vec<(String, Kind)>,
}

impl Table {
    pub fn source(&self, alias: &str) -> Source {
        let columns = self.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
        Source { alias: alias.to_owned(), columns }
    }
}

impl Generator {
    /// Positions of the tables that can be written.
    pub(super) fn writable(&self) -> Vec<usize> {
        (0..self.tables.len()).filter(|at| !self.tables[*at].is_view).collect()
    }

    pub(super) fn define(&mut self, steps: &mut Vec<Step>) {
        let writable = self.writable();
        let at = *self.numbers.pick(&writable);
        match self.numbers.below(10) {
            0 | 1 if writable.len() < 5 => self.create_table(steps),
            2 if writable.len() > 2 => self.drop_table(at, steps),
            3 | 4 if self.features.indexes => self.create_index(at, steps),
            5 if !self.tables[at].indexes.is_empty() => {
                let index = self.tables[at].indexes.pop().unwrap_or_default();
                steps.push(Step::Write(format!("DROP INDEX {index}")));
            }
            6 | 7 if self.features.views => self.create_view(steps),
            8 => self.drop_view(steps),
            _ => self.alter(at, steps),
        }
    }

    pub(super) fn create_table(&mut self, steps: &mut Vec<Step>) {
        let name = self.name("t");
        let key = *self.numbers.pick(&[1, 1, 1, 2, 2, 0]);
        let mut columns = vec![
            Column { name: "k".to_owned(), kind: Kind::Int, unique: false },
            Column { name: "l".to_owned(), kind: *self.numbers.pick(&[Kind::Text, Kind::Int]), unique: false },
        ];
        for at in 0..2 + self.numbers.below(3) {
            let kind = *self.numbers.pick(&[Kind::Int, Kind::Int, Kind::Text, Kind::Bool, Kind::Date, Kind::Real]);
            columns.push(Column { name: ["a", "b", "c", "d"][at].to_owned(), kind, unique: false });
        }
        let mut parts = Vec::new();
        for (at, column) in columns.iter_mut().enumerate() {
            let mut part = format!("{} {}", column.name, column.kind.sql());
            if at < key {
                part.push_str(" NOT NULL");
            } else if self.features.unique && column.kind == Kind::Int && self.numbers.chance(15) {
                column.unique = true;
                part.push_str(" UNIQUE");
            } else if self.features.defaults && column.kind == Kind::Int && self.numbers.chance(20) {
                part.push_str(" DEFAULT 7");
            }
            if at >= key && self.features.checks && column.kind == Kind::Int && self.numbers.chance(15) {
                part.push_str(&format!(" CHECK ({} < 40)", column.name));
            }
            parts.push(part);
        }
        if key > 0 {
            let names: Vec<&str> = columns[..key].iter().map(|column| column.name.as_str()).collect();
            parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
        }
        self.reference(&columns, key, &mut parts);
        steps.push(Step::Write(format!("CREATE TABLE {name} ({})", parts.join(", "))));
        let (next_key, is_view, is_needed) = (0, false, false);
        self.tables.push(Table { name, columns, key, next_key, is_view, indexes: Vec::new(), is_needed });
        let at = self.tables.len() - 1;
        for _ in 0..1 + self.numbers.below(3) {
            let step = self.insert_values(at, 12);
            steps.push(step);
        }
    }

    /// A foreign key to a table with a key of one column.
    fn reference(&mut self, columns: &[Column], key: usize, parts: &mut Vec<String>) {
        let targets: Vec<usize> = self.writable().into_iter().filter(|at| self.tables[*at].key == 1).collect();
        let from = columns[key..].iter().find(|column| column.kind == Kind::Int && !column.unique);
        if let Some(from) = from
            && self.features.references
            && !targets.is_empty()
            && self.numbers.chance(25)
        {
            let at = *self.numbers.pick(&targets);
            let action = self.numbers.pick(&["", " ON DELETE CASCADE", " ON DELETE SET NULL"]);
            let target = &mut self.tables[at];
            target.is_needed = true;
            parts.push(format!("FOREIGN KEY ({}) REFERENCES {} (k){action}", from.name, target.name));
        }
    }

    fn drop_table(&mut self, at: usize, steps: &mut Vec<Step>) {
        // PostgreSQL keeps a table that a view reads, SQLite does not.
        if self.tables[at].is_needed || self.tables.iter().any(|table| table.is_view) {
            return;
        }
        let table = self.tables.remove(at);
        steps.push(Step::Write(format!("DROP TABLE {}", table.name)));
    }

    fn create_index(&mut self, at: usize, steps: &mut Vec<Step>) {
        let name = self.name("i");
        let unique = self.features.unique_indexes && self.numbers.chance(20);
        let table = &mut self.tables[at];
        let first = self.numbers.below(table.columns.len());
        let mut columns = vec![table.columns[first].name.clone()];
        let second = self.numbers.below(table.columns.len());
        if second != first && self.numbers.chance(50) {
            columns.push(table.columns[second].name.clone());
        }
        if unique {
            // From now on an UPDATE leaves these columns alone, whether the index came to be or not.
            table.columns.iter_mut().filter(|c| columns.contains(&c.name)).for_each(|c| c.unique = true);
        }
        table.indexes.push(name.clone());
        let unique = if unique { "UNIQUE " } else { "" };
        steps.push(Step::Write(format!("CREATE {unique}INDEX {name} ON {} ({})", table.name, columns.join(", "))));
    }

    fn create_view(&mut self, steps: &mut Vec<Step>) {
        if self.tables.iter().filter(|table| table.is_view).count() > 2 {
            return;
        }
        let name = self.name("v");
        let kinds = self.kinds(3);
        let select = self.select(&kinds, &Vec::new(), 1);
        steps.push(Step::Write(format!("CREATE VIEW {name} AS {select}")));
        let columns = kinds.iter().enumerate();
        let columns =
            columns.map(|(at, kind)| Column { name: format!("c{}", at + 1), kind: *kind, unique: false }).collect();
        let (key, next_key, is_view, is_needed) = (0, 0, true, false);
        self.tables.push(Table { name, columns, key, next_key, is_view, indexes: Vec::new(), is_needed });
    }

    fn drop_view(&mut self, steps: &mut Vec<Step>) {
        // The newest first: an older one may be read by it.
        if let Some(at) = self.tables.iter().rposition(|table| table.is_view) {
            let view = self.tables.remove(at);
            steps.push(Step::Write(format!("DROP VIEW {}", view.name)));
        }
    }

    fn alter(&mut self, at: usize, steps: &mut Vec<Step>) {
        let is_read = self.tables.iter().any(|table| table.is_view);
        let fresh = self.name("n");
        let key = self.tables[at].key;
        let table = &mut self.tables[at];
        let last = table.columns.len() - 1;
        match self.numbers.below(3) {
            0 if self.features.add_column && last < 8 => {
                let kind = *self.numbers.pick(&Kind::ALL);
                steps.push(Step::Write(format!("ALTER TABLE {} ADD COLUMN {fresh} {}", table.name, kind.sql())));
                table.columns.push(Column { name: fresh, kind, unique: false });
            }
            1 if self.features.rename_column && !is_read => {
                // By another letter, so that it is not taken for one that was added, and may be dropped.
                let fresh = fresh.replacen('n', "r", 1);
                let name = std::mem::replace(&mut table.columns[last].name, fresh.clone());
                steps.push(Step::Write(format!("ALTER TABLE {} RENAME COLUMN {name} TO {fresh}", table.name)));
            }
            // SQLite does not drop a column that an index, a check or a key is about.
            2 if self.features.drop_column
                && !is_read
                && table.indexes.is_empty()
                && last > key.max(2)
                && table.columns[last].name.starts_with('n') =>
            {
                if let Some(column) = table.columns.pop() {
                    steps.push(Step::Write(format!("ALTER TABLE {} DROP COLUMN {}", table.name, column.name)));
                }
            }
            _ => {}
        }
    }

    /// Types of some columns.
    pub(super) fn kinds(&mut self, count_max: usize) -> Vec<Kind> {
        let choices = [Kind::Int, Kind::Int, Kind::Text, Kind::Bool, Kind::Date, Kind::Real];
        (0..1 + self.numbers.below(count_max)).map(|_| *self.numbers.pick(&choices)).collect()
    }
}
