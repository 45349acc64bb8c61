//! Expressions that mean what they mean in PostgreSQL where DataFusion differs: overflow, division, casts, dates.
//!
//! ```text
//! SQL text ──► spelling ──► DataFusion's planner ──► literals ──► type coercion ──► semantics ──► optimizer
//!               (AST)        └ operators               (before)                       (after)
//! ```
//!
//! * [`spelling`]: what the planner cannot read is said in other words: `~x`, `mod(a, b)`, `INTERVAL '1 day 02:03'`.
//! * [`operators`]: operators whose types DataFusion would get wrong: intervals times numbers, constants of unknown type.
//! * [`literals`]: a whole number that fits is an INTEGER; constants take the type of what they are compared with.
//! * [`arrays`]: arrays, their operators and functions.
//! * [`semantics`]: after coercion, when all types are known: checked arithmetic, exact division, casts.
//! * [`sorting`]: what intervals and arrays are sorted and grouped by.
//! * [`laziness`]: what may fail is not computed for rows that a filter leaves out.
//!
//! Always true: a comparison of a column with a constant stays one, because zone maps and key ranges are found by it. What
//! replaces an expression is a function of ours ([`function`]), so constants fold as before and an error in a branch that
//! is not taken is none.

mod aggregate;
mod arithmetic;
mod arrays;
mod conversion;
mod division;
mod function;
pub(crate) mod json;
mod laziness;
mod literals;
mod moments;
mod operators;
mod pattern;
mod semantics;
mod sorting;
pub(crate) mod spelling;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::{Analyzer, AnalyzerRule};

use literals::Literals;
use operators::Operators;
use semantics::Semantics;

use crate::optimizer;

type AnalyzerRef = Arc<dyn AnalyzerRule + Send + Sync>;

/// Adds our rules to a state that is being built, before DataFusion's defaults.
pub(crate) fn plan_with(builder: SessionStateBuilder) -> SessionStateBuilder {
    let coerced = |rule: AnalyzerRef| -> AnalyzerRef {
        if rule.name() == "type_coercion" { Arc::new(optimizer::Coercion(rule)) } else { rule }
    };
    let mut rules: Vec<_> = Analyzer::new().rules.into_iter().map(coerced).collect();
    rules.insert(0, optimizer::first_analyzer_rule());
    rules.insert(1, Arc::new(Literals));
    rules.push(Arc::new(Semantics));
    let physical = optimizer::physical_rules().into_iter().map(laziness::careful).collect();
    builder
        .with_expr_planners(vec![Arc::new(Operators)])
        .with_relation_planners(vec![Arc::new(optimizer::Relations)])
        .with_analyzer_rules(rules)
        .with_optimizer_rules(optimizer::rules())
        .with_query_planner(Arc::new(optimizer::Planner))
        .with_physical_optimizer_rules(physical)
}

/// Puts our functions in place of those with the same name.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for udf in [moments::date_part(), moments::age(), function::pg_typeof()]
        .into_iter()
        .chain(json::functions())
        .chain(arrays::functions())
    {
        registry.register_udf(Arc::new(udf))?;
    }
    for udaf in aggregate::functions() {
        registry.register_udaf(Arc::new(udaf))?;
    }
    Ok(())
}
