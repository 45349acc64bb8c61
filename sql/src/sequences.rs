//! `nextval`, `currval` and `lastval`: sequences as functions.
//!
//! They are bound to the catalog that a statement sees, so they are registered anew for each statement, and only where
//! there are sequences.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result as DfResult;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::catalog::Catalog;
use crate::ddl::undefined_sequence;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};

/// The numbers that a session drew last, by the sequence's counter.
#[derive(Debug, Default)]
pub(crate) struct LastNumbers(Mutex<Drawn>);

#[derive(Debug, Default)]
struct Drawn {
    by_counter: HashMap<u32, i64>,
    last: Option<i64>,
}

/// Adds the functions to the statement's state, if its catalog has a sequence.
pub(crate) fn register(state: &mut SessionState, engine: &Engine, catalog: &Arc<Catalog>) -> Result<()> {
    if catalog.sequences().next().is_none() {
        return Ok(());
    }
    let numbers = state.config().get_extension::<LastNumbers>().unwrap_or_default();
    for function in [Function::Next, Function::Current, Function::Last] {
        let (engine, catalog, numbers) = (engine.clone(), Arc::clone(catalog), Arc::clone(&numbers));
        let text = TypeSignature::String(1);
        let arguments = if function == Function::Last { TypeSignature::Nullary } else { text };
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
        let name = self.catalog.locate(&parts)?;
        let Some(sequence) = self.catalog.find_sequence(&name) else { return Err(undefined_sequence(&name)) };
        let mut drawn = self.numbers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.function == Function::Next {
            let number = sequence.shape.next(self.engine.db(), &name.to_string(), 1)?[0];
            drawn.by_counter.insert(sequence.shape.counter, number);
            drawn.last = Some(number);
            return Ok(number);
        }
        let found = drawn.by_counter.get(&sequence.shape.counter).copied();
        found.ok_or_else(|| undrawn(&format!("sequence {name}")))
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
            let last = self.numbers.0.lock().unwrap_or_else(PoisonError::into_inner).last;
            let last = last.ok_or_else(|| undrawn("any sequence"))?;
            return Ok(ColumnarValue::Array(Arc::new(Int64Array::from(vec![last; args.number_rows]))));
        }
        let names = args.args[0].to_array(args.number_rows)?;
        let names = cast(&names, &DataType::Utf8View)?;
        let number = |name: Option<&str>| name.map(|name| self.number(name)).transpose();
        let numbers: Int64Array = names.as_string_view().iter().map(number).collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(numbers) as ArrayRef))
    }
}
