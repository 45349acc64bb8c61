//! Table schema ↔ bytes, for catalog rows and manifest edits.
#![doc = include_str!("FORMAT.md")]

use std::collections::{BTreeMap, HashMap};

use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};

use super::evolution::{Evolution, Form};
use super::{Column, ColumnId, TableId, TableSchema};
use crate::error::{Error, Result};

/// Version of schemas whose rows were all written alike.
const FORMAT_VERSION: u8 = 1;
/// Version of schemas with rows of earlier versions.
const EVOLVED_VERSION: u8 = 2;

impl TableSchema {
    /// The schema as bytes that every later version of Strata reads. Equal schemas give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![if self.evolution.is_some() { EVOLVED_VERSION } else { FORMAT_VERSION }];
        out.extend_from_slice(&self.table.0.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        push_u16(&mut out, self.columns.len());
        for column in &self.columns {
            out.extend_from_slice(&column.id.0.to_le_bytes());
            push_string(&mut out, column.field.name());
            out.push(u8::from(column.field.is_nullable()));
            push_type(&mut out, column.field.data_type());
            let mut metadata: Vec<_> = column.field.metadata().iter().collect();
            metadata.sort_unstable();
            push_u16(&mut out, metadata.len());
            for (key, value) in metadata {
                push_string(&mut out, key);
                push_string(&mut out, value);
            }
        }
        push_u16(&mut out, self.primary_key.len());
        for &position in &self.primary_key {
            push_u16(&mut out, position);
        }
        if let Some(evolution) = &self.evolution {
            push_evolution(&mut out, evolution);
        }
        out
    }

    /// The schema that [`TableSchema::to_bytes`] wrote as `bytes`.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything else, with the offset within `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Result<TableSchema> {
        let mut reader = Reader { bytes, at: 0 };
        let format = match reader.u8()? {
            known @ (FORMAT_VERSION | EVOLVED_VERSION) => known,
            0 => return Err(malformed(0, "format version 0 never existed")),
            newer => {
                return Err(malformed(0, format!("format version {newer} is newer than this program; upgrade it")));
            }
        };
        let table = TableId(reader.u32()?);
        let version = reader.u16()?;
        let columns = (0..reader.u16()?).map(|_| reader.column()).collect::<Result<Vec<_>>>()?;
        let primary_key = (0..reader.u16()?).map(|_| reader.u16().map(usize::from)).collect::<Result<Vec<_>>>()?;
        let evolution = if format == EVOLVED_VERSION { Some((reader.forms()?, reader.missing()?)) } else { None };
        if reader.at != bytes.len() {
            return Err(malformed(reader.at, "there are bytes after the schema"));
        }
        let schema = match evolution {
            None => TableSchema::new(table, version, columns, primary_key),
            Some((forms, missing)) => TableSchema::with_forms(table, version, columns, primary_key, forms, missing),
        };
        let schema = schema.map_err(|error| malformed(0, error.to_string()))?;
        if schema.evolution.is_some() != (format == EVOLVED_VERSION) {
            return Err(malformed(0, "the forms of columns say nothing that the columns do not"));
        }
        Ok(schema)
    }
}

fn push_evolution(out: &mut Vec<u8>, evolution: &Evolution) {
    push_u16(out, evolution.forms.len());
    for form in &evolution.forms {
        out.extend_from_slice(&form.id.0.to_le_bytes());
        out.push(u8::from(form.is_nullable));
        push_type(out, &form.data_type);
        out.extend_from_slice(&form.since.to_le_bytes());
        // No form ends with version 0, because it would have to begin before.
        out.extend_from_slice(&form.until.unwrap_or_default().to_le_bytes());
    }
    push_u16(out, evolution.missing.len());
    for (id, row) in &evolution.missing {
        out.extend_from_slice(&id.0.to_le_bytes());
        let length = u32::try_from(row.len()).expect("rows are far below 4 GiB");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(row);
    }
}

fn push_u16(out: &mut Vec<u8>, value: usize) {
    let value = u16::try_from(value).expect("TableSchema::new limits columns, keys and metadata entries");
    out.extend_from_slice(&value.to_le_bytes());
}

fn push_string(out: &mut Vec<u8>, value: &str) {
    let length = u32::try_from(value.len()).expect("names and metadata are far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn push_type(out: &mut Vec<u8>, data_type: &DataType) {
    match data_type {
        DataType::Boolean => out.push(1),
        DataType::Int16 => out.push(2),
        DataType::Int32 => out.push(3),
        DataType::Int64 => out.push(4),
        DataType::Float32 => out.push(5),
        DataType::Float64 => out.push(6),
        // The scale is not negative, because TableSchema::new refuses that.
        DataType::Decimal128(precision, scale) => out.extend_from_slice(&[7, *precision, *scale as u8]),
        DataType::Utf8View => out.push(8),
        DataType::BinaryView => out.push(9),
        DataType::Date32 => out.push(10),
        DataType::Time64(TimeUnit::Microsecond) => out.push(11),
        DataType::Timestamp(TimeUnit::Microsecond, None) => out.push(12),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => {
            out.push(13);
            push_string(out, zone);
        }
        DataType::FixedSizeBinary(16) => out.push(14),
        DataType::List(item) => {
            out.push(15);
            push_type(out, item.data_type());
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => out.push(16),
        other => unreachable!("TableSchema::new refuses {other}"),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn column(&mut self) -> Result<Column> {
        let id = ColumnId(self.u32()?);
        let name = self.string()?;
        let is_nullable = self.nullable()?;
        let data_type = self.data_type()?;
        let mut metadata = HashMap::new();
        let mut last_key: Option<String> = None;
        for _ in 0..self.u16()? {
            let (key, value) = (self.string()?, self.string()?);
            if last_key.is_some_and(|last| last >= key) {
                return Err(malformed(self.at, "metadata keys do not rise"));
            }
            last_key = Some(key.clone());
            metadata.insert(key, value);
        }
        Ok(Column { id, field: Field::new(name, data_type, is_nullable).with_metadata(metadata) })
    }

    fn nullable(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed(self.at - 1, "nullable is neither 0 nor 1")),
        }
    }

    fn forms(&mut self) -> Result<Vec<Form>> {
        let mut forms = Vec::new();
        for _ in 0..self.u16()? {
            let id = ColumnId(self.u32()?);
            let is_nullable = self.nullable()?;
            let data_type = self.data_type()?;
            let (since, until) = (self.u16()?, self.u16()?);
            forms.push(Form { id, data_type, is_nullable, since, until: (until > 0).then_some(until) });
        }
        Ok(forms)
    }

    fn missing(&mut self) -> Result<BTreeMap<ColumnId, Vec<u8>>> {
        let mut missing = BTreeMap::new();
        for _ in 0..self.u16()? {
            let id = ColumnId(self.u32()?);
            if missing.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(malformed(self.at - 4, "column numbers of missing values do not rise"));
            }
            let length = self.u32()? as usize;
            let rest = &self.bytes[self.at..];
            let row = rest.get(..length).ok_or_else(|| malformed(self.at, "a missing value is cut short"))?;
            self.at += length;
            missing.insert(id, row.to_vec());
        }
        Ok(missing)
    }

    fn data_type(&mut self) -> Result<DataType> {
        Ok(match self.u8()? {
            1 => DataType::Boolean,
            2 => DataType::Int16,
            3 => DataType::Int32,
            4 => DataType::Int64,
            5 => DataType::Float32,
            6 => DataType::Float64,
            7 => {
                let precision = self.u8()?;
                let scale = i8::try_from(self.u8()?).map_err(|_| malformed(self.at - 1, "the scale is over 127"))?;
                DataType::Decimal128(precision, scale)
            }
            8 => DataType::Utf8View,
            9 => DataType::BinaryView,
            10 => DataType::Date32,
            11 => DataType::Time64(TimeUnit::Microsecond),
            12 => DataType::Timestamp(TimeUnit::Microsecond, None),
            13 => DataType::Timestamp(TimeUnit::Microsecond, Some(self.string()?.into())),
            14 => DataType::FixedSizeBinary(16),
            // Only one deep, so that forged bytes cannot exhaust the stack.
            15 if self.bytes.get(self.at) != Some(&15) => DataType::new_list(self.data_type()?, true),
            16 => DataType::Interval(IntervalUnit::MonthDayNano),
            _ => return Err(malformed(self.at - 1, "the column type is unknown")),
        })
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        let rest = &self.bytes[self.at..];
        let text = rest.get(..length).ok_or_else(|| malformed(self.at, "a string is cut short"))?;
        let text = std::str::from_utf8(text).map_err(|_| malformed(self.at, "a string is not UTF-8"))?;
        self.at += length;
        Ok(text.to_owned())
    }

    fn u8(&mut self) -> Result<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = &self.bytes[self.at..];
        let taken = *rest.first_chunk().ok_or_else(|| malformed(self.at, "the schema is cut short"))?;
        self.at += N;
        Ok(taken)
    }
}

fn malformed(offset: usize, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::malformed("table schema", offset, what)
}
