//! Functions that answer differently from DataFusion's, because PostgreSQL does.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL128_MAX_SCALE, DataType, FieldRef};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::functions_aggregate::average::Avg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};

/// Puts our functions in place of those with the same name.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    registry.register_udaf(Arc::new(AggregateUDF::from(DecimalAvg::default())))?;
    Ok(())
}

/// `avg`, with enough digits: DataFusion gives a decimal four more than its argument has, which leaves three or four
/// significant ones of a discount of 0.05. PostgreSQL gives at least sixteen; so do we wherever a sum over 10⁹ rows and
/// its quotient fit into 128 bits, and never fewer than DataFusion. Digits beyond the last are cut off, and a sum or an
/// average out of range is an error. All the work is DataFusion's.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct DecimalAvg {
    avg: Avg,
}

/// Digits added to a decimal argument of this precision.
fn added_digits(precision: u8) -> u8 {
    /// As many as PostgreSQL adds to an argument with two to four places.
    const WANTED: u8 = 12;
    const AT_LEAST: u8 = 4;
    /// Of the 38 digits of the accumulator, 9 are for the number of rows. Above this the accumulator has 256 bits.
    const NARROW_MAX: u8 = 25;
    let free = if precision <= NARROW_MAX { 29 - precision } else { DECIMAL128_MAX_PRECISION - precision };
    free.clamp(AT_LEAST, WANTED)
}

impl AggregateUDFImpl for DecimalAvg {
    fn name(&self) -> &'static str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        self.avg.aliases()
    }

    fn signature(&self) -> &Signature {
        self.avg.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Decimal128(precision, scale)] => {
                let added = added_digits(*precision);
                let scale = scale.saturating_add_unsigned(added).min(DECIMAL128_MAX_SCALE);
                Ok(DataType::Decimal128((precision + added).min(DECIMAL128_MAX_PRECISION), scale))
            }
            _ => self.avg.return_type(arg_types),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.avg.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.avg.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.avg.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.avg.create_groups_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.avg.reverse_expr()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.avg.documentation()
    }
}
