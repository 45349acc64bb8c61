//! Where rows are when the queries run: in the row store, in segments, or in both.
//!
//! * `segments`: the background converts while and after the load; the queries start when nothing is left to convert.
//! * `fresh`: nothing converts; rows stay in memtables and runs.
//! * `mixed`: a seeded half of each table's parts is loaded and converted first, one in ten of those rows is then
//!   written again with the same values (so the segments have deletions and the row store the new versions), and the
//!   other half follows and stays in the row store.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use strata_sql::Engine;

use super::database::Database;
use super::generate::Table;
use super::load::{self, Portion};
use crate::progress::{Progress, Timer, note};

/// Where rows are when the queries run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Placement {
    /// All rows in Parquet segments.
    Segments,
    /// All rows in memtables and runs.
    Fresh,
    /// Half and half, with updates of converted rows.
    Mixed,
}

impl Placement {
    /// All placements.
    pub const ALL: [Placement; 3] = [Placement::Fresh, Placement::Mixed, Placement::Segments];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Placement::Segments => "segments",
            Placement::Fresh => "fresh",
            Placement::Mixed => "mixed",
        }
    }

    /// Reads a name.
    ///
    /// # Errors
    /// If there is no such placement.
    pub fn parse(name: &str) -> Result<Placement> {
        match Placement::ALL.into_iter().find(|placement| placement.name() == name) {
            Some(placement) => Ok(placement),
            None => bail!("unknown placement '{name}'"),
        }
    }
}

/// Seconds from the end of the load until rows were in segments.
#[derive(Clone, Copy, Debug)]
pub struct ConversionTimes {
    /// 99 % of the rows.
    pub most_seconds: f64,
    /// All rows.
    pub all_seconds: f64,
}

/// Loads all rows so that they end up as `placement` says, conversion of the rest left to the background.
///
/// # Errors
/// If a write, conversion or update fails.
pub fn load_placed(database: &Database, placement: Placement, scale: f64, progress: &Progress) -> Result<u64> {
    if placement != Placement::Mixed {
        return load::load(database.engine(), &load::everything(), scale, progress);
    }
    let (converted, fresh) = mixed_portions();
    let mut rows = load::load(database.engine(), &converted, scale, progress)?;
    for table in Table::ALL {
        database.engine().convert(table.name())?;
    }
    for statement in same_values_again(scale) {
        database.execute(&statement)?;
    }
    rows += load::load(database.engine(), &fresh, scale, progress)?;
    Ok(rows)
}

/// The seed of every choice made for `mixed`.
const SEED: u64 = 22;

/// Parts per table: enough that segments and runs alternate along the keys, few enough that scale 0.01 fills them.
const PARTS: i32 = 16;

/// A seeded half of each table's parts, and the other half.
fn mixed_portions() -> (Vec<Portion>, Vec<Portion>) {
    let (mut converted, mut fresh) = (Vec::new(), Vec::new());
    for (index, table) in Table::ALL.into_iter().enumerate() {
        let parts = if table.divides() { PARTS } else { 1 };
        let mut order: Vec<i32> = (1..=parts).collect();
        order.sort_by_key(|&part| scramble(SEED ^ ((index as u64) << 32) ^ u64::from(part.unsigned_abs())));
        let half = if parts == 1 { index % 2 } else { order.len() / 2 };
        let (mut first, mut second) = (order[..half].to_vec(), order[half..].to_vec());
        first.sort_unstable();
        second.sort_unstable();
        converted.extend(first.into_iter().map(|part| Portion { table, part, parts }));
        fresh.extend(second.into_iter().map(|part| Portion { table, part, parts }));
    }
    (converted, fresh)
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn scramble(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// UPDATEs that write one row in ten again as it is, each of at most about 300,000 rows.
fn same_values_again(scale: f64) -> Vec<String> {
    let residue = SEED % 10;
    let one_in_ten = |table: &str, column: &str, key: &str, condition: &str| {
        format!("update {table} set {column} = {column} where ({key}) % 10 = {residue}{condition}")
    };
    let mut statements = vec![
        one_in_ten("region", "r_comment", "r_regionkey", ""),
        one_in_ten("nation", "n_comment", "n_nationkey", ""),
    ];
    // Order keys reach 6,000,000 at scale 1; every stretch of them is one transaction of bounded size.
    let stretches = scale.ceil() as u64;
    for (table, column, key, key_max) in [
        ("supplier", "s_comment", "s_suppkey", 10_000.0),
        ("part", "p_comment", "p_partkey", 200_000.0),
        ("partsupp", "ps_comment", "ps_partkey + ps_suppkey", 200_000.0),
        ("customer", "c_comment", "c_custkey", 150_000.0),
        ("orders", "o_comment", "o_orderkey", 6_000_000.0),
        ("lineitem", "l_comment", "l_orderkey + l_linenumber", 6_000_000.0),
    ] {
        let (first_column, _) = key.split_once(' ').unwrap_or((key, ""));
        for stretch in 0..stretches {
            let bound = |number: u64| (key_max * scale * number as f64 / stretches as f64) as u64;
            let (from, to) = (bound(stretch), bound(stretch + 1));
            let condition = format!(" and {first_column} > {from} and {first_column} <= {to}");
            statements.push(one_in_ten(table, column, key, &condition));
        }
    }
    statements
}

/// Waits until the background has converted everything, and says how long after the start of `since` that was.
///
/// If the background rests before it is done, the rest is converted by `CALL strata.convert`.
///
/// # Errors
/// If a conversion fails.
pub fn wait_for_segments(engine: &Engine, rows: u64, since: &Timer) -> Result<ConversionTimes> {
    const PAUSE: Duration = Duration::from_millis(50);
    const REST_SECONDS_MAX: f64 = 10.0;
    let progress = Progress::start("converting", rows);
    let (mut most_seconds, mut left_before, mut moved) = (None, u64::MAX, Timer::start());
    loop {
        let left = rows_outside_segments(engine)?;
        progress.set(rows.saturating_sub(left));
        if left * 100 <= rows && most_seconds.is_none() {
            most_seconds = Some(since.seconds());
        }
        if left == 0 {
            break;
        }
        if left != left_before {
            (left_before, moved) = (left, Timer::start());
        } else if moved.seconds() > REST_SECONDS_MAX {
            note("the background rests; converting what is left");
            for table in Table::ALL {
                engine.convert(table.name())?;
            }
            let left = rows_outside_segments(engine)?;
            ensure!(left == 0, "{left} rows are still outside segments after CALL strata.convert");
        }
        std::thread::sleep(PAUSE);
    }
    let all_seconds = since.seconds();
    progress.clear();
    Ok(ConversionTimes { most_seconds: most_seconds.unwrap_or(all_seconds), all_seconds })
}

/// Row versions of the eight tables in memtables and runs.
fn rows_outside_segments(engine: &Engine) -> Result<u64> {
    let snapshot = engine.db().snapshot();
    let mut rows = 0;
    for table in Table::ALL {
        let id = engine.table_id(table.name())?;
        rows += snapshot.view().rows(id).map_or(0, |table| table.entry_count());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_takes_half_of_each_table_once() {
        let (converted, fresh) = mixed_portions();
        for table in Table::ALL.into_iter().filter(|table| table.divides()) {
            let parts = |portions: &[Portion]| {
                portions.iter().filter(|portion| portion.table == table).map(|portion| portion.part).collect::<Vec<_>>()
            };
            let (converted, fresh) = (parts(&converted), parts(&fresh));
            assert_eq!((converted.len(), fresh.len()), (8, 8));
            let mut all = [converted.clone(), fresh].concat();
            all.sort_unstable();
            assert_eq!(all, (1..=16).collect::<Vec<_>>());
            assert!(converted != (1..=8).collect::<Vec<_>>(), "the choice is a seeded one");
        }
    }

    #[test]
    fn updates_cover_each_key_once() {
        let statements = same_values_again(2.5);
        assert_eq!(statements.len(), 2 + 6 * 3);
        assert!(
            statements.last().is_some_and(|last| last.contains("l_orderkey > 10000000 and l_orderkey <= 15000000"))
        );
    }
}
