//! `nextval`, `currval`, `lastval` and `setval`: sequences as functions.
//!
//! They are bound to the catalog that a statement sees, so they are registered anew for each statement, and only where
//! there are sequences.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result as DfResult;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use strata_oltp::commit::Durability;

use crate::catalog::sequence::SequenceShape;
use crate::catalog::{Catalog, TableName};
use crate::ddl::undefined_sequence;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};

/// Attempts to change a sequence beside others that change the catalog.
const RETRIES_MAX: usize = 100;

/// The numbers that a session drew last, by the sequence's counter.
#[derive(Debug, Default)]
pub(crate) struct LastNumbers(Mutex<Drawn>);

#[derive(Debug, Default)]
struct Drawn {
    by_counter: HashMap<u32, i64>,
    /// The counter that a number was drawn of last.
    last: Option<u32>,
}

/// Adds the functions to the statement's state, if its catalog has a sequence.
pub(crate) fn register(state: &mut SessionState, engine: &Engine, catalog: &Arc<Catalog>) -> Result<()> {
    if catalog.sequences().next().is_none() && catalog.tables().all(|table| table.rules.identities.is_empty()) {
        return Ok(());
    }
    let numbers = state.config().get_extension::<LastNumbers>().unwrap_or_default();
    for function in [Function::Next, Function::Current, Function::Last, Function::Set] {
        let (engine, catalog, numbers) = (engine.clone(), Arc::clone(catalog), Arc::clone(&numbers));
        let arguments = match function {
            Function::Last => TypeSignature::Nullary,
            Function::Set => TypeSignature::OneOf(vec![TypeSignature::Any(2), TypeSignature::Any(3)]),
            Function::Next | Function::Current => TypeSignature::String(1),
        };
        let signature = Signature::new(arguments, Volatility::Volatile);
        let function = SequenceFunction { function, engine, catalog, numbers, signature };
        state.register_udf(Arc::new(ScalarUDF::from(function)))?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    Next,
    Current,
    Last,
    Set,
}

#[derive(Debug)]
struct SequenceFunction {
    function: Function,
    engine: Engine,
    catalog: Arc<Catalog>,
    numbers: Arc<LastNumbers>,
    signature: Signature,
}

/// Two of them are the same function if they read the same catalog.
impl PartialEq for SequenceFunction {
    fn eq(&self, other: &SequenceFunction) -> bool {
        self.function == other.function && Arc::ptr_eq(&self.catalog, &other.catalog)
    }
}

impl Eq for SequenceFunction {}

impl Hash for SequenceFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl SequenceFunction {
    fn number(&self, name: &str) -> Result<i64> {
        let parts = name_parts(name);
        let (name, Some(shape)) = self.shape(&parts)? else {
            return Err(undefined_sequence(&self.catalog.locate(&parts)?));
        };
        let mut drawn = self.numbers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.function == Function::Next {
            let number = shape.next(self.engine.db(), &name.to_string(), 1)?[0];
            drawn.by_counter.insert(shape.counter, number);
            drawn.last = Some(shape.counter);
            return Ok(number);
        }
        let found = drawn.by_counter.get(&shape.counter).copied();
        found.ok_or_else(|| undrawn(&format!("sequence {name}")))
    }

    /// The sequence that is meant, as it is by now: `setval` belongs to no transaction.
    fn shape(&self, parts: &[String]) -> Result<(TableName, Option<SequenceShape>)> {
        let (name, shape) = self.catalog.numbering(parts)?;
        let Some(shape) = shape else { return Ok((name, None)) };
        let newest = self.engine.catalog_at(&self.engine.db().snapshot())?;
        if let Some(found) = newest.numbering_by(shape.counter) {
            return Ok((name, Some(found)));
        }
        // Counted by another by now, unless this transaction has changed it and the newer counter is its own.
        let by_name = newest.numbering(&[name.schema.clone(), name.table.clone()])?.1;
        let newer = by_name.filter(|other| other.counter > shape.counter);
        Ok((name, Some(newer.unwrap_or(shape))))
    }

    /// `setval`.
    fn set(&self, name: &str, value: i64, is_called: bool) -> Result<i64> {
        let parts = name_parts(name);
        let (name, Some(shape)) = self.shape(&parts)? else {
            return Err(undefined_sequence(&self.catalog.locate(&parts)?));
        };
        if let Some(shape) = shape.set(self.engine.db(), &name.to_string(), value, is_called)? {
            self.reshape(&name, &shape)?;
        }
        if is_called {
            let mut drawn = self.numbers.0.lock().unwrap_or_else(PoisonError::into_inner);
            drawn.by_counter.insert(shape.counter, value);
        }
        Ok(value)
    }

    /// Changes the sequence in a transaction of its own.
    fn reshape(&self, name: &TableName, shape: &SequenceShape) -> Result<()> {
        let mut attempt = 0;
        loop {
            let mut txn = self.engine.db().begin()?;
            let mut catalog = Catalog::clone(&*self.engine.catalog_at(txn.snapshot())?);
            if !catalog.reshape_sequence(&mut txn, shape)? {
                return Err(Error::unsupported(format!(
                    "setting sequence {name} back in the transaction that made it"
                ))
                .with_hint("COMMIT first, or create it with START"));
            }
            match txn.commit(Durability::Durable) {
                Err(strata_oltp::Error::Conflict { .. }) if attempt < RETRIES_MAX => attempt += 1,
                other => return other.map(|_| ()).map_err(Error::from),
            }
        }
    }

    /// `setval` of every row of `args`.
    fn set_all(&self, args: &ScalarFunctionArgs) -> Result<Int64Array> {
        let column = |at: usize, data_type: &DataType| match args.args.get(at) {
            Some(value) => Ok::<_, Error>(Some(cast(&value.to_array(args.number_rows)?, data_type)?)),
            None => Ok(None),
        };
        let (names, values) = (column(0, &DataType::Utf8View)?, column(1, &DataType::Int64)?);
        let called = column(2, &DataType::Boolean)?;
        let (Some(names), Some(values)) = (names, values) else { return Err(Error::internal("setval of nothing")) };
        let (names, values) = (names.as_string_view(), values.as_primitive::<Int64Type>());
        (0..args.number_rows)
            .map(|row| {
                if names.is_null(row)
                    || values.is_null(row)
                    || called.as_ref().is_some_and(|called| called.is_null(row))
                {
                    return Ok(None);
                }
                let is_called = called.as_ref().is_none_or(|called| called.as_boolean().value(row));
                self.set(names.value(row), values.value(row), is_called).map(Some)
            })
            .collect()
    }
}

fn undrawn(what: &str) -> Error {
    Error::new(SqlState::NotInPrerequisiteState, format!("no number of {what} was drawn in this session"))
        .with_hint("call nextval first")
}

/// Whether `name` is a function of these.
pub(crate) fn is_known(name: &str) -> bool {
    matches!(name, "nextval" | "currval" | "setval" | "lastval")
}

/// Parts of a name in text as SQL reads it.
pub(crate) fn name_parts(name: &str) -> Vec<String> {
    name.split('.').map(unquoted).collect()
}

/// A part of a name as SQL reads it.
fn unquoted(part: &str) -> String {
    match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => part.to_lowercase(),
    }
}

impl ScalarUDFImpl for SequenceFunction {
    fn name(&self) -> &'static str {
        match self.function {
            Function::Next => "nextval",
            Function::Current => "currval",
            Function::Last => "lastval",
            Function::Set => "setval",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        if self.function == Function::Last {
            let drawn = self.numbers.0.lock().unwrap_or_else(PoisonError::into_inner);
            let last = drawn.last.and_then(|counter| drawn.by_counter.get(&counter).copied());
            let last = last.ok_or_else(|| undrawn("any sequence"))?;
            return Ok(ColumnarValue::Array(Arc::new(Int64Array::from(vec![last; args.number_rows]))));
        }
        if self.function == Function::Set {
            return Ok(ColumnarValue::Array(Arc::new(self.set_all(&args)?)));
        }
        let names = args.args[0].to_array(args.number_rows)?;
        let names = cast(&names, &DataType::Utf8View)?;
        let number = |name: Option<&str>| name.map(|name| self.number(name)).transpose();
        let numbers: Int64Array = names.as_string_view().iter().map(number).collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(numbers) as ArrayRef))
    }
}
