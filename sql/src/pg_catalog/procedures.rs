//! `pg_proc`: functions, under PostgreSQL's numbers.
//!
//! `proc.tsv` has the rows of `pg_proc` in PostgreSQL 15 of every function that there is here under the same name, as far
//! as there are types for its arguments and its result, and of the functions that types name: number, name, kind,
//! volatility, strict, returns a set, result, arguments, type of variadic ones, number of defaults, names. Which of several
//! functions of one name is taken the planner decides by its own rules.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::oids::OWNER;
use super::sheet::{Cell, Columns, Kind, Sheet};
use super::types;

/// One line of the file.
pub(super) struct Procedure {
    pub oid: i64,
    pub name: &'static str,
    /// `f`, `a` for aggregates, `w` for window functions.
    pub kind: &'static str,
    pub volatility: &'static str,
    is_strict: bool,
    returns_set: bool,
    pub result: i64,
    arguments: Vec<i64>,
    variadic: i64,
    default_count: i64,
    argument_names: Vec<String>,
}

impl Procedure {
    fn read(line: &'static str) -> Option<Procedure> {
        let cells: Vec<&'static str> = line.split('\t').collect();
        let number = |at: usize| cells.get(at)?.parse::<i64>().ok();
        Some(Procedure {
            oid: number(0)?,
            name: cells[1],
            kind: cells[2],
            volatility: cells[3],
            is_strict: cells[4] == "t",
            returns_set: cells[5] == "t",
            result: number(6)?,
            arguments: cells[7].split(' ').filter_map(|cell| cell.parse().ok()).collect(),
            variadic: number(8)?,
            default_count: number(9)?,
            argument_names: cells[10].split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        })
    }
}

static ALL: LazyLock<Vec<Procedure>> =
    LazyLock::new(|| include_str!("proc.tsv").lines().filter_map(Procedure::read).collect());
static BY_OID: LazyLock<HashMap<i64, &'static Procedure>> =
    LazyLock::new(|| ALL.iter().map(|procedure| (procedure.oid, procedure)).collect());

/// Every function.
pub(super) fn all() -> impl Iterator<Item = &'static Procedure> {
    ALL.iter()
}

/// The function of a number.
pub(super) fn find(oid: i64) -> Option<&'static Procedure> {
    BY_OID.get(&oid).copied()
}

/// The number of the one function of a name; `None` if there is none, or more than one.
pub(super) fn oid(name: &str) -> Option<i64> {
    let mut found = ALL.iter().filter(|procedure| procedure.name == name);
    match (found.next(), found.next()) {
        (Some(only), None) => Some(only.oid),
        _ => None,
    }
}

/// `pg_get_function_result`.
pub(super) fn result(oid: i64) -> Option<String> {
    let procedure = find(oid)?;
    let name = types::name(procedure.result, None);
    Some(if procedure.returns_set { format!("SETOF {name}") } else { name })
}

/// `pg_get_function_arguments`.
pub(super) fn arguments(oid: i64) -> Option<String> {
    let procedure = find(oid)?;
    let argument = |(at, ty): (usize, &i64)| {
        let name = types::name(*ty, None);
        let is_variadic = procedure.variadic != 0 && at + 1 == procedure.arguments.len();
        match procedure.argument_names.get(at) {
            Some(given) if is_variadic => format!("VARIADIC {given} {name}"),
            Some(given) => format!("{given} {name}"),
            None if is_variadic => format!("VARIADIC {name}"),
            None => name,
        }
    };
    Some(procedure.arguments.iter().enumerate().map(argument).collect::<Vec<_>>().join(", "))
}

const COLUMNS: Columns = &[
    ("oid", Kind::Oid),
    ("proname", Kind::Text),
    ("pronamespace", Kind::Oid),
    ("proowner", Kind::Oid),
    ("prolang", Kind::Oid),
    ("procost", Kind::Real),
    ("prorows", Kind::Real),
    ("provariadic", Kind::Oid),
    ("prosupport", Kind::Oid),
    ("prokind", Kind::Text),
    ("prosecdef", Kind::Bool),
    ("proleakproof", Kind::Bool),
    ("proisstrict", Kind::Bool),
    ("proretset", Kind::Bool),
    ("provolatile", Kind::Text),
    ("proparallel", Kind::Text),
    ("pronargs", Kind::Int2),
    ("pronargdefaults", Kind::Int2),
    ("prorettype", Kind::Oid),
    ("proargtypes", Kind::Oids),
    ("proallargtypes", Kind::Oids),
    ("proargmodes", Kind::Texts),
    ("proargnames", Kind::Texts),
    ("proargdefaults", Kind::Text),
    ("protrftypes", Kind::Oids),
    ("prosrc", Kind::Text),
    ("probin", Kind::Text),
    ("prosqlbody", Kind::Text),
    ("proconfig", Kind::Texts),
    ("proacl", Kind::Texts),
];

/// `pg_proc`.
pub(super) fn procedures() -> Sheet {
    let mut sheet = Sheet::new(COLUMNS);
    for procedure in ALL.iter() {
        let names = &procedure.argument_names;
        let names = if names.is_empty() { Cell::Null } else { Cell::Texts(names.clone()) };
        let mut row: Vec<Cell> = vec![
            procedure.oid.into(),
            procedure.name.into(),
            11.into(),
            OWNER.into(),
            12.into(),
            1.into(),
            (if procedure.returns_set { 1000 } else { 0 }).into(),
            procedure.variadic.into(),
            0.into(),
            procedure.kind.into(),
            false.into(),
            false.into(),
            procedure.is_strict.into(),
            procedure.returns_set.into(),
            procedure.volatility.into(),
            "s".into(),
            (procedure.arguments.len() as i64).into(),
            procedure.default_count.into(),
            procedure.result.into(),
            procedure.arguments.clone().into(),
        ];
        row.extend([Cell::Null, Cell::Null, names, Cell::Null, Cell::Null, procedure.name.into()]);
        row.extend([Cell::Null, Cell::Null, Cell::Null, Cell::Null]);
        sheet.push(row);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_overloads_have_no_number() {
        assert_eq!(ALL.len(), include_str!("proc.tsv").lines().count());
        assert_eq!((oid("array_in"), oid("lower"), oid("nothing")), (Some(750), Some(870), None));
        assert_eq!(oid("length"), None);
        assert_eq!(result(870).as_deref(), Some("text"));
        assert_eq!(arguments(383).as_deref(), Some("anycompatiblearray, anycompatiblearray"));
    }
}
