//! SET and SHOW of a session.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::sql::sqlparser::ast;

use super::transaction::no_transaction;
use super::{Session, StatementResult};
use crate::catalog::Catalog;
use crate::error::{Error, Result, SqlState};
use crate::query::Rows;
use crate::sequences::LastNumbers;
use crate::settings::{self, Configured, Settings};
use crate::statement::Kind;

impl Session {
    pub(super) fn set(&mut self, change: &settings::Change) -> Result<()> {
        if let Some(option) = change.name.strip_prefix("datafusion.") {
            return self.set_datafusion(option, change);
        }
        if let Some(open) = &mut self.open {
            let local = open.local.get_or_insert_with(|| self.settings.clone());
            settings::apply(local, change)?;
        } else if change.is_local {
            return Err(no_transaction());
        }
        if !change.is_local {
            settings::apply(&mut self.settings, change)?;
        }
        self.take_up_path();
        Ok(())
    }

    /// Makes the open transaction look names up by the path that is in force.
    pub(super) fn take_up_path(&mut self) {
        if let Some(open) = &mut self.open {
            let path = &open.local.as_ref().unwrap_or(&self.settings).search_path;
            Catalog::set_path(&mut open.catalog, path);
        }
    }

    /// DISCARD: what the session remembers goes.
    pub(super) fn discard(&mut self, what: ast::DiscardObject) -> Result<StatementResult> {
        use ast::DiscardObject as What;
        let is_all = matches!(what, What::ALL);
        if is_all && self.open.is_some() {
            return Err(Error::new(SqlState::ActiveTransaction, "DISCARD ALL cannot run inside a transaction"));
        }
        if is_all {
            self.settings = Settings::new(self.engine.options().durability);
            self.prepared.clear();
        }
        if is_all || matches!(what, What::SEQUENCES) {
            self.base.config_mut().set_extension(Arc::new(LastNumbers::default()));
        }
        Ok(StatementResult::done(match what {
            What::ALL => "DISCARD ALL",
            What::PLANS => "DISCARD PLANS",
            What::SEQUENCES => "DISCARD SEQUENCES",
            What::TEMP => "DISCARD TEMP",
        }))
    }

    /// `SELECT set_config(name, value, is_local), …` of constants, which is a SET that yields the values.
    ///
    /// # Errors
    /// 0A000 for the function anywhere else; as SET.
    pub(super) fn set_config(&mut self, kind: &Kind) -> Result<Option<Rows>> {
        let Kind::Query(statement) = kind else { return Ok(None) };
        let ast::Statement::Query(query) = statement.as_ref() else { return Ok(None) };
        let ast::SetExpr::Select(select) = query.body.as_ref() else { return Ok(None) };
        if !select.from.is_empty() {
            return Ok(None);
        }
        let Some(calls) = select.projection.iter().map(settings::configured).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        if !calls.iter().any(|(_, call)| matches!(call, Configured::Set(_))) {
            return Ok(None);
        }
        let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        for (name, call) in calls {
            let setting = match call {
                Configured::Shown(setting) => setting,
                Configured::Set(change) => {
                    // Outside of a transaction it lasts as long as the statement.
                    if !(change.is_local && self.open.is_none()) {
                        self.set(&change)?;
                    }
                    change.name
                }
            };
            let value = settings::show(self.settings(), &setting)?;
            fields.push(Field::new(name, DataType::Utf8View, true));
            columns.push(Arc::new(StringViewArray::from_iter_values([value])));
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        Ok(Some(Rows::of(batch.schema(), vec![batch])))
    }

    pub(super) fn set_datafusion(&mut self, option: &str, change: &settings::Change) -> Result<()> {
        // These decide what names and constants mean, for every statement of ours too.
        if matches!(option, "catalog.default_catalog" | "catalog.default_schema" | "sql_parser.dialect") {
            let message = format!("setting {} cannot be changed", change.name);
            return Err(Error::new(SqlState::InvalidParameter, message));
        }
        let options = self.base.config_mut().options_mut();
        match &change.value {
            Some(value) => Ok(options.set(&change.name, value)?),
            None => Err(Error::unsupported(format!("RESET of {}", change.name)).with_hint("SET it to what it was")),
        }
    }

    pub(super) fn show(&self, words: &[String]) -> Result<Rows> {
        let name = words.join(if words.first().is_some_and(|word| word == "transaction") { " " } else { "." });
        match name.as_str() {
            "all" => all(&settings::all(self.settings())),
            "transaction_isolation" | "transaction isolation.level" | "transaction isolation level" => {
                let open = self.open.as_ref().map(|open| open.txn.options().isolation);
                let name = settings::isolation_name(open.unwrap_or(self.settings().isolation));
                one("transaction_isolation", name)
            }
            "transaction_read_only" => {
                let open = self.open.as_ref().map(|open| open.txn.options().read_only);
                one(&name, if open.unwrap_or(self.settings().read_only) { "on" } else { "off" })
            }
            "time.zone" => one("timezone", "UTC"),
            option if option.starts_with("datafusion.") => {
                let entries = self.base.config_options().entries();
                let found = entries
                    .iter()
                    .find(|entry| entry.key == option)
                    .ok_or_else(|| Error::new(SqlState::UndefinedObject, format!("setting {option} does not exist")))?;
                one(option, found.value.as_deref().unwrap_or_default())
            }
            _ => one(&name, &settings::show(self.settings(), &name)?),
        }
    }
}

/// One value, in a column named after the setting.
pub(super) fn one(name: &str, value: &str) -> Result<Rows> {
    rows(&[name], &[[value.to_owned()]])
}

/// Name, value and meaning of every setting.
fn all(settings: &[[String; 3]]) -> Result<Rows> {
    rows(&["name", "setting", "description"], settings)
}

fn rows<const N: usize>(names: &[&str; N], values: &[[String; N]]) -> Result<Rows> {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8View, false)).collect();
    let column = |at: usize| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(values.iter().map(|row| row[at].as_str())))
    };
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), (0..N).map(column).collect())?;
    Ok(Rows::of(batch.schema(), vec![batch]))
}
