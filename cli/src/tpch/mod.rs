//! The main job: `strata tpch`.
//!
//! 1. [`generate`] makes TPC-H rows in process; [`load`] writes them through durable transactions;
//! 2. [`placement`] sees to it that they are where `--placement` says;
//! 3. [`measure`] runs the 22 [`queries`]; [`answers`] tells right from wrong;
//! 4. [`report`] prints a table and writes JSON.
//!
//! [`database`] remembers in the directory itself how far a load got. Scales without stored answers are checked by
//! running all three placements and comparing them with one another ([`verify`]).

pub mod answers;
pub mod database;
pub mod generate;
pub mod load;
pub mod measure;
pub mod placement;
pub mod queries;
pub mod report;
pub mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::files::{self, TemporaryFolder};
use crate::progress::{Progress, Timer, bytes_text, grouped, note};
use database::{Database, Load, State};
use generate::Table;
use measure::Verdict;
use placement::ConversionTimes;
pub use placement::Placement;
use queries::QueryId;
use report::Report;

/// What `strata tpch` was asked for.
#[derive(Clone, Debug)]
pub struct TpchOptions {
    /// Scale factor, above 0.
    pub scale: f64,
    /// Where the database lies; by default `./strata-tpch-sf…`.
    pub dir: Option<PathBuf>,
    /// Which queries.
    pub queries: Vec<QueryId>,
    /// How often each, at least once.
    pub runs: usize,
    /// Where rows should be.
    pub placement: Placement,
    /// Where to write JSON.
    pub json: Option<PathBuf>,
    /// The memory budget of the engine.
    pub memory_bytes: u64,
    /// Whether to apply `data/tpch/changes.sql` after the load.
    pub changes: bool,
    /// Whether scales without stored answers are checked by comparing placements.
    pub compare_placements: bool,
}

/// Does the main job and returns whether no answer was wrong.
///
/// # Errors
/// If the directory cannot be used, or a write or query fails.
pub fn run(options: &TpchOptions) -> Result<bool> {
    ensure!(options.scale.is_finite() && options.scale > 0.0, "the scale must be above 0");
    ensure!(
        generate::has_unique_keys(options.scale),
        "at scale {} TPC-H gives some parts a supplier twice, so partsupp has no primary key; use 0.01, 0.02, 0.1, 1 or more",
        options.scale
    );
    ensure!(options.runs > 0, "each query must run at least once");
    let dir = options.dir.clone().unwrap_or_else(|| default_dir(options));
    let expected = verify::expected(options, &dir)?;

    let database = Database::open(&dir, options.placement, options.memory_bytes)?;
    let prepared = prepare(&database, options)?;
    let bytes_on_disk = checkpoint_bytes(&database)?;
    note(&format!("{} on disk in {}", bytes_text(bytes_on_disk), dir.display()));
    let queries = measure::run_queries(&database, &options.queries, options.scale, options.runs, expected.as_deref())?;
    let report = Report {
        scale: options.scale,
        placement: options.placement,
        changed: options.changes,
        reused: prepared.reused,
        row_count: prepared.load.row_count,
        load_seconds: prepared.load.load_seconds,
        conversion: prepared.conversion,
        bytes_on_disk,
        peak_memory_bytes: files::peak_memory_bytes(),
        queries,
    };
    database.close()?;
    print(&report);
    if let Some(path) = &options.json {
        files::write_text(path, &format!("{:#}\n", report.json()))?;
    }
    Ok(!report.queries.iter().any(|query| matches!(query.verdict, Verdict::Wrong(_))))
}

/// A directory whose rows are in place.
pub(crate) struct Prepared {
    load: Load,
    reused: bool,
    conversion: Option<ConversionTimes>,
}

/// Loads what is not there yet, applies the changes, and waits for the placement.
pub(crate) fn prepare(database: &Database, options: &TpchOptions) -> Result<Prepared> {
    let found = database.load_state()?;
    let reusable = match &found {
        Some(load) => is_reusable(load, options, database.dir())?,
        None => false,
    };
    let (mut load, conversion) = match found {
        Some(load) if reusable => {
            note(&format!("using the {} rows already in {}", grouped(load.row_count), database.dir().display()));
            (load, None)
        }
        _ => load_rows(database, options)?,
    };
    if options.changes && load.state == State::Loaded {
        apply_changes(database, &mut load)?;
    }
    if options.placement == Placement::Segments {
        placement::wait_for_segments(database.engine(), load.row_count, &Timer::start())?;
    }
    if load.placement != options.placement {
        load.placement = options.placement;
        database.store_load_state(&load)?;
    }
    Ok(Prepared { load, reused: reusable, conversion })
}

/// Whether the rows of an earlier run serve this one; an unfinished load does not, and is loaded again.
fn is_reusable(load: &Load, options: &TpchOptions, dir: &Path) -> Result<bool> {
    let dir = dir.display();
    if matches!(load.state, State::Loading | State::Changing) {
        note(&format!("an earlier load of {dir} did not finish; loading again"));
        return Ok(false);
    }
    if load.scale.to_bits() != options.scale.to_bits() {
        bail!("{dir} holds scale {}, not {}; give another --dir", load.scale, options.scale);
    }
    if load.state == State::Changed && !options.changes {
        bail!("the rows of {dir} were changed by --changes; add --changes or give another --dir");
    }
    if load.placement != options.placement && options.placement != Placement::Segments {
        let (is, wanted) = (load.placement.name(), options.placement.name());
        bail!("the rows of {dir} are placed '{is}' and cannot become '{wanted}'; give another --dir");
    }
    Ok(true)
}

fn load_rows(database: &Database, options: &TpchOptions) -> Result<(Load, Option<ConversionTimes>)> {
    let (scale, placement) = (options.scale, options.placement);
    let mut load = Load { scale, placement, state: State::Loading, row_count: 0, load_seconds: 0.0 };
    database.store_load_state(&load)?;
    database.create_tables()?;
    generate::warm_up();
    let estimate = Table::ALL.iter().map(|table| table.rows_estimate(scale)).sum();
    let progress = Progress::start(&format!("loading scale {scale}"), estimate);
    let timer = Timer::start();
    load.row_count = placement::load_placed(database, placement, scale, &progress)?;
    load.load_seconds = timer.seconds();
    let since_load = Timer::start();
    progress.finish(&format!(
        "loaded {} rows in {:.1} s, all durable: {} rows/s",
        grouped(load.row_count),
        load.load_seconds,
        grouped((load.row_count as f64 / load.load_seconds.max(1e-9)) as u64)
    ));
    load.state = State::Loaded;
    database.store_load_state(&load)?;
    if placement != Placement::Segments {
        return Ok((load, None));
    }
    let times = placement::wait_for_segments(database.engine(), load.row_count, &since_load)?;
    note(&format!(
        "99 % of the rows were in segments {:.1} s after the load, all after {:.1} s",
        times.most_seconds, times.all_seconds
    ));
    Ok((load, Some(times)))
}

fn apply_changes(database: &Database, load: &mut Load) -> Result<()> {
    load.state = State::Changing;
    database.store_load_state(load)?;
    let timer = Timer::start();
    database.execute(queries::CHANGES)?;
    note(&format!("updated every fifth order and deleted every seventh in {:.1} s", timer.seconds()));
    load.state = State::Changed;
    database.store_load_state(load)
}

/// Size of a checkpoint: what the database needs on disk, spare WAL files left out. The checkpoint's files are links,
/// so that taking it costs little and no space; it is removed again.
fn checkpoint_bytes(database: &Database) -> Result<u64> {
    let dest = beside(database.dir(), &format!("checkpoint-{}", std::process::id()));
    let _folder = TemporaryFolder::claim(&dest)?;
    database.engine().checkpoint(&dest)?;
    files::folder_bytes(&dest)
}

/// `DIR.suffix`, next to the database.
pub(crate) fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or(dir.as_os_str()).to_os_string();
    name.push(".");
    name.push(suffix);
    dir.with_file_name(name)
}

/// `./strata-tpch-sf1`, with the placement and the changes in its name where they are not the usual ones.
fn default_dir(options: &TpchOptions) -> PathBuf {
    let mut name = format!("strata-tpch-sf{}", options.scale);
    if options.placement != Placement::Segments {
        name.push('-');
        name.push_str(options.placement.name());
    }
    if options.changes {
        name.push_str("-changed");
    }
    PathBuf::from(name)
}

fn print(report: &Report) {
    println!("{}", report.table());
}

#[cfg(test)]
pub(crate) use verify::stored_answers;
