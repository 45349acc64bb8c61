//! `CALL strata.…`: procedures that any client can run.
//!
//! | procedure | does, and returns when done |
//! |---|---|
//! | `strata.flush()` | memtables to runs |
//! | `strata.convert('t')` | flush, runs of one table to segments |
//! | `strata.compact('t')` | convert, and rewrite segments with deletions |
//! | `strata.checkpoint('dir')` | a complete copy of the database in a new folder |
//! | `strata.verify()`, `strata.verify('t')` | indexes compared with their tables; yields a row per fault |

use std::path::PathBuf;

use datafusion::sql::sqlparser::ast;

use crate::catalog::SYSTEM_SCHEMA;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState, near};
use crate::statement::name_parts;

const NAMES: [&str; 5] = ["checkpoint", "compact", "convert", "flush", "verify"];

/// A call with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Procedure {
    Flush,
    Convert(String),
    Compact(String),
    Checkpoint(PathBuf),
    /// Of one table, or of all.
    Verify(Option<String>),
}

impl Procedure {
    /// # Errors
    /// 42883 for another procedure or other arguments.
    pub(crate) fn parse(function: &ast::Function) -> Result<Procedure> {
        let parts = name_parts(&function.name)?;
        let name = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [schema, name] if schema == SYSTEM_SCHEMA => name.to_owned(),
            [catalog, schema, name] if catalog == SYSTEM_SCHEMA && schema == SYSTEM_SCHEMA => name.to_owned(),
            _ => return Err(unknown(&function.name.to_string())),
        };
        let arguments = arguments(function)?;
        match (name.as_str(), arguments.as_slice()) {
            ("flush", []) => Ok(Procedure::Flush),
            ("convert", [table]) => Ok(Procedure::Convert(table.clone())),
            ("compact", [table]) => Ok(Procedure::Compact(table.clone())),
            ("checkpoint", [dir]) if !dir.is_empty() => Ok(Procedure::Checkpoint(PathBuf::from(dir))),
            ("verify", []) => Ok(Procedure::Verify(None)),
            ("verify", [table]) => Ok(Procedure::Verify(Some(table.clone()))),
            (known, _) if NAMES.contains(&known) => {
                let message = format!("procedure {SYSTEM_SCHEMA}.{known} takes other arguments");
                Err(Error::new(SqlState::UndefinedFunction, message).with_hint(USAGE))
            }
            (other, _) => Err(unknown(other)),
        }
    }

    /// Runs it; blocks until done.
    ///
    /// # Errors
    /// 42P01 for an unknown table, or I/O.
    pub(crate) fn run(&self, engine: &Engine) -> Result<()> {
        match self {
            Procedure::Flush => engine.flush(),
            Procedure::Convert(table) => engine.convert(table),
            Procedure::Compact(table) => engine.compact(table),
            Procedure::Checkpoint(dir) => engine.checkpoint(dir),
            Procedure::Verify(_) => Err(Error::internal("verification yields rows")),
        }
    }
}

const USAGE: &str = "the procedures are strata.flush(), strata.convert('table'), strata.compact('table'), \
                     strata.checkpoint('dir') and strata.verify()";

fn unknown(name: &str) -> Error {
    let bare = name.rsplit('.').next().unwrap_or(name);
    let hint = match near::nearest(bare, NAMES) {
        Some(near) => format!("did you mean {SYSTEM_SCHEMA}.{near}?"),
        None => USAGE.to_owned(),
    };
    Error::new(SqlState::UndefinedFunction, format!("procedure {name} does not exist")).with_hint(hint)
}

/// Text constants in parentheses.
fn arguments(function: &ast::Function) -> Result<Vec<String>> {
    let list = match &function.args {
        ast::FunctionArguments::None => return Ok(Vec::new()),
        ast::FunctionArguments::List(list) => &list.args,
        ast::FunctionArguments::Subquery(_) => return Err(Error::unsupported("a subquery as argument of CALL")),
    };
    let text = |argument: &ast::FunctionArg| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Value(value))) => {
            value.value.clone().into_string()
        }
        _ => None,
    };
    list.iter()
        .map(|argument| {
            text(argument).ok_or_else(|| {
                let message = format!("argument {argument} of CALL is not a text constant");
                Error::new(SqlState::DatatypeMismatch, message).with_hint(USAGE)
            })
        })
        .collect()
}
