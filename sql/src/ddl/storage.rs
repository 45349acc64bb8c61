//! `WITH (…)` of CREATE TABLE: how the table's rows are kept.

use datafusion::sql::sqlparser::ast;
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::schema::StorageKind;

use crate::catalog::Storage;
use crate::error::{Error, Result, SqlState};
use crate::statement::identifier;

/// `WITH (storage = 'row', compaction = 'tiered', size_ratio = 4, runs_per_level = 3, large_value_bytes = 8192)`.
pub(super) fn storage(options: &ast::CreateTableOptions) -> Result<Storage> {
    let options = match options {
        ast::CreateTableOptions::None => return Ok(Storage::default()),
        ast::CreateTableOptions::With(options) => options,
        other => return Err(Error::unsupported(format!("table options of the form {other}"))),
    };
    let mut storage = Storage::default();
    for option in options {
        let ast::SqlOption::KeyValue { key, value } = option else {
            return Err(Error::unsupported(format!("table option {option}")));
        };
        let value = match value {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, _) => digits.clone(),
                other => other.clone().into_string().unwrap_or_default(),
            },
            ast::Expr::Identifier(ident) => identifier(ident),
            other => other.to_string(),
        };
        match (identifier(key).as_str(), value.to_lowercase().as_str()) {
            ("storage", "hybrid") => storage.kind = StorageKind::Hybrid,
            ("storage", "row") => storage.kind = StorageKind::Row,
            ("storage", _) => {
                let message = format!("storage '{value}' does not exist");
                return Err(Error::new(SqlState::InvalidParameter, message)
                    .with_hint("storage is 'hybrid' (rows turn into columns, the default) or 'row'"));
            }
            (other, value) => {
                if !storage.compaction.set(other, value)? {
                    let message = format!("table option {other} does not exist");
                    return Err(Error::new(SqlState::InvalidParameter, message).with_hint(
                        "the options are: storage, compaction, size_ratio, runs_per_level, large_value_bytes",
                    ));
                }
            }
        }
    }
    storage.compaction.check()?;
    if storage.kind == StorageKind::Hybrid && storage.compaction != CompactionOptions::default() {
        let message = "a hybrid table has no levels: its rows turn into columns";
        return Err(Error::new(SqlState::InvalidParameter, message).with_hint(
            "leave compaction, size_ratio, runs_per_level and large_value_bytes out, or add storage = 'row'",
        ));
    }
    Ok(storage)
}
