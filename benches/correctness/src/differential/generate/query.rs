//! Queries: joins, subqueries, aggregates, windows, common tables and set operations.

use super::super::engines::Step;
use super::Generator;
use super::schema::{Kind, Scope, Source};

impl Generator {
    pub(super) fn query(&mut self) -> Step {
        let kinds = self.kinds(4);
        let mut sql = String::new();
        if self.numbers.chance(15) {
            return self.with_common_table(&kinds);
        }
        sql.push_str(&self.select(&kinds, &Vec::new(), 2));
        if self.numbers.chance(15) {
            let operation = *self.numbers.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]);
            let other = self.select(&kinds, &Vec::new(), 1);
            sql = format!("{sql} {operation} {other}");
        }
        self.ordered(sql, kinds.len())
    }

    /// ORDER BY every column, and then perhaps LIMIT, for half of the queries.
    fn ordered(&mut self, mut sql: String, width: usize) -> Step {
        let ordered = self.numbers.chance(50);
        if ordered {
            let mut columns: Vec<usize> = (1..=width).collect();
            self.numbers.shuffle(&mut columns);
            let mut order = Vec::new();
            for column in columns {
                let direction = *self.numbers.pick(&["", " DESC"]);
                order.push(format!("{column}{direction} NULLS {}", self.numbers.pick(&["FIRST", "LAST"])));
            }
            sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
            if self.numbers.chance(40) {
                sql.push_str(&format!(" LIMIT {}", self.numbers.below(12)));
                if self.numbers.chance(40) {
                    sql.push_str(&format!(" OFFSET {}", self.numbers.below(6)));
                }
            }
        }
        Step::Query { sql, ordered }
    }

    fn with_common_table(&mut self, kinds: &[Kind]) -> Step {
        let inner = self.kinds(3);
        let (name, body) = (self.name("w"), self.select(&inner, &Vec::new(), 1));
        let common = Source { alias: name.clone(), columns: named(&inner) };
        let other = self.name("q");
        let table = self.numbers.pick(&self.tables).clone();
        let mut scope = vec![common];
        let mut from = name.clone();
        if self.numbers.chance(60) {
            let source = table.source(&other);
            let condition = self.join_condition(&scope, &source);
            let join = *self.numbers.pick(&["JOIN", "LEFT JOIN"]);
            from = format!("{name} {join} {} AS {other} ON {condition}", table.name);
            scope.push(source);
        }
        let items = self.items(kinds, &scope);
        let filter = self.predicate(&scope, 1);
        let sql = format!("WITH {name} AS ({body}) SELECT {items} FROM {from} WHERE {filter}");
        self.ordered(sql, kinds.len())
    }

    /// A SELECT whose columns are `c1`, `c2` … of the wanted types. `outer` may be named in its WHERE.
    pub(super) fn select(&mut self, kinds: &[Kind], outer: &Scope, depth: usize) -> String {
        let (from, scope) = self.from(depth);
        let mut visible = scope.clone();
        visible.extend(outer.iter().cloned());
        let filter = match self.numbers.below(4) {
            0 => String::new(),
            _ => format!(" WHERE {}", self.predicate(&visible, depth)),
        };
        match self.numbers.below(10) {
            0..3 => self.aggregate(kinds, &scope, &from, &filter),
            3 if scope.len() == 1 => self.window(kinds, &scope, &from, &filter),
            kind => {
                let distinct = if kind == 4 { "DISTINCT " } else { "" };
                let items = self.items(kinds, &scope);
                format!("SELECT {distinct}{items} FROM {from}{filter}")
            }
        }
    }

    fn items(&mut self, kinds: &[Kind], scope: &Scope) -> String {
        let mut items = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            items.push(format!("{} AS c{}", self.expression(*kind, scope, 1), at + 1));
        }
        items.join(", ")
    }

    /// One to three tables, views or subqueries, joined.
    fn from(&mut self, depth: usize) -> (String, Scope) {
        let (mut from, first) = self.relation(depth);
        let mut scope = vec![first];
        let count = *self.numbers.pick(&[0, 0, 0, 1, 1, 1, 2]);
        for joined in 0..count {
            let (relation, source) = self.relation(depth);
            let join = *self.numbers.pick(&["JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", ""]);
            if join.is_empty() && joined == 0 {
                from = format!("{from} CROSS JOIN {relation}");
            } else {
                let join = if join.is_empty() { "JOIN" } else { join };
                let condition = self.join_condition(&scope, &source);
                from = format!("{from} {join} {relation} ON {condition}");
            }
            scope.push(source);
        }
        (from, scope)
    }

    fn relation(&mut self, depth: usize) -> (String, Source) {
        let alias = self.name("q");
        if depth > 0 && self.numbers.chance(12) {
            let kinds = self.kinds(3);
            let select = self.select(&kinds, &Vec::new(), depth - 1);
            return (format!("({select}) AS {alias}"), Source { alias, columns: named(&kinds) });
        }
        let table = self.numbers.pick(&self.tables).clone();
        (format!("{} AS {alias}", table.name), table.source(&alias))
    }

    /// Mostly an equality between both sides.
    fn join_condition(&mut self, left: &Scope, right: &Source) -> String {
        let right_scope = vec![right.clone()];
        for kind in [Kind::Int, Kind::Text, Kind::Date] {
            if let (Some(one), Some(other)) = (self.column(kind, left), self.column(kind, &right_scope))
                && self.numbers.chance(85)
            {
                if self.numbers.chance(20) {
                    let extra = self.predicate(&right_scope, 0);
                    return format!("{one} = {other} AND {extra}");
                }
                return format!("{one} = {other}");
            }
        }
        let mut both = left.clone();
        both.extend(right_scope);
        self.predicate(&both, 1)
    }

    fn aggregate(&mut self, kinds: &[Kind], scope: &Scope, from: &str, filter: &str) -> String {
        let (mut items, mut groups) = (Vec::new(), Vec::new());
        for (at, kind) in kinds.iter().enumerate() {
            let grouped = self.column(*kind, scope).filter(|_| self.numbers.chance(45));
            let item = match grouped {
                Some(column) => {
                    let column =
                        if *kind == Kind::Int && self.numbers.chance(30) { format!("{column} % 3") } else { column };
                    groups.push(column.clone());
                    column
                }
                None => self.aggregate_of(*kind, scope),
            };
            items.push(format!("{item} AS c{}", at + 1));
        }
        let mut sql = format!("SELECT {} FROM {from}{filter}", items.join(", "));
        if !groups.is_empty() {
            sql.push_str(&format!(" GROUP BY {}", groups.join(", ")));
            if self.numbers.chance(30) {
                let kind = *self.numbers.pick(&[Kind::Int, Kind::Text, Kind::Date]);
                let value = self.aggregate_of(kind, scope);
                let sign = *self.numbers.pick(&["<", ">", "<>", "="]);
                sql.push_str(&format!(" HAVING {value} {sign} {}", self.constant(kind)));
            }
        }
        sql
    }

    fn aggregate_of(&mut self, kind: Kind, scope: &Scope) -> String {
        let distinct = if self.numbers.chance(15) { "DISTINCT " } else { "" };
        match kind {
            Kind::Bool => format!("(COUNT(*) > {})", self.numbers.below(8)),
            Kind::Int => {
                let argument = self.expression(kind, scope, 1);
                match self.numbers.below(6) {
                    0 => "COUNT(*)".to_owned(),
                    1 => {
                        let any = *self.numbers.pick(&Kind::ALL);
                        format!("COUNT({distinct}{})", self.expression(any, scope, 1))
                    }
                    2 | 3 => format!("SUM({distinct}{argument})"),
                    4 => format!("MIN({argument})"),
                    _ => format!("MAX({argument})"),
                }
            }
            Kind::Real if self.numbers.chance(40) => format!("AVG({})", self.expression(Kind::Int, scope, 1)),
            Kind::Real if self.numbers.chance(30) => format!("SUM({})", self.expression(kind, scope, 1)),
            _ => format!("{}({})", self.numbers.pick(&["MIN", "MAX"]), self.expression(kind, scope, 1)),
        }
    }

    /// A window over one relation; orders that leave ties go only with functions that do not see them.
    fn window(&mut self, kinds: &[Kind], scope: &Scope, from: &str, filter: &str) -> String {
        let mut items = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            let kind_by = *self.numbers.pick(&Kind::ALL);
            let item = match self.column(kind_by, scope) {
                Some(by) if *kind == Kind::Int => {
                    let (argument, order) =
                        (self.expression(Kind::Int, scope, 0), self.expression(Kind::Int, scope, 0));
                    match self.numbers.below(4) {
                        0 => format!("SUM({argument}) OVER (PARTITION BY {by})"),
                        1 => format!("COUNT(*) OVER (PARTITION BY {by})"),
                        2 => format!("RANK() OVER (PARTITION BY {by} ORDER BY {order} NULLS FIRST)"),
                        _ => format!("MAX({argument}) OVER (ORDER BY {order} DESC NULLS LAST)"),
                    }
                }
                _ => self.expression(*kind, scope, 1),
            };
            items.push(format!("{item} AS c{}", at + 1));
        }
        format!("SELECT {} FROM {from}{filter}", items.join(", "))
    }

    /// An aggregate of another table, alone or of the rows that belong to the outer one.
    pub(super) fn scalar_subquery(&mut self, outer: &Scope, depth: usize) -> String {
        let alias = self.name("q");
        let table = self.numbers.pick(&self.tables).clone();
        let inner = vec![table.source(&alias)];
        let value = self.aggregate_of(Kind::Int, &inner);
        let filter = self.correlation(&inner, outer, depth);
        format!("(SELECT {value} FROM {} AS {alias} WHERE {filter})", table.name)
    }

    fn correlation(&mut self, inner: &Scope, outer: &Scope, depth: usize) -> String {
        let own = self.predicate(inner, depth.min(1));
        match (self.column(Kind::Int, inner), self.column(Kind::Int, outer)) {
            (Some(one), Some(other)) if self.numbers.chance(60) => {
                let sign = *self.numbers.pick(&["=", "=", "=", "<", ">=", "<>"]);
                format!("{one} {sign} {other} AND {own}")
            }
            _ => own,
        }
    }

    /// IN, NOT IN, EXISTS and NOT EXISTS over another table.
    pub(super) fn subquery_predicate(&mut self, outer: &Scope, depth: usize) -> String {
        let alias = self.name("q");
        let table = self.numbers.pick(&self.tables).clone();
        let inner = vec![table.source(&alias)];
        let not = if self.numbers.chance(40) { "NOT " } else { "" };
        let filter = self.correlation(&inner, outer, depth);
        let kind = *self.numbers.pick(&[Kind::Int, Kind::Text, Kind::Date]);
        if self.numbers.chance(50)
            && let (Some(column), Some(tested)) = (self.column(kind, &inner), self.column(kind, outer))
        {
            return format!("{tested} {not}IN (SELECT {column} FROM {} AS {alias} WHERE {filter})", table.name);
        }
        format!("{not}EXISTS (SELECT 1 FROM {} AS {alias} WHERE {filter})", table.name)
    }
}

fn named(kinds: &[Kind]) -> Vec<(String, Kind)> {
    kinds.iter().enumerate().map(|(at, kind)| (format!("c{}", at + 1), *kind)).collect()
}
