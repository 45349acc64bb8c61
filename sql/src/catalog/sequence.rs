//! Sequences: numbers handed out once, never rolled back, counted by the row store's allocator.
//!
//! The catalog holds how a count becomes a number; the count itself belongs to no transaction, as in PostgreSQL. A crash
//! may skip numbers, nothing repeats one.

use serde::{Deserialize, Serialize};
use strata_oltp::{Db, TableId};

use super::TableName;
use crate::error::{Error, Result, SqlState};

/// How the count of a sequence becomes its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SequenceShape {
    /// Number of the table whose allocator counts.
    pub counter: u32,
    pub start: i64,
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    #[serde(default)]
    pub is_cycle: bool,
    /// The count at which it stands at `start`.
    #[serde(default)]
    pub base: u64,
}

impl SequenceShape {
    /// Counts up from 1, within `min..=max` of its type.
    #[cfg(test)]
    pub(crate) fn ascending(counter: TableId, max: i64) -> SequenceShape {
        SequenceShape { counter: counter.0, start: 1, increment: 1, min: 1, max, is_cycle: false, base: 0 }
    }

    /// Hands out the next `count` numbers.
    ///
    /// # Errors
    /// 2200H at the end of the sequence; I/O.
    pub(crate) fn next(&self, db: &Db, name: &str, count: usize) -> Result<Vec<i64>> {
        let first = db.allocate_row_ids(TableId(self.counter), count as u64)?;
        (first..first + count as u64).map(|at| self.number(at.saturating_sub(self.base), name)).collect()
    }

    /// Sets the sequence to `value`, which is its last number or, unless it `is_called`, its next one: by counting on, if that
    /// gets there; otherwise by the shape that is returned and has to take the place of this one.
    ///
    /// # Errors
    /// 22003 for a value beyond the limits; I/O.
    pub(crate) fn set(&self, db: &Db, name: &str, value: i64, is_called: bool) -> Result<Option<SequenceShape>> {
        if !(self.min..=self.max).contains(&value) {
            let message = format!("{value} is no number of sequence {name}");
            return Err(Error::new(SqlState::NumericOutOfRange, message)
                .with_detail(format!("its numbers lie between {} and {}", self.min, self.max)));
        }
        // Counted off first: whoever draws at the same time comes before or after.
        let taken = db.allocate_row_ids(TableId(self.counter), 1)?;
        let distance = i128::from(value) - i128::from(self.start);
        let steps = u64::try_from(distance / i128::from(self.increment)).ok();
        let is_on_the_way = distance % i128::from(self.increment) == 0 && !self.is_cycle;
        let target = steps.filter(|_| is_on_the_way).map(|steps| self.base + steps + u64::from(is_called));
        if let Some(ahead) = target.and_then(|target| target.checked_sub(taken + 1)).filter(|ahead| *ahead < AHEAD_MAX)
        {
            db.allocate_row_ids(TableId(self.counter), ahead)?;
            return Ok(None);
        }
        Ok(Some(SequenceShape { start: value, base: if is_called { taken } else { taken + 1 }, ..self.clone() }))
    }

    /// The number after `steps` steps from the start.
    fn number(&self, steps: u64, name: &str) -> Result<i64> {
        let (limit, other) = if self.increment > 0 { (self.max, self.min) } else { (self.min, self.max) };
        let reach = |from: i64| (i128::from(limit) - i128::from(from)) / i128::from(self.increment);
        let at = |from: i64, steps: i128| i128::from(from) + steps * i128::from(self.increment);
        let steps = i128::from(steps);
        let number = match steps - reach(self.start) - 1 {
            beyond if beyond < 0 => at(self.start, steps),
            beyond if self.is_cycle => at(other, beyond % (reach(other) + 1)),
            _ => {
                let (end, hint) = if self.increment > 0 { ("maximum", "MAXVALUE") } else { ("minimum", "MINVALUE") };
                let message = format!("sequence {name} has reached its {end} value, {limit}");
                return Err(Error::new(SqlState::SequenceLimit, message)
                    .with_hint(format!("give it a wider {hint}, or let it CYCLE")));
            }
        };
        i64::try_from(number).map_err(|_| Error::internal("a sequence beyond 64 bits"))
    }
}

/// How far the count goes on at once, so that it never comes near its end.
const AHEAD_MAX: u64 = 1 << 62;

/// A sequence with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub name: TableName,
    pub shape: SequenceShape,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(shape: &SequenceShape) -> Vec<Option<i64>> {
        (0..6).map(|steps| shape.number(steps, "s").ok()).collect()
    }

    #[test]
    fn numbers_end_or_begin_again_at_the_other_side() {
        let up = SequenceShape { start: 3, increment: 2, max: 8, ..SequenceShape::ascending(TableId(7), 8) };
        assert_eq!(numbers(&up), [Some(3), Some(5), Some(7), None, None, None]);
        let round = SequenceShape { is_cycle: true, ..up };
        assert_eq!(numbers(&round), [Some(3), Some(5), Some(7), Some(1), Some(3), Some(5)]);
        let down = SequenceShape { start: -1, increment: -2, min: -4, max: -1, ..round };
        assert_eq!(numbers(&down), [Some(-1), Some(-3), Some(-1), Some(-3), Some(-1), Some(-3)]);
    }

    #[test]
    fn the_largest_number_is_reached() {
        let end = SequenceShape { start: i64::MAX - 1, ..SequenceShape::ascending(TableId(7), i64::MAX) };
        assert_eq!(numbers(&end)[..3], [Some(i64::MAX - 1), Some(i64::MAX), None]);
    }
}
