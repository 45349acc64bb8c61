//! Distinct-count sketches: how many different values a column holds, within a few percent, in 2 KB.
//!
//! `HyperLogLog` with 2048 registers (standard error 2.3 %), linear counting below 2.5 values a register. Source:
//! Flajolet et al., "`HyperLogLog`", 2007. Sketches of segments merge into one for the table, which estimates alone
//! could not.

use arrow::array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{Array, ArrowPrimitiveType, AsArray};
use arrow::datatypes::DataType;
use strata_oltp::Result;
use xxhash_rust::xxh3::xxh3_64;

use super::wire::{Fields, put_varint};

const PRECISION: u32 = 11;
const REGISTERS: usize = 1 << PRECISION;
/// Non-zero registers above which the dense form is smaller: a sparse one costs about three bytes.
const SPARSE_MAX: usize = REGISTERS / 3;

/// Estimates how many distinct values it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    registers: Vec<u8>,
}

impl Default for Sketch {
    fn default() -> Self {
        Sketch { registers: vec![0; REGISTERS] }
    }
}

impl Sketch {
    /// Adds the hash of a value.
    #[inline]
    pub fn add(&mut self, hash: u64) {
        let register = (hash >> (64 - PRECISION)) as usize;
        let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() + 1;
        let rank = rank.to_le_bytes()[0];
        if self.registers[register] < rank {
            self.registers[register] = rank;
        }
    }

    /// Adds the values of a column, NULLs left out.
    pub fn add_column(&mut self, column: &dyn Array) {
        match column.data_type() {
            DataType::Boolean => {
                let column = column.as_boolean();
                let trues = column.true_count();
                if trues > 0 {
                    self.add(mix(1));
                }
                if trues < column.len() - column.null_count() {
                    self.add(mix(0));
                }
            }
            DataType::Int16 => self.add_numbers::<Int16Type>(column, |v| v as u64),
            DataType::Int32 => self.add_numbers::<Int32Type>(column, |v| v as u64),
            DataType::Int64 => self.add_numbers::<Int64Type>(column, |v| v as u64),
            DataType::Date32 => self.add_numbers::<Date32Type>(column, |v| v as u64),
            DataType::Time64(_) => self.add_numbers::<Time64MicrosecondType>(column, |v| v as u64),
            DataType::Timestamp(_, _) => self.add_numbers::<TimestampMicrosecondType>(column, |v| v as u64),
            DataType::Float32 => self.add_numbers::<Float32Type>(column, |v| u64::from((v + 0.0).to_bits())),
            DataType::Float64 => self.add_numbers::<Float64Type>(column, |v| (v + 0.0).to_bits()),
            DataType::Decimal128(_, _) => {
                self.add_numbers::<Decimal128Type>(column, |v| v as u64 ^ mix((v >> 64) as u64));
            }
            DataType::Utf8View => {
                column.as_string_view().iter().flatten().for_each(|v| self.add(xxh3_64(v.as_bytes())));
            }
            DataType::BinaryView => column.as_binary_view().iter().flatten().for_each(|v| self.add(xxh3_64(v))),
            DataType::FixedSizeBinary(_) => {
                column.as_fixed_size_binary().iter().flatten().for_each(|v| self.add(xxh3_64(v)));
            }
            DataType::Interval(_) => column.as_primitive::<IntervalMonthDayNanoType>().iter().flatten().for_each(|v| {
                self.add(mix(v.nanoseconds as u64 ^ mix((v.months as u64) << 32 ^ u64::from(v.days as u32))));
            }),
            // As if all lists of a group were different: telling them apart is not worth its time.
            DataType::List(_) => (0..column.len() as u64).for_each(|row| self.add(mix(row))),
            other => debug_assert!(false, "{other} is not storable"),
        }
    }

    /// Adds everything that `other` was given.
    pub fn merge(&mut self, other: &Sketch) {
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// The estimate.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        let count = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|&rank| (-f64::from(rank)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let zeros = self.registers.iter().filter(|&&rank| rank == 0).count();
        let estimate = if raw <= 2.5 * count && zeros > 0 { count * (count / zeros as f64).ln() } else { raw };
        estimate.round() as u64
    }

    /// Appends the stored form: sparse (count, then gaps and ranks) or dense.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let used = self.registers.iter().filter(|&&rank| rank != 0).count();
        if used > SPARSE_MAX {
            out.push(1);
            out.extend_from_slice(&self.registers);
            return;
        }
        out.push(0);
        put_varint(out, used as u64);
        let mut next = 0;
        for (register, &rank) in self.registers.iter().enumerate().filter(|&(_, &rank)| rank != 0) {
            put_varint(out, (register - next) as u64);
            out.push(rank);
            next = register + 1;
        }
    }

    /// Reads one stored sketch.
    ///
    /// # Errors
    /// Corrupt if it is not one.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Sketch> {
        let mut sketch = Sketch::default();
        match fields.u8()? {
            0 => {
                let mut next = 0;
                for _ in 0..fields.count(1)? {
                    let register = fields.varint32()? as usize + next;
                    let rank = fields.u8()?;
                    match sketch.registers.get_mut(register) {
                        Some(slot) => *slot = rank,
                        None => return Err(fields.corrupt("sketch register out of range")),
                    }
                    next = register + 1;
                }
            }
            1 => sketch.registers.copy_from_slice(fields.take(REGISTERS)?),
            _ => return Err(fields.corrupt("unknown sketch form")),
        }
        Ok(sketch)
    }

    fn add_numbers<T: ArrowPrimitiveType>(&mut self, column: &dyn Array, bits: impl Fn(T::Native) -> u64) {
        let column = column.as_primitive::<T>();
        if column.null_count() == 0 {
            column.values().iter().for_each(|&value| self.add(mix(bits(value))));
        } else {
            column.iter().flatten().for_each(|value| self.add(mix(bits(value))));
        }
    }
}

/// Spreads the bits of a number evenly. Source: finaliser of `MurmurHash3`, Austin Appleby.
#[inline]
fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use strata_oltp::FileKind;

    use super::*;

    fn sketch_of(range: std::ops::Range<u64>) -> Sketch {
        let mut sketch = Sketch::default();
        range.for_each(|value| sketch.add(mix(value)));
        sketch
    }

    #[test]
    fn estimates_within_a_tenth() {
        for count in [0, 1, 7, 100, 2_000, 6_000, 50_000, 400_000] {
            let estimate = sketch_of(0..count).estimate();
            assert!(estimate.abs_diff(count) * 10 <= count, "{count} values estimated as {estimate}");
        }
    }

    #[test]
    fn merging_is_adding_all() {
        let mut merged = sketch_of(0..3_000);
        merged.merge(&sketch_of(2_000..9_000));
        assert_eq!(merged, sketch_of(0..9_000));
    }

    #[test]
    fn stored_form_round_trips() {
        for count in [0, 5, 500, 50_000] {
            let sketch = sketch_of(0..count);
            let mut bytes = Vec::new();
            sketch.encode(&mut bytes);
            let mut fields = Fields::new(FileKind::Keys, Path::new("x"), 0, &bytes);
            assert_eq!(Sketch::decode(&mut fields).unwrap(), sketch);
            fields.finish().unwrap();
        }
    }
}
