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
    /// The number that START named, where `start` has come to be another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<i64>,
    /// Bits of the integer type that it was declared of, if not 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u8>,
    /// What CACHE named; numbers are never taken ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<i64>,
    /// The column that it belongs to and is dropped with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SequenceOwner>,
}

/// The column of a table that a sequence belongs to, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SequenceOwner {
    pub table: u32,
    pub column: u32,
}

impl SequenceShape {
    /// Counts up from 1, within `min..=max` of its type.
    #[cfg(test)]
    pub(crate) fn ascending(counter: TableId, max: i64) -> SequenceShape {
        let (first, bits, cache, owner) = (None, None, None, None);
        let counter = counter.0;
        SequenceShape {
            counter,
            start: 1,
            increment: 1,
            min: 1,
            max,
            is_cycle: false,
            base: 0,
            first,
            bits,
            cache,
            owner,
        }
    }

    /// The number that START named.
    pub(crate) fn declared_start(&self) -> i64 {
        self.first.unwrap_or(self.start)
    }

    /// The number handed out last, `None` if none was since it was made or set; and whether it was asked for more than it has.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn last(&self, db: &Db) -> Result<(Option<i64>, bool)> {
        let count = db.allocate_row_ids(TableId(self.counter), 0)?;
        let Some(steps) = count.checked_sub(self.base + 1) else { return Ok((None, false)) };
        let limit = if self.increment > 0 { self.max } else { self.min };
        let reach = (i128::from(limit) - i128::from(self.start)) / i128::from(self.increment);
        let reach = u64::try_from(reach).unwrap_or(0);
        let is_past_end = !self.is_cycle && steps > reach;
        let last = self.number(if is_past_end { reach } else { steps }, "")?;
        Ok((Some(last), is_past_end))
    }

    /// It as it was declared, counted anew by `counter`.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn restarted(&self, counter: TableId, db: &Db) -> Result<SequenceShape> {
        let start = self.declared_start();
        SequenceShape { counter: counter.0, start, first: None, ..self.clone() }.fresh(db)
    }

    /// It at its start, whatever its counter was used for by a transaction that was rolled back.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn fresh(self, db: &Db) -> Result<SequenceShape> {
        let base = db.allocate_row_ids(TableId(self.counter), 0)?;
        Ok(SequenceShape { base, ..self })
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
        let (base, first) = (if is_called { taken } else { taken + 1 }, Some(self.declared_start()));
        Ok(Some(SequenceShape { start: value, base, first, ..self.clone() }))
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
