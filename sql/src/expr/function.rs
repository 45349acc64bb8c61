//! `Function`: a scalar function of ours, made of its name, its result type and one step over arrays.

use std::hash::{Hash, Hasher};

use arrow::array::{Array, ArrayRef, StringViewArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

use crate::types::sql_name;

/// The result type, given those of the arguments.
pub(super) type Returns = fn(&[DataType]) -> Result<DataType>;
/// The result: all arguments have one length, the second parameter is the result type.
pub(super) type Run = fn(&[ArrayRef], &DataType) -> Result<ArrayRef>;

/// A function without state, NULL of NULL; two of one name are the same.
#[derive(Debug)]
pub(super) struct Function {
    pub name: &'static str,
    pub signature: Signature,
    pub returns: Returns,
    pub run: Run,
}

impl Function {
    /// One of immutable result that takes what it gets: the caller has seen to the types.
    pub(super) fn any(name: &'static str, count: usize, returns: Returns, run: Run) -> Function {
        Function { name, signature: Signature::any(count, Volatility::Immutable), returns, run }
    }

    /// A call of it.
    pub(super) fn call(self, args: Vec<Expr>) -> Expr {
        call(self, args)
    }
}

/// A call of a function that need not be registered.
pub(super) fn call(function: impl ScalarUDFImpl + 'static, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), args))
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        (self.returns)(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let run = |arrays: &[ArrayRef]| (self.run)(arrays, args.return_field.data_type());
        if self.name == PG_TYPEOF { over_arrays(&args, run) } else { strictly(&args, run) }
    }
}

/// Whether an argument is NULL in every row, whatever its type: DataFusion asks what becomes of a condition in rows without
/// a partner with NULLs of no type, or of one that a function in between made of it.
pub(super) fn is_nowhere(args: &ScalarFunctionArgs) -> bool {
    args.args.iter().any(|arg| match arg {
        ColumnarValue::Scalar(value) => value.is_null(),
        ColumnarValue::Array(array) => !array.is_empty() && array.logical_null_count() == array.len(),
    })
}

const PG_TYPEOF: &str = "pg_typeof";

/// [`over_arrays`], and NULL if an argument is NULL throughout.
pub(super) fn strictly(
    args: &ScalarFunctionArgs,
    step: impl FnOnce(&[ArrayRef]) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    if is_nowhere(args) {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_field.data_type())?));
    }
    over_arrays(args, step)
}

/// Runs `step` over arrays of one length; constants alone give a constant.
pub(super) fn over_arrays(
    args: &ScalarFunctionArgs,
    step: impl FnOnce(&[ArrayRef]) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let rows = if is_constant { 1 } else { args.number_rows };
    let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
    let result = step(&arrays)?;
    if is_constant {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
    }
    Ok(ColumnarValue::Array(result))
}

/// `pg_typeof(x)`: the SQL name of its type.
pub(super) fn pg_typeof() -> ScalarUDF {
    let run: Run = |args, _| Ok(Arc::new(StringViewArray::from(vec![sql_name(args[0].data_type()); args[0].len()])));
    ScalarUDF::from(Function::any(PG_TYPEOF, 1, |_| Ok(DataType::Utf8View), run))
}
