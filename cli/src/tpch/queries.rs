//! The 22 queries, the schema and the changes, embedded so that the binary works from any directory.
//!
//! The texts lie in `data/tpch/`; nothing here changes them except that `:fraction` of Q11 gets its value.

use anyhow::{Context, Result, ensure};

/// Path of a file under `data/tpch`, for `include_str!`.
macro_rules! tpch_file {
    ($($path:literal),+) => { include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/tpch/", $($path),+)) };
}

/// The 22 files `q01` … `q22` of a folder under `data/tpch`.
macro_rules! tpch_files {
    ($folder:literal, $extension:literal) => {
        tpch_files!(@ $folder $extension "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11" "12" "13" "14"
            "15" "16" "17" "18" "19" "20" "21" "22")
    };
    (@ $folder:literal $extension:literal $($number:literal)+) => {
        [$(tpch_file!($folder, "/q", $number, ".", $extension)),+]
    };
}

pub(crate) use {tpch_file, tpch_files};

/// CREATE TABLE for the eight tables, with primary keys.
pub const SCHEMA: &str = tpch_file!("schema.sql");

/// Updates of every fifth order and deletes of every seventh, with their lines.
pub const CHANGES: &str = tpch_file!("changes.sql");

const QUERIES: [&str; 22] = tpch_files!("queries", "sql");

/// A query's number, 1 to 22.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryId(u8);

impl QueryId {
    /// All queries in order.
    pub fn all() -> impl Iterator<Item = QueryId> {
        (1..=22).map(QueryId)
    }

    /// The number as in the specification.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Index into arrays of 22.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0) - 1
    }

    /// The statement for a database of this scale.
    #[must_use]
    pub fn sql(self, scale: f64) -> String {
        QUERIES[self.index()].replace(":fraction", &fraction(scale))
    }

    /// The columns of ORDER BY as (index in the result, descending), most significant first.
    #[must_use]
    pub fn order_by(self) -> &'static [(usize, bool)] {
        match self.0 {
            1 => &[(0, false), (1, false)],
            2 => &[(0, true), (2, false), (1, false), (3, false)],
            3 => &[(1, true), (2, false)],
            5 | 11 => &[(1, true)],
            7 => &[(0, false), (1, false), (2, false)],
            9 => &[(0, false), (1, true)],
            10 => &[(2, true)],
            13 => &[(1, true), (0, true)],
            16 => &[(3, true), (0, false), (1, false), (2, false)],
            18 => &[(4, true), (3, false)],
            21 => &[(1, true), (0, false)],
            6 | 14 | 17 | 19 => &[],
            _ => &[(0, false)],
        }
    }
}

/// 0.0001 / scale as a plain decimal number, exact for every scale with at most five digits.
fn fraction(scale: f64) -> String {
    let text = format!("{:.12}", 0.0001 / scale);
    text.trim_end_matches('0').to_string()
}

/// Reads a list like `1,6,14-16`.
///
/// # Errors
/// Names the piece that is not a query number.
pub fn parse_query_list(list: &str) -> Result<Vec<QueryId>> {
    let mut queries = Vec::new();
    for piece in list.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        let number = |text: &str| text.trim().trim_start_matches(['q', 'Q']).parse::<u8>();
        let (first, last) = number(first)
            .and_then(|first| Ok((first, number(last)?)))
            .with_context(|| format!("'{piece}' is not a query number or a range of them"))?;
        ensure!(
            (1..=22).contains(&first) && first <= last && last <= 22,
            "queries are numbered 1 to 22, not '{piece}'"
        );
        queries.extend((first..=last).map(QueryId));
    }
    ensure!(!queries.is_empty(), "the list of queries is empty");
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fraction_scales() {
        assert_eq!(fraction(1.0), "0.0001");
        assert_eq!(fraction(0.01), "0.01");
        assert_eq!(fraction(10.0), "0.00001");
        assert_eq!(fraction(100.0), "0.000001");
        assert!(QueryId(11).sql(0.01).contains("* 0.01\n"));
    }

    #[test]
    fn lists_of_queries() {
        let numbers = |list| parse_query_list(list).unwrap().into_iter().map(QueryId::number).collect::<Vec<_>>();
        assert_eq!(numbers("1, 6,14-16"), [1, 6, 14, 15, 16]);
        assert_eq!(numbers("q22"), [22]);
        for bad in ["0", "23", "x", "6-2", "", "1,,y"] {
            assert!(parse_query_list(bad).is_err(), "{bad}");
        }
    }
}
