//! `Settings`: what SET changes and SHOW shows.
//!
//! A setting changed within a transaction is as it was after a rollback; SET LOCAL lasts until the transaction's end. The
//! options of DataFusion, `datafusion.…`, are set and shown under their own names, and belong to no transaction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::sql::sqlparser::ast;
use strata_oltp::commit::Durability;
use strata_oltp::txn::{Isolation, TransactionOptions};

use crate::catalog::path::SearchPath;
use crate::error::{Error, Result, SqlState, near};
use crate::statement::{identifier, name_parts};

/// Settings of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub durability: Durability,
    /// Isolation and access mode of transactions that do not say.
    pub isolation: Isolation,
    pub read_only: bool,
    /// How long a statement may take, its rows included; zero for ever.
    pub statement_timeout: Duration,
    /// How long to wait for a locked row; zero for ever.
    pub lock_timeout: Duration,
    /// How long an open transaction may wait for its next statement; zero for ever.
    pub idle_in_transaction_timeout: Duration,
    pub application_name: String,
    /// Where names without a schema are looked up.
    pub search_path: SearchPath,
    /// Settings with a dot in their names, which belong to applications.
    custom: BTreeMap<String, String>,
    /// Whether statements on single rows go past the planner.
    pub point_statements: bool,
    /// Whether prepared queries keep their optimised plans.
    pub keeps_plans: bool,
    /// Accepted for clients that set it; floats are written with as many digits as it takes anyway.
    extra_float_digits: i64,
}

impl Settings {
    pub(crate) fn new(durability: Durability) -> Settings {
        Settings {
            durability,
            isolation: Isolation::Snapshot,
            read_only: false,
            statement_timeout: Duration::ZERO,
            lock_timeout: Duration::ZERO,
            idle_in_transaction_timeout: Duration::ZERO,
            application_name: String::new(),
            search_path: SearchPath::default(),
            custom: BTreeMap::new(),
            point_statements: true,
            keeps_plans: true,
            extra_float_digits: 1,
        }
    }

    /// Options of a transaction that says nothing itself.
    pub(crate) fn transaction(&self) -> TransactionOptions {
        TransactionOptions {
            isolation: self.isolation,
            read_only: self.read_only,
            lock_timeout: (!self.lock_timeout.is_zero()).then_some(self.lock_timeout),
        }
    }
}

/// The settings in force, as functions of a statement see them.
#[derive(Debug, Default)]
pub(crate) struct CurrentSettings(Mutex<Option<Arc<Settings>>>);

impl CurrentSettings {
    pub(crate) fn set(&self, settings: &Settings) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(settings) {
            *current = Some(Arc::new(settings.clone()));
        }
    }

    pub(crate) fn get(&self) -> Arc<Settings> {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().unwrap_or_else(|| Arc::new(Settings::new(Durability::Durable)))
    }
}

/// One change of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub name: String,
    /// `None` for the default.
    pub value: Option<String>,
    /// Only until the end of the transaction.
    pub is_local: bool,
}

/// A setting: its name, what it is, and how it is read and written.
struct Setting {
    name: &'static str,
    about: &'static str,
    show: fn(&Settings) -> String,
    /// Changes it; an error text says which values there are.
    set: fn(&mut Settings, &str) -> std::result::Result<(), &'static str>,
}

/// Stands for all settings of applications.
const ALL_CUSTOM: &str = ".";

const DURATION: &str = "a duration in milliseconds, or with a unit: '500ms', '10s', '5min'; 0 is for ever";

/// Settings that can have but one value: what they are, for clients that set or show them.
const FIXED: [(&str, &str, &str); 18] = [
    ("block_size", "8192", "bytes of a page, in which sizes are counted for PostgreSQL's clients"),
    ("bytea_output", "hex", "how bytes are written"),
    ("client_encoding", "UTF8", "encoding of text"),
    ("datestyle", "ISO, MDY", "how dates are written"),
    ("default_table_access_method", "heap", "PostgreSQL's name for how tables are kept"),
    ("integer_datetimes", "on", "times are counted in microseconds"),
    ("intervalstyle", "postgres", "how intervals are written"),
    ("is_superuser", "on", "whether the role may do everything"),
    ("lc_collate", "C.UTF-8", "text is ordered by its bytes"),
    ("lc_ctype", "C.UTF-8", "what letters are"),
    ("max_index_keys", "32", "columns of an index, at most"),
    ("server_encoding", "UTF8", "encoding of text"),
    ("server_version", "15.0 (Strata)", "version of PostgreSQL whose dialect this is"),
    ("server_version_num", "150000", "the same as a number"),
    ("session_authorization", "strata", "the session's role"),
    ("standard_conforming_strings", "on", "backslashes in '…' are themselves"),
    ("timezone", "UTC", "zone of timestamps with time zone"),
    ("max_identifier_length", "255", "longest name, in bytes"),
];

/// Settings of PostgreSQL's that clients set at start-up and that decide nothing here: taken and shown, without effect.
const ACCEPTED: [(&str, &str); 14] = [
    ("check_function_bodies", "on"),
    ("client_min_messages", "notice"),
    ("default_tablespace", ""),
    ("default_transaction_deferrable", "off"),
    ("escape_string_warning", "on"),
    ("geqo", "on"),
    ("idle_session_timeout", "0"),
    ("jit", "off"),
    ("maintenance_work_mem", "64MB"),
    ("row_security", "on"),
    ("synchronize_seqscans", "on"),
    ("transaction_timeout", "0"),
    ("work_mem", "4MB"),
    ("xmloption", "content"),
];

static SETTINGS: &[Setting] = &[
    Setting {
        name: "durability",
        about: "what a commit survives: durable (power loss) or buffered",
        show: |settings| match settings.durability {
            Durability::Durable => "durable".to_owned(),
            Durability::Buffered => "buffered".to_owned(),
        },
        set: |settings, value| {
            settings.durability = match value {
                "durable" => Durability::Durable,
                "buffered" => Durability::Buffered,
                _ => return Err("durability is 'durable' (survives power loss) or 'buffered'"),
            };
            Ok(())
        },
    },
    Setting {
        name: "synchronous_commit",
        about: "PostgreSQL's name for durability: on or off",
        show: |settings| on_off(settings.durability == Durability::Durable),
        set: |settings, value| {
            settings.durability = if boolean(value)? { Durability::Durable } else { Durability::Buffered };
            Ok(())
        },
    },
    Setting {
        name: "default_transaction_isolation",
        about: "isolation of transactions that do not say",
        show: |settings| isolation_name(settings.isolation).to_owned(),
        set: |settings, value| {
            settings.isolation = isolation(value)?;
            Ok(())
        },
    },
    Setting {
        name: "default_transaction_read_only",
        about: "whether transactions that do not say may only read",
        show: |settings| on_off(settings.read_only),
        set: |settings, value| {
            settings.read_only = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "statement_timeout",
        about: "how long a statement may take",
        show: |settings| shown_duration(settings.statement_timeout),
        set: |settings, value| {
            settings.statement_timeout = duration(value)?;
            Ok(())
        },
    },
    Setting {
        name: "lock_timeout",
        about: "how long to wait for a locked row",
        show: |settings| shown_duration(settings.lock_timeout),
        set: |settings, value| {
            settings.lock_timeout = duration(value)?;
            Ok(())
        },
    },
    Setting {
        name: "idle_in_transaction_session_timeout",
        about: "how long an open transaction may wait for its next statement",
        show: |settings| shown_duration(settings.idle_in_transaction_timeout),
        set: |settings, value| {
            settings.idle_in_transaction_timeout = duration(value)?;
            Ok(())
        },
    },
    Setting {
        name: "application_name",
        about: "what the client calls itself",
        show: |settings| settings.application_name.clone(),
        set: |settings, value| {
            value.clone_into(&mut settings.application_name);
            Ok(())
        },
    },
    Setting {
        name: "search_path",
        about: "schemas that names without one are looked up in",
        show: |settings| settings.search_path.text().to_owned(),
        set: |settings, value| {
            settings.search_path = SearchPath::parse(value)?;
            Ok(())
        },
    },
    Setting {
        name: "enable_point_statements",
        about: "whether statements on one row by its primary key run without the query planner",
        show: |settings| on_off(settings.point_statements),
        set: |settings, value| {
            settings.point_statements = boolean(value)?;
            Ok(())
        },
    },
    Setting {
        name: "plan_cache_mode",
        about: "whether prepared queries keep plans: auto and force_generic_plan do, force_custom_plan does not",
        show: |settings| if settings.keeps_plans { "auto" } else { "force_custom_plan" }.to_owned(),
        set: |settings, value| {
            settings.keeps_plans = match value {
                "auto" | "force_generic_plan" => true,
                "force_custom_plan" => false,
                _ => return Err("the values are auto, force_generic_plan and force_custom_plan"),
            };
            Ok(())
        },
    },
    Setting {
        name: "extra_float_digits",
        about: "accepted and without effect: floats are written with as many digits as it takes",
        show: |settings| settings.extra_float_digits.to_string(),
        set: |settings, value| {
            settings.extra_float_digits = value.parse().map_err(|_| "an integer from -15 to 3")?;
            Ok(())
        },
    },
];

fn on_off(value: bool) -> String {
    (if value { "on" } else { "off" }).to_owned()
}

fn boolean(value: &str) -> std::result::Result<bool, &'static str> {
    match value {
        "on" | "true" | "yes" | "1" | "t" | "y" => Ok(true),
        "off" | "false" | "no" | "0" | "f" | "n" | "local" => Ok(false),
        _ => Err("the values are on and off"),
    }
}

fn isolation(value: &str) -> std::result::Result<Isolation, &'static str> {
    match value {
        "serializable" => Ok(Isolation::Serializable),
        "repeatable read" | "read committed" | "read uncommitted" | "snapshot" => Ok(Isolation::Snapshot),
        _ => Err("the levels are 'serializable' and 'repeatable read' (snapshot isolation)"),
    }
}

/// The level's name in PostgreSQL.
pub(crate) fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Snapshot => "repeatable read",
        Isolation::Serializable => "serializable",
    }
}

fn duration(value: &str) -> std::result::Result<Duration, &'static str> {
    let value = value.trim();
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = value[..digits].parse().map_err(|_| DURATION)?;
    let factor_us = match value[digits..].trim() {
        "us" => 1,
        "" | "ms" => 1000,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(DURATION),
    };
    number.checked_mul(factor_us).map(Duration::from_micros).ok_or(DURATION)
}

/// As PostgreSQL shows it: in the largest unit that leaves no remainder.
fn shown_duration(duration: Duration) -> String {
    let us = duration.as_micros();
    let units = [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000)];
    match units.iter().find(|(_, factor)| us > 0 && us.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", us / factor),
        None if us == 0 => "0".to_owned(),
        None => format!("{us}us"),
    }
}

/// The changes that a SET or RESET statement asks for.
///
/// # Errors
/// Forms that are not known.
pub(crate) fn changes(statement: &ast::Statement) -> Result<Vec<Change>> {
    let change = |name: String, value: Option<String>, is_local| vec![Change { name, value, is_local }];
    match statement {
        ast::Statement::Set(ast::Set::SingleAssignment { scope, variable, values, .. }) => {
            let name = name_parts(variable)?.join(".").to_lowercase();
            let is_local = *scope == Some(ast::ContextModifier::Local);
            let texts: Vec<String> = values.iter().map(text).collect();
            let is_default = matches!(values.as_slice(), [ast::Expr::Identifier(word)]
                if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default"));
            let value = match name.as_str() {
                "search_path" => SearchPath::of(&texts).text().to_owned(),
                _ => texts.join(", "),
            };
            Ok(change(name, (!is_default).then_some(value), is_local))
        }
        ast::Statement::Set(ast::Set::SetTimeZone { local, value }) => {
            Ok(change("timezone".to_owned(), Some(text(value)), *local))
        }
        ast::Statement::Set(ast::Set::SetNames { charset_name, .. }) => {
            Ok(change("client_encoding".to_owned(), Some(charset_name.value.clone()), false))
        }
        ast::Statement::Set(ast::Set::SetNamesDefault {}) => Ok(change("client_encoding".to_owned(), None, false)),
        ast::Statement::Set(ast::Set::SetTransaction { modes, snapshot: None, session: true }) => {
            Ok(modes.iter().map(default_mode).collect())
        }
        ast::Statement::Reset(reset) => match &reset.reset {
            ast::Reset::ALL => {
                let all = SETTINGS.iter().flat_map(|setting| change(setting.name.to_owned(), None, false));
                Ok(all.chain(change(ALL_CUSTOM.to_owned(), None, false)).collect())
            }
            ast::Reset::ConfigurationParameter(name) => {
                Ok(change(name_parts(name)?.join(".").to_lowercase(), None, false))
            }
        },
        other => Err(Error::unsupported(format!("{other}"))),
    }
}

/// What an item of a SELECT does with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Configured {
    Set(Change),
    Shown(String),
}

/// What an item of a SELECT sets or shows, if it is `set_config` or `current_setting` of constants, under its name in the
/// result.
pub(crate) fn configured(item: &ast::SelectItem) -> Option<(String, Configured)> {
    let (expr, called) = match item {
        ast::SelectItem::UnnamedExpr(expr) => (expr, String::new()),
        ast::SelectItem::ExprWithAlias { expr, alias } => (expr, identifier(alias)),
        _ => return None,
    };
    let ast::Expr::Function(function) = expr else { return None };
    let name = name_parts(&function.name).ok()?.pop()?;
    let called = if called.is_empty() { name.clone() } else { called };
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let constant = |argument: &ast::FunctionArg| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr @ ast::Expr::Value(_))) => Some(text(expr)),
        _ => None,
    };
    let arguments = list.args.iter().map(constant).collect::<Option<Vec<_>>>()?;
    let what = match (name.as_str(), arguments.as_slice()) {
        ("set_config", [name, value, is_local]) => {
            let is_local = matches!(is_local.as_str(), "true" | "t" | "on" | "1");
            Configured::Set(Change { name: name.to_lowercase(), value: Some(value.clone()), is_local })
        }
        ("current_setting", [name]) => Configured::Shown(name.to_lowercase()),
        _ => return None,
    };
    Some((called, what))
}

/// SET SESSION CHARACTERISTICS AS TRANSACTION ….
fn default_mode(mode: &ast::TransactionMode) -> Change {
    let (name, value) = match mode {
        ast::TransactionMode::IsolationLevel(level) => {
            ("default_transaction_isolation", level.to_string().to_lowercase())
        }
        ast::TransactionMode::AccessMode(mode) => {
            ("default_transaction_read_only", on_off(*mode == ast::TransactionAccessMode::ReadOnly))
        }
    };
    Change { name: name.to_owned(), value: Some(value), is_local: false }
}

fn text(value: &ast::Expr) -> String {
    match value {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => digits.clone(),
            ast::Value::Boolean(value) => value.to_string(),
            other => other.clone().into_string().unwrap_or_default(),
        },
        ast::Expr::Identifier(ident) => identifier(ident),
        other => other.to_string(),
    }
}

/// Applies a change that is not one of DataFusion's options.
///
/// # Errors
/// 42704 for an unknown setting, 22023 for a value it cannot have.
pub(crate) fn apply(settings: &mut Settings, change: &Change) -> Result<()> {
    if change.name == ALL_CUSTOM {
        settings.custom.clear();
        return Ok(());
    }
    let bare = change.name.strip_prefix("strata.").unwrap_or(&change.name);
    if let Some((name, only, _)) = FIXED.iter().find(|(name, ..)| *name == bare) {
        let same = |value: &str| {
            let plain = |text: &str| text.to_lowercase().replace(['-', ' ', '"', '\''], "");
            let value = plain(value);
            plain(only).starts_with(&value)
                || *name == "timezone" && matches!(value.as_str(), "utc" | "gmt" | "z" | "etc/utc")
        };
        if change.value.as_deref().is_none_or(same) {
            return Ok(());
        }
        let value = change.value.clone().unwrap_or_default();
        if *name == "timezone" {
            return Err(
                Error::unsupported(format!("time zone {value}")).with_hint("the time zone of every session is UTC")
            );
        }
        return Err(Error::new(SqlState::InvalidParameter, format!("setting {name} cannot be '{value}'"))
            .with_hint(format!("it is always {only}")));
    }
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == bare) else {
        if !is_custom(&change.name) && accepted(bare).is_none() {
            return Err(unknown(&change.name));
        }
        match &change.value {
            Some(value) => settings.custom.insert(change.name.clone(), value.clone()),
            None => settings.custom.remove(&change.name),
        };
        return Ok(());
    };
    let value = match &change.value {
        Some(value) if matches!(bare, "application_name" | "search_path") => value.clone(),
        Some(value) => value.to_lowercase(),
        None => (setting.show)(&Settings::new(Durability::Durable)),
    };
    (setting.set)(settings, &value).map_err(|values| {
        Error::new(SqlState::InvalidParameter, format!("setting {bare} cannot be '{value}'")).with_hint(values)
    })
}

/// What a setting without effect is unless it was set.
fn accepted(name: &str) -> Option<&'static str> {
    ACCEPTED.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// Whether the setting is one of an application's.
fn is_custom(name: &str) -> bool {
    name.split_once('.').is_some_and(|(owner, _)| !matches!(owner, "strata" | "datafusion"))
}

fn unknown(name: &str) -> Error {
    let known = SETTINGS.iter().map(|setting| setting.name).chain(FIXED.iter().map(|(name, ..)| *name));
    let hint = match near::nearest(name, known) {
        Some(near) => format!("did you mean {near}?"),
        None => "SHOW ALL lists the settings; those of DataFusion begin with datafusion.".to_owned(),
    };
    Error::new(SqlState::UndefinedObject, format!("setting {name} does not exist")).with_hint(hint)
}

/// A setting's value.
///
/// # Errors
/// 42704.
pub(crate) fn show(settings: &Settings, name: &str) -> Result<String> {
    let bare = name.strip_prefix("strata.").unwrap_or(name);
    let fixed = FIXED.iter().find(|(known, ..)| *known == bare).map(|(_, value, _)| (*value).to_owned());
    let own = || SETTINGS.iter().find(|setting| setting.name == bare).map(|setting| (setting.show)(settings));
    let set = || settings.custom.get(name).cloned().or_else(|| accepted(bare).map(str::to_owned));
    fixed.or_else(own).or_else(set).ok_or_else(|| unknown(name))
}

/// Name, value and meaning of every setting, in order of names.
pub(crate) fn all(settings: &Settings) -> Vec<[String; 3]> {
    let fixed = FIXED.iter().map(|(name, value, about)| [name, value, about].map(|text| (*text).to_owned()));
    let own =
        SETTINGS.iter().map(|setting| [setting.name.to_owned(), (setting.show)(settings), setting.about.to_owned()]);
    let taken = ACCEPTED.iter().map(|(name, default)| {
        let value = settings.custom.get(*name).map_or(*default, String::as_str);
        [name, value, "accepted and without effect"].map(str::to_owned)
    });
    let mut all: Vec<[String; 3]> = fixed.chain(own).chain(taken).collect();
    all.sort_unstable();
    all
}
