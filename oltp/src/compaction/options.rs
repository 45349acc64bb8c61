//! `CompactionOptions`: the shape of a `row` table's levels, chosen per table.
//!
//! The shapes are points of one family, the *fluid LSM* of Dayan and Idreos: "Dostoevsky: Better Space-Time Trade-Offs
//! for LSM-Tree Based Key-Value Stores via Adaptive Removal of Superfluous Merging" (SIGMOD 2018): each level holds up
//! to `size_ratio` times what the level above it holds, in at most K sorted runs, the last level in at most Z.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// How eagerly runs are merged; see [`super`] for what each costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompactionPolicy {
    /// One sorted run per level: least space, fewest runs to read, most writes.
    #[default]
    Leveled,
    /// Several sorted runs in every level: fewest writes, most space and runs to read.
    Tiered,
    /// Several sorted runs in every level but the last: nearly the space of leveled, nearly the writes of tiered.
    LazyLeveled,
}

/// Settings of one table's levels. Start from `CompactionOptions::default()` and change fields, or
/// [`CompactionOptions::set`] them by name.
///
/// As text they read like the options of `CREATE TABLE … WITH (…)`, of which they are a part:
///
/// ```
/// use strata_oltp::compaction::{CompactionOptions, CompactionPolicy};
///
/// let options: CompactionOptions = "compaction = 'lazy-leveled', size_ratio = 6".parse()?;
/// assert_eq!(options.policy, CompactionPolicy::LazyLeveled);
/// assert_eq!(options.to_string(), "compaction = 'lazy-leveled', size_ratio = 6");
/// # Ok::<(), strata_oltp::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionOptions {
    /// The shape.
    pub policy: CompactionPolicy,
    /// How many times larger a level is than the one above it, 2 to 64. 8 keeps the upper levels at a seventh of the last
    /// (space) while a byte is rewritten some five times per level at worst.
    pub size_ratio: u32,
    /// Sorted runs of a level that may have several, 1 to `size_ratio` - 1, which is also what `None` stands for.
    pub runs_per_level: Option<u32>,
    /// Runs in level 0 that make it due. Four flushes share one merge with the level below.
    pub level0_runs_min: u32,
    /// Each sorted run of the uppermost level below 0 holds at most this. Eight flushes: a smaller one would be merged through by every batch
    /// from level 0, a larger one would be rewritten for each.
    pub first_level_bytes_max: u64,
    /// Files are cut at this size, between keys. 32 MiB rewrite in a quarter of a second, and ten thousand of them are
    /// 320 GiB.
    pub file_bytes_max: u64,
    /// Merges stop growing at about this many input bytes, so that level 0 does not wait for long.
    pub job_bytes_max: u64,
    /// A file below level 0 with at least this share of tombstones moves on although its level is not full.
    pub tombstone_percent_min: u32,
    /// Tombstones move on, in whatever level, when their file has been there for this long: deleted rows are gone from
    /// disk after as many of these as there are levels in use.
    pub tombstone_age_ms_max: u64,
    /// Rows of at least so many encoded bytes go to value files when they are flushed; 0 for none. At 4 KiB a row is half
    /// a block, so moving it costs a merge forty times what moving a reference to it does, and the one read more is small
    /// beside the row itself.
    pub large_value_bytes: u64,
    /// A value file with at least this share of garbage is emptied: its other values are written to a new one. At half, a
    /// value is rewritten about once in its life, and value files take at most twice what is alive.
    pub value_garbage_percent_min: u32,
    /// Value files are cut at this size. As large as a few memtables, so that what is garbage frees space soon.
    pub value_file_bytes_max: u64,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        CompactionOptions {
            policy: CompactionPolicy::default(),
            size_ratio: 8,
            runs_per_level: None,
            level0_runs_min: 4,
            first_level_bytes_max: 512 << 20,
            file_bytes_max: 32 << 20,
            job_bytes_max: 1 << 30,
            tombstone_percent_min: 25,
            tombstone_age_ms_max: 24 * 3_600_000,
            large_value_bytes: 4 << 10,
            value_garbage_percent_min: 50,
            value_file_bytes_max: 128 << 20,
        }
    }
}

impl CompactionOptions {
    /// Sets the option that `CREATE TABLE … WITH` calls `name`: `compaction`, `size_ratio`, `runs_per_level` or
    /// `large_value_bytes`. Follow the last with [`CompactionOptions::check`]. `false` if there is no option of that name here.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it does not take `value`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        let refused = || Error::Invalid(format!("{name} is a whole number, which '{value}' is not"));
        let number = || value.parse::<u32>().map_err(|_| refused());
        match name {
            "compaction" => self.policy = value.parse()?,
            "size_ratio" => self.size_ratio = number()?,
            "runs_per_level" => self.runs_per_level = Some(number()?),
            "large_value_bytes" => self.large_value_bytes = value.parse().map_err(|_| refused())?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the options make sense together.
    ///
    /// # Errors
    /// [`Error::Invalid`] says what does not and what would.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Invalid(what));
        if !(2..=64).contains(&self.size_ratio) {
            return refuse(format!("size_ratio is 2 to 64, which {} is not", self.size_ratio));
        }
        let most = self.size_ratio - 1;
        match self.runs_per_level {
            Some(runs) if self.policy == CompactionPolicy::Leveled && runs != 1 => refuse(
                "leveled compaction has one run per level; choose 'tiered' or 'lazy-leveled' for more".to_owned(),
            ),
            Some(runs) if !(1..=most).contains(&runs) => {
                refuse(format!("runs_per_level is 1 to size_ratio - 1, here {most}, which {runs} is not"))
            }
            _ => Ok(()),
        }
    }

    /// Size from which a row goes to a value file, if any does.
    #[must_use]
    pub fn large_bytes_min(&self) -> Option<u64> {
        Some(self.large_value_bytes).filter(|bytes| *bytes > 0)
    }

    /// Most sorted runs of `level` at rest: K of the paper, or Z for the last level.
    #[must_use]
    pub fn runs_max(&self, is_last: bool) -> usize {
        let several = self.runs_per_level.unwrap_or(self.size_ratio.saturating_sub(1)).max(1) as usize;
        match self.policy {
            CompactionPolicy::Leveled => 1,
            CompactionPolicy::LazyLeveled if is_last => 1,
            CompactionPolicy::Tiered | CompactionPolicy::LazyLeveled => several,
        }
    }
}

impl fmt::Display for CompactionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CompactionPolicy::Leveled => "leveled",
            CompactionPolicy::Tiered => "tiered",
            CompactionPolicy::LazyLeveled => "lazy-leveled",
        })
    }
}

impl FromStr for CompactionPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<CompactionPolicy> {
        let all = [CompactionPolicy::Leveled, CompactionPolicy::Tiered, CompactionPolicy::LazyLeveled];
        all.into_iter().find(|policy| policy.to_string() == text).ok_or_else(|| {
            Error::Invalid(format!("compaction is 'leveled', 'tiered' or 'lazy-leveled', which '{text}' is not"))
        })
    }
}

impl fmt::Display for CompactionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compaction = '{}', size_ratio = {}", self.policy, self.size_ratio)?;
        self.runs_per_level.map_or(Ok(()), |runs| write!(f, ", runs_per_level = {runs}"))?;
        match self.large_value_bytes {
            bytes if bytes == CompactionOptions::default().large_value_bytes => Ok(()),
            bytes => write!(f, ", large_value_bytes = {bytes}"),
        }
    }
}

impl FromStr for CompactionOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<CompactionOptions> {
        let mut options = CompactionOptions::default();
        for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if !options.set(name.trim(), value.trim().trim_matches('\''))? {
                return Err(Error::Invalid(format!("compaction option {} does not exist", name.trim())));
            }
        }
        options.check()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_from_their_text() {
        for policy in [CompactionPolicy::Leveled, CompactionPolicy::Tiered, CompactionPolicy::LazyLeveled] {
            for runs_per_level in [None, Some(1)] {
                for large_value_bytes in [0, 4 << 10, 1 << 40] {
                    let shape = CompactionOptions { policy, runs_per_level, size_ratio: 5, ..Default::default() };
                    let options = CompactionOptions { large_value_bytes, ..shape };
                    assert_eq!(options.to_string().parse::<CompactionOptions>().unwrap(), options);
                }
            }
        }
        assert_eq!("".parse::<CompactionOptions>().unwrap(), CompactionOptions::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        let refused = |text: &str| text.parse::<CompactionOptions>().unwrap_err().to_string();
        assert_eq!(
            refused("compaction = fast"),
            "compaction is 'leveled', 'tiered' or 'lazy-leveled', which 'fast' is not"
        );
        assert_eq!(refused("size_ratio = 1"), "size_ratio is 2 to 64, which 1 is not");
        assert_eq!(refused("large_value_bytes = -1"), "large_value_bytes is a whole number, which '-1' is not");
        assert_eq!(refused("size_ratio = many"), "size_ratio is a whole number, which 'many' is not");
        assert_eq!(
            refused("compaction = 'tiered', runs_per_level = 8"),
            "runs_per_level is 1 to size_ratio - 1, here 7, which 8 is not"
        );
        assert!(refused("runs_per_level = 2").starts_with("leveled compaction has one run per level"));
        assert_eq!(refused("speed = 9"), "compaction option speed does not exist");
    }

    #[test]
    fn the_last_level_has_fewer_runs_if_it_is_lazy() {
        let runs = |text: &str| {
            let options: CompactionOptions = text.parse().unwrap();
            (options.runs_max(false), options.runs_max(true))
        };
        assert_eq!(runs("compaction = leveled"), (1, 1));
        assert_eq!(runs("compaction = tiered, size_ratio = 4"), (3, 3));
        assert_eq!(runs("compaction = lazy-leveled, size_ratio = 4, runs_per_level = 2"), (2, 1));
    }
}
