//! `Evolution`: what rows of earlier schema versions look like, so that a table changes its columns and keeps its rows.
//!
//! Every layout that a column ever had in rows is a [`Form`], alive from one version to another. All forms stand in one
//! list, and the rows of a version hold those alive at it, in the order of the list. A row older than a column stands for
//! the column's *missing value*: its default, evaluated once, when the column was added.
//!
//! Always true:
//! * a column's number is never used again, so a column that is dropped and added anew never shows old values;
//! * a column's forms follow each other without a gap, each at least as wide as the one before: whatever was stored can be
//!   read as what the column is now;
//! * renaming a column and SET NOT NULL leave rows as they are, and so the version; a column that was nullable stays so in
//!   rows, because superseded ones may still hold its NULLs.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use arrow_schema::{DataType, Field};

use super::{Column, ColumnId, TableSchema, Widening, is_storable};
use crate::error::{Error, Result};
use crate::row::{OwnedValue, RowCodec, RowRef, Value, ValueKind, past::PastRows};
use crate::sync::{Arc, OnceLock};

/// One column as the rows of some versions hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) id: ColumnId,
    pub(crate) data_type: DataType,
    /// Whether rows have a bit for its NULL. More than the column allows after SET NOT NULL.
    pub(crate) is_nullable: bool,
    /// First version with it.
    pub(crate) since: u16,
    /// First version without it; `None` if rows are still written with it.
    pub(crate) until: Option<u16>,
}

/// The forms of all columns of a table, dropped ones included.
#[derive(Debug)]
pub(crate) struct Evolution {
    /// In the order of row layouts.
    pub(crate) forms: Vec<Form>,
    /// By column added later, unless it is NULL: a row of that column alone, nullable, at version 0.
    pub(crate) missing: BTreeMap<ColumnId, Vec<u8>>,
    /// Layouts of earlier versions, the first one first.
    past: Vec<OnceLock<Option<PastRows>>>,
    /// The layout of the newest version.
    newest: OnceLock<RowCodec>,
}

impl PartialEq for Evolution {
    fn eq(&self, other: &Evolution) -> bool {
        self.forms == other.forms && self.missing == other.missing
    }
}

impl Eq for Evolution {}

impl Form {
    fn of(column: &Column, since: u16) -> Form {
        let (data_type, is_nullable) = (column.field.data_type().clone(), column.field.is_nullable());
        Form { id: column.id, data_type, is_nullable, since, until: None }
    }

    /// Whether rows of `version` hold it.
    pub(crate) fn is_in(&self, version: u16) -> bool {
        self.since <= version && self.until.is_none_or(|until| version < until)
    }

    pub(crate) fn kind(&self) -> ValueKind {
        ValueKind::of(&self.data_type).expect("forms have storable types")
    }
}

impl Evolution {
    /// Checks and builds; `None` if the forms say nothing that `columns` do not.
    pub(crate) fn new(
        version: u16,
        columns: &[Column],
        forms: Vec<Form>,
        missing: BTreeMap<ColumnId, Vec<u8>>,
    ) -> Result<Option<Evolution>> {
        check(version, columns, &forms, &missing).map_err(|what| Error::Invalid(what.to_owned()))?;
        let is_plain = |(form, column): (&Form, &Column)| *form == Form::of(column, version);
        if missing.is_empty() && forms.len() == columns.len() && forms.iter().zip(columns).all(is_plain) {
            return Ok(None);
        }
        let first = forms.iter().map(|form| form.since).min().unwrap_or(version);
        let past = (first..version).map(|_| OnceLock::new()).collect();
        Ok(Some(Evolution { forms, missing, past, newest: OnceLock::new() }))
    }

    /// Forms in the rows of the newest version.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Form> {
        self.forms.iter().filter(|form| form.until.is_none())
    }

    /// What the column is in rows older than it.
    pub(crate) fn missing_value(&self, form: &Form) -> Result<OwnedValue> {
        match self.missing.get(&form.id) {
            None => Ok(OwnedValue::Null),
            Some(row) => {
                let codec = RowCodec::of_value(form.kind());
                Ok(RowRef::new(&codec, row)?.get(0)?.to_owned_value())
            }
        }
    }

    /// How to read rows of `version`; `None` if it is not an earlier version of the table.
    pub(crate) fn past(&self, version: u16) -> Option<&PastRows> {
        let first = self.forms.iter().map(|form| form.since).min()?;
        let cell = self.past.get(usize::from(version.checked_sub(first)?))?;
        cell.get_or_init(|| PastRows::new(self, version).ok()).as_ref()
    }
}

/// Every rule that forms keep.
fn check(
    version: u16,
    columns: &[Column],
    forms: &[Form],
    missing: &BTreeMap<ColumnId, Vec<u8>>,
) -> Result<(), &'static str> {
    let live: Vec<&Form> = forms.iter().filter(|form| form.until.is_none()).collect();
    let is_of = |(form, column): (&&Form, &Column)| {
        form.id == column.id
            && form.data_type == *column.field.data_type()
            && (form.is_nullable || !column.field.is_nullable())
    };
    if live.len() != columns.len() || !live.iter().zip(columns).all(is_of) {
        return Err("the newest forms of columns are not the columns");
    }
    let mut last: HashMap<ColumnId, &Form> = HashMap::new();
    for form in forms {
        if !is_storable(&form.data_type) {
            return Err("a form has a type that tables cannot store");
        }
        if form.since > version || form.until.is_some_and(|until| until <= form.since || until > version) {
            return Err("a form is of no version");
        }
        if let Some(before) = last.insert(form.id, form)
            && (before.until != Some(form.since)
                || Widening::of(&before.data_type, &form.data_type).is_none()
                || before.is_nullable && !form.is_nullable)
        {
            return Err("a form does not continue the one before");
        }
    }
    for (id, row) in missing {
        let Some(form) = live.iter().find(|form| form.id == *id) else {
            return Err("a missing value belongs to no column");
        };
        let codec = RowCodec::of_value(form.kind());
        let is_value = RowRef::new(&codec, row).is_ok_and(|row| row.check_text().is_ok() && !row.is_null(0));
        if !is_value {
            return Err("a missing value is none of its column");
        }
    }
    Ok(())
}

/// A successor of a schema in the making.
struct Successor {
    version: u16,
    columns: Vec<Column>,
    forms: Vec<Form>,
    missing: BTreeMap<ColumnId, Vec<u8>>,
}

impl Successor {
    fn of(schema: &TableSchema) -> Successor {
        let (forms, missing) = match &schema.evolution {
            Some(evolution) => (evolution.forms.clone(), evolution.missing.clone()),
            None => (schema.columns.iter().map(|column| Form::of(column, schema.version)).collect(), BTreeMap::new()),
        };
        Successor { version: schema.version, columns: schema.columns.clone(), forms, missing }
    }

    /// Rows are laid out anew from here on.
    fn next_version(&mut self) -> Result<u16> {
        let next = self.version.checked_add(1).filter(|_| self.forms.len() < usize::from(u16::MAX));
        self.version = next.ok_or_else(|| {
            Error::Invalid("the table was altered too often; copy it into a new one to alter it further".to_owned())
        })?;
        Ok(self.version)
    }

    /// Place in `forms` of the form that rows have now of the column at `position`.
    fn live(&self, position: usize) -> usize {
        let id = self.columns[position].id;
        let is_live = |form: &Form| form.id == id && form.until.is_none();
        self.forms.iter().position(is_live).expect("every column has a form that is alive")
    }

    /// The column at `position` has another form from the next version on.
    fn replace(&mut self, position: usize, change: impl FnOnce(&mut Form)) -> Result<()> {
        let version = self.next_version()?;
        let at = self.live(position);
        let mut next = Form { since: version, ..self.forms[at].clone() };
        change(&mut next);
        self.forms[at].until = Some(version);
        self.forms.insert(at + 1, next);
        Ok(())
    }

    fn finish(self, table: super::TableId, primary_key: &[ColumnId]) -> Result<TableSchema> {
        let Successor { version, columns, forms, missing } = self;
        let position = |id: &ColumnId| columns.iter().position(|column| column.id == *id);
        let key =
            primary_key.iter().map(|id| position(id).ok_or_else(|| Error::Invalid("a key column is gone".into())));
        let key = key.collect::<Result<Vec<_>>>()?;
        TableSchema::with_forms(table, version, columns, key, forms, missing)
    }
}

/// Changes of shape. Each gives the schema that the table has from then on; rows written so far stay and are read in its
/// shape. Positions are those of `columns`.
///
/// # Panics
/// If a position does not exist.
impl TableSchema {
    /// A schema that knows the rows of earlier versions.
    pub(super) fn with_forms(
        table: super::TableId,
        version: u16,
        columns: Vec<Column>,
        primary_key: Vec<usize>,
        forms: Vec<Form>,
        missing: BTreeMap<ColumnId, Vec<u8>>,
    ) -> Result<TableSchema> {
        let mut schema = TableSchema::new(table, version, columns, primary_key)?;
        schema.evolution = Evolution::new(version, &schema.columns, forms, missing)?.map(Arc::new);
        Ok(schema)
    }

    /// With one more column, behind those that users see. Rows written so far have `missing` in it.
    ///
    /// # Errors
    /// [`Error::Invalid`] as [`TableSchema::new`], for a value of another kind than the column's, or a table that was
    /// altered more often than versions can count.
    pub fn with_column(&self, field: Field, missing: Value<'_>) -> Result<TableSchema> {
        let kind = ValueKind::of(field.data_type()).ok_or_else(|| {
            let (name, data_type) = (field.name(), field.data_type());
            Error::Invalid(format!("column {name} has type {data_type}, which tables cannot store"))
        })?;
        let mut next = Successor::of(self);
        let newest = next.forms.iter().map(|form| form.id.0).max().unwrap_or_default();
        let id = newest.checked_add(1).map(ColumnId);
        let id = id.ok_or_else(|| Error::Invalid("there are no column numbers left".to_owned()))?;
        let since = next.next_version()?;
        let position = self.visible_column_count();
        let column = Column { id, field };
        // Where NULL stands in for older rows it must have a bit, whatever the column allows.
        let is_nullable = column.field.is_nullable() || missing.is_null();
        let place = if position < next.columns.len() { next.live(position) } else { next.forms.len() };
        next.forms.insert(place, Form { is_nullable, ..Form::of(&column, since) });
        next.columns.insert(position, column);
        if !missing.is_null() {
            next.missing.insert(id, encode_value(kind, &missing)?);
        }
        next.finish(self.table, &self.key_ids())
    }

    /// Without the column at `position`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column of the primary key, or as [`TableSchema::with_column`].
    pub fn without_column(&self, position: usize) -> Result<TableSchema> {
        self.refuse_key(position, "dropped")?;
        let mut next = Successor::of(self);
        let version = next.next_version()?;
        let at = next.live(position);
        next.forms[at].until = Some(version);
        let column = next.columns.remove(position);
        next.missing.remove(&column.id);
        next.finish(self.table, &self.key_ids())
    }

    /// With another name for the column at `position`; the version stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name is taken.
    pub fn with_name(&self, position: usize, name: &str) -> Result<TableSchema> {
        let mut next = Successor::of(self);
        next.columns[position].field = next.columns[position].field.clone().with_name(name);
        next.finish(self.table, &self.key_ids())
    }

    /// With a wider type for the column at `position`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column of the primary key or a type that is not wider ([`Widening::of`]), or as
    /// [`TableSchema::with_column`].
    pub fn with_type(&self, position: usize, data_type: &DataType) -> Result<TableSchema> {
        let field = &self.columns[position].field;
        if field.data_type() == data_type {
            return Ok(self.clone());
        }
        self.refuse_key(position, "given another type")?;
        let (name, before) = (field.name(), field.data_type());
        let widening = Widening::of(before, data_type).ok_or_else(|| {
            Error::Invalid(format!("column {name} cannot become {data_type}: {before} is not narrower"))
        })?;
        let mut next = Successor::of(self);
        let id = self.columns[position].id;
        if let Some(row) = next.missing.get_mut(&id) {
            let value = self.missing_value(position)?;
            let wide = widening.widen(value.as_value());
            let wide = wide.ok_or_else(|| Error::Invalid(format!("the default of column {name} does not fit")))?;
            let kind = ValueKind::of(data_type).expect("a type that others widen to is storable");
            *row = encode_value(kind, &wide)?;
        }
        next.replace(position, |form| form.data_type = data_type.clone())?;
        next.columns[position].field = field.clone().with_data_type(data_type.clone());
        next.finish(self.table, &self.key_ids())
    }

    /// With NULL allowed or forbidden in the column at `position`. Whoever forbids it has looked at all rows.
    ///
    /// # Errors
    /// [`Error::Invalid`] for NULL in the primary key, or as [`TableSchema::with_column`].
    pub fn with_nullable(&self, position: usize, is_nullable: bool) -> Result<TableSchema> {
        let mut next = Successor::of(self);
        if is_nullable {
            self.refuse_key(position, "nullable")?;
            let at = next.live(position);
            if !next.forms[at].is_nullable {
                next.replace(position, |form| form.is_nullable = true)?;
            }
        }
        next.columns[position].field = next.columns[position].field.clone().with_nullable(is_nullable);
        next.finish(self.table, &self.key_ids())
    }

    /// For each column whether rows and segments have room for its NULL: more than the column allows after SET NOT NULL.
    #[must_use]
    pub fn stored_nullability(&self) -> Vec<bool> {
        match &self.evolution {
            Some(evolution) => evolution.live().map(|form| form.is_nullable).collect(),
            None => self.columns.iter().map(|column| column.field.is_nullable()).collect(),
        }
    }

    /// The first version whose rows have the column at `position`; 0 if all have.
    #[must_use]
    pub fn since(&self, position: usize) -> u16 {
        let Some(evolution) = &self.evolution else { return 0 };
        let id = self.columns[position].id;
        evolution.forms.iter().filter(|form| form.id == id).map(|form| form.since).min().unwrap_or_default()
    }

    /// What the column at `position` is in rows older than it.
    ///
    /// # Errors
    /// None for a schema that was built or decoded, because its values were checked.
    pub fn missing_value(&self, position: usize) -> Result<OwnedValue> {
        match &self.evolution {
            Some(evolution) => {
                let form = evolution.live().nth(position).expect("the caller asks for a column of the table");
                evolution.missing_value(form)
            }
            None => Ok(OwnedValue::Null),
        }
    }

    /// [`TableSchema::missing_value`] as a row of [`RowCodec::of_value`]; `None` for NULL.
    #[must_use]
    pub fn missing_row(&self, position: usize) -> Option<&[u8]> {
        self.evolution.as_ref()?.missing.get(&self.columns[position].id).map(Vec::as_slice)
    }

    /// Whether rows of `self` and `other` are read alike, whatever their columns are called.
    #[must_use]
    pub fn is_shaped_as(&self, other: &TableSchema) -> bool {
        let same = |(a, b): (&Column, &Column)| a.id == b.id && a.field.data_type() == b.field.data_type();
        (self.table, self.version) == (other.table, other.version)
            && self.evolution == other.evolution
            && self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(same)
    }

    /// The stored `row` in the shape of this version: itself if it was written at this version, or a copy if at an earlier
    /// one.
    ///
    /// # Errors
    /// [`Error::Malformed`] if an older row is damaged, [`Error::Reshaped`] for one of a later version, which only a reader
    /// of another snapshot than its catalog's can meet. A row of this version is not looked at.
    pub fn newest(&self, row: Vec<u8>) -> Result<Vec<u8>> {
        let version = crate::row::schema_version(&row);
        if version == Some(self.version) {
            return Ok(row);
        }
        if version > Some(self.version) {
            return Err(Error::Reshaped { table: self.table });
        }
        let Some(evolution) = &self.evolution else { return Ok(row) };
        let mut out = Vec::with_capacity(row.len() + 16);
        // The names are for errors of encoding values, which this does not.
        let codec = evolution.newest.get_or_init(|| RowCodec::of_forms(self.version, evolution.live()));
        evolution.upgrade(codec, &row, &mut out)?;
        Ok(out)
    }

    fn key_ids(&self) -> Vec<ColumnId> {
        self.primary_key.iter().map(|&position| self.columns[position].id).collect()
    }

    fn refuse_key(&self, position: usize, what: &str) -> Result<()> {
        if self.primary_key.contains(&position) {
            let name = self.columns[position].field.name();
            return Err(Error::Invalid(format!("column {name} is part of the primary key and cannot be {what}")));
        }
        Ok(())
    }
}

fn encode_value(kind: ValueKind, value: &Value<'_>) -> Result<Vec<u8>> {
    let mut row = Vec::new();
    RowCodec::of_value(kind).encode(std::slice::from_ref(value), &mut row)?;
    Ok(row)
}
