//! JSON's operators and functions, over text: `-> ->> #> #>> @> ?`, `json_typeof`, `json_array_length`,
//! `json_extract_path`, `json_build_object` and their like, each also under its `jsonb_` name.
//!
//! A JSON value is text in the engine; that it is one is known by the extension type `arrow.json` of its field.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, StringViewArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::function::{call, over_arrays};
use crate::error::{Error, SqlState};
use crate::types::json::{self, JsonKind};
use crate::types::{is_json_field, is_text, json_field, read_list, text_views, write_text};

/// What a JSON function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    /// Text checked to be JSON.
    Check,
    /// Member, element or path.
    Get,
    GetPath,
    GetText,
    GetPathText,
    Contains,
    HasKey,
    Typeof,
    ArrayLength,
    BuildObject,
    BuildArray,
    ToJson,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Json {
    op: Op,
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

fn json(op: Op, name: &'static str) -> Json {
    let aliases = match name.strip_prefix("json_") {
        Some(rest) => vec![format!("jsonb_{rest}")],
        None if name == "to_json" => vec!["to_jsonb".to_owned()],
        None => Vec::new(),
    };
    Json { op, name, aliases, signature: Signature::variadic_any(Volatility::Immutable) }
}

/// Functions to be called by name.
pub(super) fn functions() -> Vec<ScalarUDF> {
    [
        json(Op::Typeof, "json_typeof"),
        json(Op::ArrayLength, "json_array_length"),
        json(Op::GetPath, "json_extract_path"),
        json(Op::GetPathText, "json_extract_path_text"),
        json(Op::BuildObject, "json_build_object"),
        json(Op::BuildArray, "json_build_array"),
        json(Op::ToJson, "to_json"),
    ]
    .into_iter()
    .map(ScalarUDF::from)
    .collect()
}

/// Text as JSON.
pub(super) fn checked(expr: Expr) -> Expr {
    call(json(Op::Check, "json"), vec![expr])
}

/// The operator `op`, if it is JSON's and has a JSON value on its left.
pub(super) fn operator(op: &BinaryOperator, left: &Expr, l: &DataType, right: &Expr, r: &DataType) -> Option<Expr> {
    let function = match op {
        BinaryOperator::Arrow => json(Op::Get, "json_get"),
        BinaryOperator::LongArrow => json(Op::GetText, "json_get_text"),
        BinaryOperator::HashArrow => json(Op::GetPath, "json_extract_path"),
        BinaryOperator::HashLongArrow => json(Op::GetPathText, "json_extract_path_text"),
        BinaryOperator::AtArrow => json(Op::Contains, "json_contains"),
        BinaryOperator::Question => json(Op::HasKey, "json_has_key"),
        _ => return None,
    };
    let fits = is_text(l) && (is_text(r) || r.is_integer() || matches!(r, DataType::List(_)));
    let right = match op {
        BinaryOperator::HashArrow | BinaryOperator::HashLongArrow if is_text(r) => {
            let path = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)));
            Expr::Cast(Cast::new(Box::new(right.clone()), path))
        }
        _ => right.clone(),
    };
    fits.then(|| call(function, vec![left.clone(), right]))
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.op {
            Op::Contains | Op::HasKey => DataType::Boolean,
            Op::ArrayLength => DataType::Int32,
            _ => DataType::Utf8View,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let needed = match self.op {
            Op::BuildObject | Op::BuildArray => 0,
            Op::Check | Op::Typeof | Op::ArrayLength | Op::ToJson => 1,
            _ => 2,
        };
        let takes_more = matches!(self.op, Op::BuildObject | Op::BuildArray | Op::GetPath | Op::GetPathText);
        let is_odd = self.op == Op::BuildObject && types.len() % 2 == 1;
        if types.len() < needed || types.len() > needed && !takes_more || is_odd {
            let message = format!("function {} does not take {} arguments", self.name, types.len());
            return Err(Error::new(SqlState::UndefinedFunction, message).into());
        }
        let is_value =
            matches!(self.op, Op::Check | Op::Get | Op::GetPath | Op::BuildObject | Op::BuildArray | Op::ToJson);
        let field = Field::new(self.name, self.return_type(&types)?, true);
        Ok(Arc::new(if is_value { json_field(field) } else { field }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let fields = args.arg_fields.clone();
        let rows = args.number_rows;
        over_arrays(&args, |arrays| {
            let rows = arrays.first().map_or(if args.args.is_empty() { 1 } else { rows }, Array::len);
            self.run(arrays, &fields, rows).map_err(DataFusionError::from)
        })
    }
}

impl Json {
    fn run(&self, arrays: &[ArrayRef], fields: &[FieldRef], rows: usize) -> Result<ArrayRef, Error> {
        match self.op {
            Op::BuildObject | Op::BuildArray | Op::ToJson => {
                let built = (0..rows).map(|row| self.build(arrays, fields, row));
                Ok(Arc::new(built.collect::<Result<StringViewArray, Error>>()?))
            }
            Op::Get | Op::GetText if !is_text(arrays[1].data_type()) => {
                let texts = text_views(&arrays[0])?;
                let indices = arrow::compute::cast(&arrays[1], &DataType::Int64)?;
                let indices = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&indices).clone();
                let one = |(text, index): (Option<&str>, Option<i64>)| self.shown(json::element(text?, index?));
                Ok(Arc::new(texts.iter().zip(indices.iter()).map(one).collect::<StringViewArray>()))
            }
            Op::Get | Op::GetText => {
                let (texts, keys) = (text_views(&arrays[0])?, text_views(&arrays[1])?);
                let one = |(text, key): (Option<&str>, Option<&str>)| self.shown(json::member(text?, key?));
                Ok(Arc::new(texts.iter().zip(keys.iter()).map(one).collect::<StringViewArray>()))
            }
            Op::GetPath | Op::GetPathText => {
                let texts = text_views(&arrays[0])?;
                let one = |row: usize| {
                    let path = path(&arrays[1..], row)?;
                    let value = (!texts.is_null(row)).then(|| texts.value(row));
                    Ok(value.zip(path).and_then(|(text, path)| self.shown(json::at_path(text, &path))))
                };
                Ok(Arc::new((0..rows).map(one).collect::<Result<StringViewArray, Error>>()?))
            }
            Op::Contains | Op::HasKey => {
                let (left, right) = (text_views(&arrays[0])?, text_views(&arrays[1])?);
                let one = |(left, right): (Option<&str>, Option<&str>)| {
                    let (left, right) = (left?, right?);
                    Some(match self.op {
                        Op::Contains => json::contains(left, right),
                        _ => has_key(left, right),
                    })
                };
                Ok(Arc::new(left.iter().zip(right.iter()).map(one).collect::<BooleanArray>()))
            }
            Op::Typeof => {
                let texts = text_views(&arrays[0])?;
                let kinds = texts.iter().map(|text| text.map(|text| JsonKind::of(text).name()));
                Ok(Arc::new(kinds.collect::<StringViewArray>()))
            }
            Op::ArrayLength => {
                let one = |text: Option<&str>| {
                    let Some(text) = text else { return Ok(None) };
                    let not_array = || Error::new(SqlState::InvalidParameter, "cannot get array length of a non-array");
                    let length = json::elements(text).ok_or_else(not_array)?.len();
                    Ok(i32::try_from(length).ok())
                };
                Ok(Arc::new(text_views(&arrays[0])?.iter().map(one).collect::<Result<Int32Array, Error>>()?))
            }
            Op::Check => {
                let texts = text_views(&arrays[0])?;
                check(&texts, None)?;
                Ok(Arc::new(texts))
            }
        }
    }

    fn shown(&self, value: Option<&str>) -> Option<String> {
        match self.op {
            Op::GetText | Op::GetPathText => json::as_text(value?),
            _ => value.map(|value| value.trim().to_owned()),
        }
    }

    fn build(&self, arrays: &[ArrayRef], fields: &[FieldRef], row: usize) -> Result<Option<String>, Error> {
        let value = |at: usize| to_json(arrays[at].as_ref(), is_json_field(&fields[at]), row);
        let all = || (0..arrays.len()).map(value).collect::<Result<Vec<_>, Error>>();
        match self.op {
            Op::ToJson if arrays[0].is_null(row) => Ok(None),
            Op::ToJson => value(0).map(Some),
            Op::BuildArray => Ok(Some(format!("[{}]", all()?.join(", ")))),
            _ => {
                let mut parts = Vec::with_capacity(arrays.len() / 2);
                for pair in 0..arrays.len() / 2 {
                    let key = &arrays[2 * pair];
                    if key.is_null(row) {
                        return Err(Error::new(SqlState::InvalidParameter, "a key of a JSON object cannot be NULL"));
                    }
                    let mut text = String::new();
                    write_text(key, row, &mut text)?;
                    parts.push(format!("{} : {}", json::quoted(&text), value(2 * pair + 1)?));
                }
                Ok(Some(format!("{{{}}}", parts.join(", "))))
            }
        }
    }
}

/// Checks that every text is JSON.
///
/// # Errors
/// 22P02 with the beginning of the first that is not.
pub(crate) fn check(texts: &StringViewArray, column: Option<&str>) -> Result<(), Error> {
    match texts.iter().flatten().find(|text| !json::is_json(text)) {
        None => Ok(()),
        Some(text) => {
            let shown: String = text.chars().take(60).collect();
            let place = column.map(|column| format!("column {column} of ")).unwrap_or_default();
            Err(Error::new(SqlState::InvalidText, format!("invalid input for {place}type json"))
                .with_detail(format!("{shown:?} does not read as json")))
        }
    }
}

fn has_key(text: &str, key: &str) -> bool {
    match JsonKind::of(text) {
        JsonKind::Object => json::member(text, key).is_some(),
        JsonKind::Array => {
            json::elements(text).unwrap_or_default().iter().any(|found| json::string(found).as_deref() == Some(key))
        }
        JsonKind::String => json::string(text).as_deref() == Some(key),
        _ => false,
    }
}

/// The steps of a path: one array of them, or one argument each.
fn path(arrays: &[ArrayRef], row: usize) -> Result<Option<Vec<String>>, Error> {
    if arrays.iter().any(|array| array.is_null(row)) {
        return Ok(None);
    }
    if let [only] = arrays
        && let Some(steps) = read_list(only, row)?
    {
        return Ok(Some(steps));
    }
    let step = |array: &ArrayRef| {
        let mut text = String::new();
        write_text(array, row, &mut text).map(|()| text)
    };
    arrays.iter().map(step).collect::<Result<Vec<_>, Error>>().map(Some)
}

/// The value at `row` as JSON.
fn to_json(array: &dyn Array, is_json: bool, row: usize) -> Result<String, Error> {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Ok("null".to_owned());
    }
    let mut text = String::new();
    match array.data_type() {
        DataType::Boolean => {
            let value = arrow::array::AsArray::as_boolean(array).value(row);
            return Ok(value.to_string());
        }
        DataType::List(_) => {
            let items = arrow::array::AsArray::as_list::<i32>(array).value(row);
            let items = (0..items.len()).map(|at| to_json(items.as_ref(), false, at));
            return Ok(format!("[{}]", items.collect::<Result<Vec<_>, Error>>()?.join(",")));
        }
        DataType::Timestamp(..) => {
            write_text(array, row, &mut text)?;
            return Ok(json::quoted(&text.replacen(' ', "T", 1)));
        }
        _ => write_text(array, row, &mut text)?,
    }
    let is_number = array.data_type().is_numeric() && json::is_json(&text);
    Ok(if is_json || is_number { text } else { json::quoted(&text) })
}
