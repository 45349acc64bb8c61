//! EXPLAIN with options in parentheses, and its form in JSON.
//!
//! `TEXT` is DataFusion's own: the logical and the physical plan, with metrics if they are asked for. `JSON` is one row
//! with the tree of the physical plan: what each operator is, how many rows were expected of it and, with ANALYZE, what it
//! measured. Scans say where rows came from (`memtable_rows`, `run_rows`, `segment_rows`, `key_rows`) and what planning left
//! out (`segments_pruned_by_plan`, `row_groups_pruned_by_plan`).

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::sql::sqlparser::ast;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::error::{Error, Result, SqlState};
use crate::statement::identifier;

/// What PostgreSQL has and what changes nothing here.
const IGNORED: [&str; 6] = ["costs", "buffers", "timing", "summary", "settings", "wal"];

/// What an EXPLAIN asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub analyze: bool,
    pub verbose: bool,
    pub json: bool,
}

/// Reads the options of an EXPLAIN and puts those that DataFusion knows where it looks for them.
///
/// # Errors
/// 42601 for options that do not exist, 0A000 for other formats.
pub(super) fn take_options(explain: &mut ast::Statement) -> Result<Wanted> {
    let ast::Statement::Explain { analyze, verbose, format, options, .. } = explain else {
        return Ok(Wanted::default());
    };
    let mut wanted = Wanted { analyze: *analyze, verbose: *verbose, json: false };
    let is_json = |kind: &ast::AnalyzeFormatKind| {
        let (ast::AnalyzeFormatKind::Keyword(format) | ast::AnalyzeFormatKind::Assignment(format)) = kind;
        *format == ast::AnalyzeFormat::JSON
    };
    if format.as_ref().is_some_and(is_json) {
        (wanted.json, *format) = (true, None);
    }
    for option in options.take().into_iter().flatten() {
        let name = identifier(&option.name).to_lowercase();
        match name.as_str() {
            "analyze" | "analyse" => wanted.analyze = is_on(&option)?,
            "verbose" => wanted.verbose = is_on(&option)?,
            "format" => match argument(&option).as_deref() {
                Some("text") => wanted.json = false,
                Some("json") => wanted.json = true,
                _ => return Err(Error::unsupported(option).with_hint("the formats are TEXT and JSON")),
            },
            known if IGNORED.contains(&known) => {}
            _ => {
                return Err(Error::new(SqlState::Syntax, format!("option {name} of EXPLAIN does not exist"))
                    .with_hint("the options are ANALYZE, VERBOSE and FORMAT"));
            }
        }
    }
    (*analyze, *verbose) = (wanted.analyze, wanted.verbose);
    Ok(wanted)
}

fn argument(option: &ast::UtilityOption) -> Option<String> {
    option.arg.as_ref().map(|arg| arg.to_string().trim_matches('\'').to_lowercase())
}

fn is_on(option: &ast::UtilityOption) -> Result<bool> {
    match argument(option).as_deref() {
        None | Some("true" | "on" | "1") => Ok(true),
        Some("false" | "off" | "0") => Ok(false),
        Some(_) => Err(Error::new(SqlState::Syntax, format!("option {option} of EXPLAIN is on or off"))),
    }
}

/// The plan as JSON; `began` is when it was started, if it was run.
///
/// # Errors
/// None that depends on the query.
pub(super) fn tree(plan: &Arc<dyn ExecutionPlan>, wanted: Wanted, began: Option<Instant>) -> Result<String> {
    let mut whole = Map::new();
    whole.insert("Plan".to_owned(), node(plan.as_ref(), wanted));
    if let Some(began) = began {
        whole.insert("Execution Time".to_owned(), json!(began.elapsed().as_secs_f64() * 1000.0));
    }
    let list = Value::Array(vec![Value::Object(whole)]);
    serde_json::to_string_pretty(&list).map_err(|error| Error::internal(format!("a plan that is no JSON: {error}")))
}

fn node(plan: &dyn ExecutionPlan, wanted: Wanted) -> Value {
    let mut shown = Map::new();
    let name = plan.name();
    shown.insert("Node Type".to_owned(), json!(name));
    let line = displayable(plan).one_line().to_string();
    let details = line.trim().strip_prefix(name).unwrap_or(line.trim()).trim_start_matches(':').trim();
    if !details.is_empty() {
        shown.insert("Details".to_owned(), json!(details));
    }
    if let Ok(statistics) = StatisticsContext::new().compute(plan, &StatisticsArgs::new()) {
        match statistics.num_rows {
            Precision::Exact(rows) | Precision::Inexact(rows) => {
                shown.insert("Plan Rows".to_owned(), json!(rows));
            }
            Precision::Absent => {}
        }
    }
    if wanted.verbose {
        let schema = plan.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        shown.insert("Output".to_owned(), json!(names));
    }
    if wanted.analyze
        && let Some(metrics) = plan.metrics()
    {
        let metrics = metrics.aggregate_by_name();
        if let Some(rows) = metrics.output_rows() {
            shown.insert("Actual Rows".to_owned(), json!(rows));
        }
        let measured = |metric: &Arc<datafusion::physical_plan::metrics::Metric>| {
            let value = metric.value();
            (value.name().to_owned(), json!(value.as_usize()))
        };
        shown.insert("Metrics".to_owned(), Value::Object(metrics.iter().map(measured).collect()));
    }
    let children: Vec<Value> = plan.children().into_iter().map(|child| node(child.as_ref(), wanted)).collect();
    if !children.is_empty() {
        shown.insert("Plans".to_owned(), Value::Array(children));
    }
    Value::Object(shown)
}
