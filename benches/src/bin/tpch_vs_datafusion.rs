//! TPC-H over Strata's segments against plain DataFusion over Parquet files, interleaved in one process.
//!
//! Both run the same DataFusion version with the same session settings on the same threads. For each query and round,
//! four runs follow one another: Strata with every cache of the engine emptied before (`cold`), plain DataFusion over
//! the files of `tpchgen-cli`, Strata a second time, which fills its column cache (`filling`: it keeps what it reads
//! twice), and a third time (`warm`). The first two change places every round, so that neither profits from the other's
//! order. The files of both lie in the page cache after the first round. Answers
//! are compared with one another. DataFusion keeps the caches it has: file metadata is read once, outside the times.
//!
//! ```text
//! strata tpch --scale 1 --dir target/tpch-sf1
//! tpchgen-cli parquet -s 1 -o target/tpch-sf1-parquet
//! cargo run --release -p strata-benches --bin tpch_vs_datafusion -- \
//!     --strata target/tpch-sf1 --parquet target/tpch-sf1-parquet
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde_json::{Value, json};
use strata_benches::{geometric_mean, median, provenance, rounded};
use strata_cli::files;
use strata_cli::progress::{Timer, note};
use strata_cli::tpch::answers::Answer;
use strata_cli::tpch::generate::Table;
use strata_cli::tpch::queries::{QueryId, parse_query_list};
use strata_cli::tpch::verify;
use strata_sql::{Engine, EngineOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Directory loaded by `strata tpch --placement segments`
    #[arg(long)]
    strata: PathBuf,
    /// Directory with the Parquet files of tpchgen-cli
    #[arg(long)]
    parquet: PathBuf,
    /// Their scale
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Which queries
    #[arg(long, default_value = "1-22")]
    queries: String,
    /// Where the numbers go
    #[arg(long, default_value = "benches/results/tpch_vs_datafusion.json")]
    out: PathBuf,
}

/// Milliseconds of one query, a value per round.
struct Times {
    query: QueryId,
    strata_cold: Vec<f64>,
    strata_filling: Vec<f64>,
    strata_warm: Vec<f64>,
    datafusion: Vec<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let queries = parse_query_list(&args.queries)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let engine = Engine::open(&args.strata, EngineOptions::default())?;
    let all = runtime.block_on(async {
        let peer = plain_datafusion(&engine, &args.parquet).await?;
        let mut all: Vec<Times> = queries.iter().map(|&query| Times::new(query)).collect();
        for round in 0..args.runs {
            for times in &mut all {
                let sql = times.query.sql(args.scale);
                times
                    .round(&engine, &peer, &sql, round)
                    .await
                    .with_context(|| format!("query {}", times.query.number()))?;
            }
            note(&format!("round {} of {}", round + 1, args.runs));
        }
        anyhow::Ok(all)
    })?;
    engine.close()?;
    let result = summary(&all, &args);
    print(&all, &result);
    if let Some(folder) = args.out.parent() {
        files::create_folder(folder)?;
    }
    files::write_text(&args.out, &format!("{result:#}\n"))
}

impl Times {
    fn new(query: QueryId) -> Times {
        let (strata_cold, strata_filling, strata_warm, datafusion) = Default::default();
        Times { query, strata_cold, strata_filling, strata_warm, datafusion }
    }

    async fn round(&mut self, engine: &Engine, peer: &SessionContext, sql: &str, round: usize) -> Result<()> {
        let strata_first = round.is_multiple_of(2);
        // Averages have more digits here than there.
        let like = verify::smallest(self.query)?;
        let mut theirs = None;
        if !strata_first {
            theirs = Some(run_datafusion(peer, sql, &like).await?);
        }
        empty_caches(engine);
        let (cold_ms, ours) = run_strata(engine, sql, &like).await?;
        let (datafusion_ms, theirs) = match theirs {
            Some(theirs) => theirs,
            None => run_datafusion(peer, sql, &like).await?,
        };
        let (filling_ms, second) = run_strata(engine, sql, &like).await?;
        let (warm_ms, third) = run_strata(engine, sql, &like).await?;
        self.strata_cold.push(cold_ms);
        self.strata_filling.push(filling_ms);
        self.strata_warm.push(warm_ms);
        self.datafusion.push(datafusion_ms);
        theirs.check(&ours, self.query).context("Strata and DataFusion disagree")?;
        theirs.check(&second, self.query).context("Strata and DataFusion disagree on the second run")?;
        theirs.check(&third, self.query).context("Strata and DataFusion disagree on the warm run")
    }
}

/// Plain DataFusion with Strata's session settings over `dir/<table>.parquet`.
async fn plain_datafusion(engine: &Engine, dir: &Path) -> Result<SessionContext> {
    let config = engine.session_context().copied_config().with_create_default_catalog_and_schema(true);
    let context = SessionContext::new_with_config(config);
    for table in Table::ALL {
        let path = dir.join(format!("{}.parquet", table.name()));
        let path = path.to_str().context("the path is not UTF-8")?;
        context.register_parquet(table.name(), path, ParquetReadOptions::default()).await?;
    }
    Ok(context)
}

/// Empties every cache of the engine; the operating system's stays, as it does for the peer.
fn empty_caches(engine: &Engine) {
    engine.store().cache().clear();
    engine.db().block_cache().clear();
}

async fn run_strata(engine: &Engine, sql: &str, like: &Answer) -> Result<(f64, Answer)> {
    let mut session = engine.session();
    let timer = Timer::start();
    let rows = session.query(sql).await?;
    let schema = rows.schema().clone();
    let batches = rows.collect().await?;
    let milliseconds = timer.seconds() * 1000.0;
    Ok((milliseconds, Answer::from_batches(&schema, &batches, Some(like))?))
}

async fn run_datafusion(context: &SessionContext, sql: &str, like: &Answer) -> Result<(f64, Answer)> {
    let timer = Timer::start();
    let frame = context.sql(sql).await?;
    let schema = frame.schema().as_arrow().clone();
    let batches = frame.collect().await?;
    let milliseconds = timer.seconds() * 1000.0;
    Ok((milliseconds, Answer::from_batches(&schema, &batches, Some(like))?))
}

fn summary(all: &[Times], args: &Args) -> Value {
    let medians = |pick: fn(&Times) -> &Vec<f64>| all.iter().map(|times| median(pick(times))).collect::<Vec<_>>();
    let cold = medians(|times| &times.strata_cold);
    let filling = medians(|times| &times.strata_filling);
    let warm = medians(|times| &times.strata_warm);
    let peer = medians(|times| &times.datafusion);
    let figures = |values: &[f64]| {
        let total: f64 = values.iter().sum();
        json!({
            "total_ms": rounded(total),
            "geomean_ms": rounded(geometric_mean(values)),
            "total_ratio": rounded(total / peer.iter().sum::<f64>()),
            "geomean_ratio": rounded(geometric_mean(values) / geometric_mean(&peer)),
        })
    };
    let queries: Vec<_> = all
        .iter()
        .map(|times| {
            json!({
                "id": times.query.number(),
                "strata_cold_ms": times.strata_cold.iter().copied().map(rounded).collect::<Vec<_>>(),
                "strata_filling_ms": times.strata_filling.iter().copied().map(rounded).collect::<Vec<_>>(),
                "strata_warm_ms": times.strata_warm.iter().copied().map(rounded).collect::<Vec<_>>(),
                "datafusion_ms": times.datafusion.iter().copied().map(rounded).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "run": provenance(),
        "scale": args.scale,
        "rounds": args.runs,
        "datafusion_version": datafusion::DATAFUSION_VERSION,
        "strata_cold": figures(&cold),
        "strata_filling": figures(&filling),
        "strata_warm": figures(&warm),
        "datafusion": figures(&peer),
        "queries": queries,
    })
}

fn print(all: &[Times], result: &Value) {
    let heads = ["query", "cold ms", "filling ms", "warm ms", "peer ms", "cold ratio", "warm ratio"];
    println!("{}", heads.map(|head| format!("{head:>10}")).join("  "));
    for times in all {
        let peer = median(&times.datafusion);
        let (cold, warm) = (median(&times.strata_cold), median(&times.strata_warm));
        let figures = [cold, median(&times.strata_filling), warm, peer];
        let cells = figures.map(|figure| format!("{figure:>10.1}")).join("  ");
        println!("{:>10}  {cells}  {:>10.2}  {:>10.2}", times.query.number(), cold / peer, warm / peer);
    }
    for name in ["strata_cold", "strata_filling", "strata_warm", "datafusion"] {
        println!("{name}: {}", result[name]);
    }
}
