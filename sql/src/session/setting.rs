//! SET and SHOW of a session.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use super::Session;
use super::transaction::no_transaction;
use crate::error::{Error, Result, SqlState};
use crate::query::Rows;
use crate::settings;

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
        Ok(())
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
