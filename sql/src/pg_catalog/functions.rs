//! Functions of PostgreSQL that look into the catalog, or say what the server is.
//!
//! They are bound to the catalog that a statement sees, and registered only for statements that name one of them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Builder, Int64Array, ListBuilder, StringViewArray, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result as DfResult;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use strata_oltp::Snapshot;
use strata_oltp::commit::Durability;

use super::oids::{self, OWNER, OWNER_NAME};
use super::statistics::{self, Bytes};
use super::{PG_SCHEMA, constraints, procedures, relations, types};
use crate::activity::SessionNumber;
use crate::catalog::sequence::Sequence;
use crate::catalog::{CATALOG_NAME, Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA};
use crate::error::{Error, Result, SqlState};
use crate::settings::{self, CurrentSettings, Settings};
use crate::types::is_text;

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Text,
    Bool,
    Number,
    Texts,
    Numbers,
    /// Text, or an error.
    Setting,
    /// A number for a name, a name for a number.
    Other,
    /// A number for a name or a number, of the kind that the first argument says.
    Lookup,
}

/// The functions, in order of their names.
const FUNCTIONS: [(&str, Gives); 89] = [
    ("col_description", Gives::Text),
    ("current_catalog", Gives::Text),
    ("current_database", Gives::Text),
    ("current_role", Gives::Text),
    ("current_schema", Gives::Text),
    ("current_schemas", Gives::Texts),
    ("current_setting", Gives::Setting),
    ("current_user", Gives::Text),
    ("format", Gives::Text),
    ("format_type", Gives::Text),
    ("getdatabaseencoding", Gives::Text),
    ("has_any_column_privilege", Gives::Bool),
    ("has_column_privilege", Gives::Bool),
    ("has_database_privilege", Gives::Bool),
    ("has_function_privilege", Gives::Bool),
    ("has_schema_privilege", Gives::Bool),
    ("has_sequence_privilege", Gives::Bool),
    ("has_table_privilege", Gives::Bool),
    ("has_tablespace_privilege", Gives::Bool),
    ("has_type_privilege", Gives::Bool),
    ("inet_client_addr", Gives::Text),
    ("inet_client_port", Gives::Number),
    ("inet_server_addr", Gives::Text),
    ("inet_server_port", Gives::Number),
    ("obj_description", Gives::Text),
    ("pg_advisory_unlock_all", Gives::Text),
    ("pg_backend_pid", Gives::Number),
    ("pg_blocking_pids", Gives::Numbers),
    ("pg_client_encoding", Gives::Text),
    ("pg_collation_is_visible", Gives::Bool),
    ("pg_column_default_", Gives::Text),
    ("pg_column_is_updatable", Gives::Bool),
    ("pg_conversion_is_visible", Gives::Bool),
    ("pg_database_size", Gives::Number),
    ("pg_encoding_to_char", Gives::Text),
    ("pg_function_is_visible", Gives::Bool),
    ("pg_get_constraintdef", Gives::Text),
    ("pg_get_expr", Gives::Text),
    ("pg_get_function_arguments", Gives::Text),
    ("pg_get_function_identity_arguments", Gives::Text),
    ("pg_get_function_result", Gives::Text),
    ("pg_get_functiondef", Gives::Text),
    ("pg_get_indexdef", Gives::Text),
    ("pg_get_partkeydef", Gives::Text),
    ("pg_get_ruledef", Gives::Text),
    ("pg_get_serial_sequence", Gives::Text),
    ("pg_get_statisticsobjdef_columns", Gives::Text),
    ("pg_get_triggerdef", Gives::Text),
    ("pg_get_userbyid", Gives::Text),
    ("pg_get_viewdef", Gives::Text),
    ("pg_has_role", Gives::Bool),
    ("pg_indexes_size", Gives::Number),
    ("pg_is_in_recovery", Gives::Bool),
    ("pg_is_other_temp_schema", Gives::Bool),
    ("pg_my_temp_schema", Gives::Number),
    ("pg_opclass_is_visible", Gives::Bool),
    ("pg_operator_is_visible", Gives::Bool),
    ("pg_opfamily_is_visible", Gives::Bool),
    ("pg_partition_ancestors", Gives::Number),
    ("pg_relation_is_publishable", Gives::Bool),
    ("pg_relation_is_updatable", Gives::Number),
    ("pg_relation_size", Gives::Number),
    ("pg_size_pretty", Gives::Text),
    ("pg_stat_get_numscans", Gives::Number),
    ("pg_table_is_visible", Gives::Bool),
    ("pg_table_size", Gives::Number),
    ("pg_tablespace_location", Gives::Text),
    ("pg_tablespace_size", Gives::Number),
    ("pg_total_relation_size", Gives::Number),
    ("pg_type_is_visible", Gives::Bool),
    ("quote_ident", Gives::Text),
    ("quote_literal", Gives::Text),
    ("quote_nullable", Gives::Text),
    ("reg_oid_", Gives::Lookup),
    ("regclass", Gives::Other),
    ("regnamespace", Gives::Other),
    ("regproc", Gives::Other),
    ("regrole", Gives::Other),
    ("regtype", Gives::Other),
    ("row_security_active", Gives::Bool),
    ("session_user", Gives::Text),
    ("shobj_description", Gives::Text),
    ("to_regclass", Gives::Number),
    ("to_regnamespace", Gives::Number),
    ("to_regproc", Gives::Number),
    ("to_regrole", Gives::Number),
    ("to_regtype", Gives::Number),
    ("txid_current_if_assigned", Gives::Number),
    ("version", Gives::Text),
];

/// Whether `name` is one of them.
pub(crate) fn is_known(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, _)| *known == name)
}

/// Adds the functions to the state of a statement that names one.
///
/// # Errors
/// None today.
pub(crate) fn register(state: &mut SessionState, catalog: &Arc<Catalog>, snapshot: &Snapshot) -> Result<()> {
    let settings = state.config().get_extension::<CurrentSettings>();
    let session = state.config().get_extension::<SessionNumber>().map(|number| i64::from(number.0));
    let seen = Arc::new(Seen { snapshot: snapshot.clone(), settings, session });
    for (name, gives) in FUNCTIONS {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        let signature = Signature::new(TypeSignature::OneOf(any), Volatility::Stable);
        let (catalog, seen) = (Arc::clone(catalog), Arc::clone(&seen));
        let function = CatalogFunction { name, gives, catalog, seen, signature };
        state.register_udf(Arc::new(ScalarUDF::from(function)))?;
    }
    Ok(())
}

#[derive(Debug)]
struct CatalogFunction {
    name: &'static str,
    gives: Gives,
    catalog: Arc<Catalog>,
    seen: Arc<Seen>,
    signature: Signature,
}

/// What the statement sees besides the catalog.
struct Seen {
    snapshot: Snapshot,
    settings: Option<Arc<CurrentSettings>>,
    session: Option<i64>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Two of them are the same function if they read the same catalog.
impl PartialEq for CatalogFunction {
    fn eq(&self, other: &CatalogFunction) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.catalog, &other.catalog)
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// One row's arguments.
struct Row<'a> {
    arguments: &'a [ArrayRef],
    at: usize,
}

impl Row<'_> {
    fn text(&self, argument: usize) -> Option<String> {
        let array = self.arguments.get(argument).filter(|array| array.is_valid(self.at))?;
        let one = cast(&array.slice(self.at, 1), &DataType::Utf8View).ok()?;
        one.is_valid(0).then(|| one.as_string_view().value(0).to_owned())
    }

    fn number(&self, argument: usize) -> Option<i64> {
        let array = self.arguments.get(argument).filter(|array| array.is_valid(self.at))?;
        let one = cast(&array.slice(self.at, 1), &DataType::Int64).ok()?;
        one.is_valid(0).then(|| one.as_primitive::<Int64Type>().value(0))
    }

    fn is_text(&self, argument: usize) -> bool {
        self.arguments.get(argument).is_some_and(|array| is_text(array.data_type()))
    }
}

impl CatalogFunction {
    fn text(&self, row: &Row<'_>) -> Option<String> {
        let catalog = &self.catalog;
        match self.name {
            "current_catalog" | "current_database" => Some(CATALOG_NAME.to_owned()),
            "current_user" | "session_user" | "current_role" => Some(OWNER_NAME.to_owned()),
            "current_schema" => catalog.creation_schema().map(str::to_owned),
            "version" => Some(format!("PostgreSQL 15.0 (Strata {})", env!("CARGO_PKG_VERSION"))),
            "getdatabaseencoding" => Some("UTF8".to_owned()),
            "pg_encoding_to_char" => row.number(0).map(|number| if number == 6 { "UTF8" } else { "" }.to_owned()),
            "pg_get_userbyid" => row.number(0).map(|oid| match oid {
                OWNER => OWNER_NAME.to_owned(),
                _ => format!("unknown (OID={oid})"),
            }),
            "format_type" => row.number(0).map(|oid| types::name(oid, row.number(1))),
            "pg_get_expr" => row.text(0),
            "pg_column_default_" => {
                let (relation, column) = (row.number(0)?, row.number(1)?);
                let table = catalog.tables().find(|table| oids::table(table) == relation)?;
                let at = usize::try_from(column - 1).ok().filter(|at| *at < table.columns().len())?;
                let id = table.column_id(at);
                relations::default_of(table, id)
            }
            "pg_get_indexdef" => relations::index_definition(catalog, row.number(0)?, row.number(1).unwrap_or(0)),
            "pg_get_constraintdef" => constraints::definition(catalog, row.number(0)?),
            "pg_get_viewdef" => {
                let oid = if row.is_text(0) { self.relation(&row.text(0)?)? } else { row.number(0)? };
                relations::view_definition(catalog, oid)
            }
            "obj_description" => match row.text(1).as_deref() {
                None | Some("pg_class") => relations::comment(catalog, row.number(0)?, 0),
                _ => None,
            },
            "col_description" => relations::comment(catalog, row.number(0)?, row.number(1)?),
            "pg_get_serial_sequence" => {
                let name = catalog.locate(&name_parts(&row.text(0)?)).ok()?;
                let table = catalog.find(&name)?;
                let id = table.column_id(table.column_position(&row.text(1)?).ok()?);
                let owned = |sequence: &&Arc<Sequence>| {
                    sequence.shape.owner.is_some_and(|owner| owner.table == table.id().0 && owner.column == id)
                };
                let found = match table.rules.identities.contains_key(&id) {
                    true => table.sequence_name(id),
                    false => catalog.sequences().find(owned)?.name.table.clone(),
                };
                Some(format!("{}.{}", constraints::quoted(&name.schema), constraints::quoted(&found)))
            }
            "pg_get_function_result" => procedures::result(row.number(0)?),
            "pg_get_function_arguments" | "pg_get_function_identity_arguments" => procedures::arguments(row.number(0)?),
            "format" => formatted(row),
            "pg_size_pretty" => row.number(0).map(pretty),
            // There are no advisory locks to give back.
            "pg_tablespace_location" | "pg_advisory_unlock_all" => Some(String::new()),
            "pg_client_encoding" => Some("UTF8".to_owned()),
            "quote_literal" => row.text(0).map(|text| literal(&text)),
            "quote_nullable" => Some(row.text(0).map_or_else(|| "NULL".to_owned(), |text| literal(&text))),
            "quote_ident" => row.text(0).map(|name| constraints::quoted(&name)),
            _ => None,
        }
    }

    fn bool(&self, row: &Row<'_>) -> Option<bool> {
        match self.name {
            "pg_table_is_visible" => oids::name_of(&self.catalog, row.number(0)?)
                .map(|name| name.schema == PG_SCHEMA || self.catalog.is_visible(&name)),
            "pg_is_in_recovery" | "pg_relation_is_publishable" | "pg_is_other_temp_schema" | "row_security_active" => {
                Some(false)
            }
            "pg_column_is_updatable" => Some(self.is_table(self.relation_of(row, 0)?)),
            // There is one role, and it may do everything.
            _ => Some(true),
        }
    }

    fn relation(&self, name: &str) -> Option<i64> {
        oids::relation(&self.catalog, &name_parts(name))
    }

    fn number(&self, row: &Row<'_>) -> Option<i64> {
        match self.name {
            "pg_backend_pid" => Some(self.seen.session.unwrap_or_else(|| i64::from(std::process::id()))),
            "pg_relation_size" | "pg_table_size" => self.bytes(row, Bytes::Rows),
            "pg_indexes_size" => self.bytes(row, Bytes::Indexes),
            "pg_total_relation_size" => self.bytes(row, Bytes::All),
            "pg_database_size" | "pg_tablespace_size" => {
                Some(statistics::database_bytes(&self.catalog, &self.seen.snapshot))
            }
            // INSERT, UPDATE and DELETE: 4, 8 and 16.
            "pg_relation_is_updatable" => {
                let oid = self.relation_of(row, 0)?;
                Some(if self.is_table(oid) { 4 + 8 + 16 } else { 0 })
            }
            "to_regproc" => procedures::oid(&name_parts(&row.text(0)?).pop()?),
            "to_regrole" => (row.text(0)? == OWNER_NAME).then_some(OWNER),
            "pg_my_temp_schema" => Some(0),
            "to_regclass" => self.relation(&row.text(0)?),
            "to_regtype" => types::oid(&row.text(0)?),
            "to_regnamespace" => self.schema(&row.text(0)?),
            _ => None,
        }
    }

    /// The number of the relation that an argument names or is the number of.
    fn relation_of(&self, row: &Row<'_>, argument: usize) -> Option<i64> {
        if row.is_text(argument) { self.relation(&row.text(argument)?) } else { row.number(argument) }
    }

    fn is_table(&self, oid: i64) -> bool {
        self.catalog.tables().any(|table| oids::table(table) == oid)
    }

    fn bytes(&self, row: &Row<'_>, wanted: Bytes) -> Option<i64> {
        statistics::bytes(&self.catalog, &self.seen.snapshot, self.relation_of(row, 0)?, wanted)
    }

    fn schema(&self, name: &str) -> Option<i64> {
        let name = name_parts(name).pop()?;
        let known = self.catalog.schema_names().any(|known| known == name);
        (known || name == PG_SCHEMA || name == INFORMATION_SCHEMA).then(|| oids::schema(&name))
    }

    /// `'t'::regclass`, which must exist, and the like.
    fn oid(&self, kind: &str, name: Option<String>) -> Result<Option<i64>> {
        let Some(name) = name else { return Ok(None) };
        if let Ok(oid) = name.parse() {
            return Ok(Some(oid));
        }
        if name == "-" {
            return Ok(Some(0));
        }
        let (found, error) = match kind {
            "regclass" => (self.relation(&name), Error::undefined_table(&name, [])),
            "regtype" => {
                (types::oid(&name), Error::new(SqlState::UndefinedObject, format!("type {name} does not exist")))
            }
            "regnamespace" => (self.schema(&name), self.catalog.undefined_schema(&name)),
            "regrole" => (
                (name == OWNER_NAME).then_some(OWNER),
                Error::new(SqlState::UndefinedObject, format!("role {name} does not exist")),
            ),
            "regproc" => (
                name_parts(&name).pop().and_then(|name| procedures::oid(&name)),
                Error::new(SqlState::UndefinedFunction, format!("function {name} does not exist")),
            ),
            _ => (None, Error::unsupported(format!("{name} as {kind}"))),
        };
        found.map(Some).ok_or(error)
    }

    /// `current_setting`.
    fn setting(&self, row: &Row<'_>) -> Result<Option<String>> {
        let Some(name) = row.text(0) else { return Ok(None) };
        let current = self.seen.settings.as_ref().map(|settings| settings.get());
        let current = current.unwrap_or_else(|| Arc::new(Settings::new(Durability::Durable)));
        match settings::show(&current, &name.to_lowercase()) {
            Err(_) if row.text(1).as_deref() == Some("true") => Ok(None),
            shown => shown.map(Some),
        }
    }

    fn name_of(&self, oid: i64) -> String {
        let found = match self.name {
            "regclass" => oids::name_of(&self.catalog, oid).map(|name| relations::shown_name(&self.catalog, &name)),
            "regtype" => return types::name(oid, None),
            "regproc" => procedures::find(oid).map(|procedure| procedure.name.to_owned()),
            "regnamespace" => {
                let system = [PG_SCHEMA, INFORMATION_SCHEMA, SYSTEM_SCHEMA];
                let mut names = self.catalog.schema_names().chain(system);
                names.find(|name| oids::schema(name) == oid).map(str::to_owned)
            }
            "regrole" => (oid == OWNER).then(|| OWNER_NAME.to_owned()),
            _ => None,
        };
        found.unwrap_or_else(|| if oid == 0 { "-".to_owned() } else { oid.to_string() })
    }

    fn texts(&self, row: &Row<'_>) -> Vec<&str> {
        // Implicit schemas too?
        let all = row.text(0).is_none_or(|text| text == "true");
        all.then_some(PG_SCHEMA).into_iter().chain(self.catalog.path_schemas()).collect()
    }
}

/// Text as a constant.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// `format`: `%s`, `%I` and `%L` of the arguments in turn, or of one by its place, `%2$s`.
fn formatted(row: &Row<'_>) -> Option<String> {
    let template = row.text(0)?;
    let (mut out, mut rest, mut next) = (String::new(), template.as_str(), 1);
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (place, after) = match (after[..digits].parse::<usize>(), after[digits..].strip_prefix('$')) {
            (Ok(place), Some(after)) => (Some(place), after),
            _ => (None, after),
        };
        let kind = after.chars().next()?;
        rest = &after[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let at = place.unwrap_or(next);
        next = at + 1;
        let value = row.text(at);
        match kind {
            's' => out.push_str(&value.unwrap_or_default()),
            'I' => out.push_str(&constraints::quoted(&value?)),
            'L' => out.push_str(&value.map_or_else(|| "NULL".to_owned(), |value| literal(&value))),
            _ => return None,
        }
    }
    out.push_str(rest);
    Some(out)
}

/// Bytes as people read them, in PostgreSQL's way: up to 10,239 of a unit, then in the next one, rounded.
fn pretty(bytes: i64) -> String {
    let half_away = |value: i64, divisor: i64| {
        let half = if value < 0 { -divisor / 2 } else { divisor / 2 };
        value.saturating_add(half) / divisor
    };
    let mut divisor = 1_i64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        let value = half_away(bytes, divisor);
        if value.abs() < 10 * 1024 {
            return format!("{value} {unit}");
        }
        divisor *= 1024;
    }
    format!("{} TB", half_away(bytes, divisor))
}

/// Parts of a name as SQL reads it.
fn name_parts(name: &str) -> Vec<String> {
    let part = |part: &str| match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => part.to_lowercase(),
    };
    name.split('.').map(part).collect()
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        Ok(match self.gives {
            Gives::Text | Gives::Setting => DataType::Utf8View,
            Gives::Bool => DataType::Boolean,
            Gives::Number | Gives::Lookup => DataType::Int64,
            Gives::Numbers => DataType::new_list(DataType::Int32, true),
            Gives::Texts => DataType::new_list(DataType::Utf8View, true),
            Gives::Other if arguments.first().is_some_and(is_text) => DataType::Int64,
            Gives::Other => DataType::Utf8View,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arguments = args.args.iter().map(|value| value.to_array(args.number_rows)).collect::<DfResult<Vec<_>>>()?;
        let rows = || (0..args.number_rows).map(|at| Row { arguments: &arguments, at });
        let array: ArrayRef = match self.gives {
            Gives::Text => Arc::new(rows().map(|row| self.text(&row)).collect::<StringViewArray>()),
            Gives::Setting => Arc::new(rows().map(|row| self.setting(&row)).collect::<Result<StringViewArray>>()?),
            Gives::Bool => Arc::new(rows().map(|row| self.bool(&row)).collect::<BooleanArray>()),
            Gives::Number => Arc::new(rows().map(|row| self.number(&row)).collect::<Int64Array>()),
            Gives::Lookup => {
                let oid = |row: Row<'_>| self.oid(&row.text(0).unwrap_or_default(), row.text(1));
                Arc::new(rows().map(oid).collect::<Result<Int64Array>>()?)
            }
            Gives::Numbers => {
                let mut lists = ListBuilder::new(Int32Builder::new());
                rows().for_each(|_| lists.append(true));
                Arc::new(lists.finish())
            }
            Gives::Texts => {
                let mut lists = ListBuilder::new(StringViewBuilder::new());
                for row in rows() {
                    self.texts(&row).into_iter().for_each(|name| lists.values().append_value(name));
                    lists.append(true);
                }
                Arc::new(lists.finish())
            }
            Gives::Other if arguments.first().is_some_and(|array| is_text(array.data_type())) => {
                let oid = |row: Row<'_>| self.oid(self.name, row.text(0));
                Arc::new(rows().map(oid).collect::<Result<Int64Array>>()?)
            }
            Gives::Other => {
                let name = |row: Row<'_>| row.number(0).map(|oid| self.name_of(oid));
                Arc::new(rows().map(name).collect::<StringViewArray>())
            }
        };
        Ok(ColumnarValue::Array(array))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_in_order_and_named_once() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(is_known("format_type") && !is_known("lower"));
        assert_eq!(name_parts("App.\"Odd\"\"Name\""), ["app", "Odd\"Name"]);
    }
}
