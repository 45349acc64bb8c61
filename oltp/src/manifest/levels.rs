//! `Levels`: the runs of one table in the order of their age.
//!
//! Level 0 holds runs as they were flushed, each by itself. A deeper level holds *sorted runs*: lists of run files whose
//! key ranges do not overlap, so that of each at most one file has a given key. The deeper a level, the older what is
//! in it; within a level a sorted run with a higher number is younger.
//!
//! The manifest holds descriptions in this shape and a read view open files: both change by the same calls, so they
//! cannot disagree.
//!
//! Always true:
//! * files of one sorted run are in key order and share no key (I3), or the change is refused;
//! * of two sorted runs that hold versions of one key, the later in [`Levels::sorted_runs`] holds the newer ones. That is
//!   the duty of whoever chooses what to merge and where to put it ([`crate::compaction`]): levels see ranges, not keys.

use std::cmp::Reverse;
use std::ops::Deref;
use std::sync::Arc;

use super::edit::RunMeta;
use crate::file::FileId;

/// Levels of a table, level 0 included. With a size ratio of 8 and a first level of 256 MiB the last holds 8 TiB.
pub const LEVEL_COUNT: u8 = 7;
/// The deepest level: data settles here first, and levels above it come into use as it grows.
pub const LAST_LEVEL: u8 = LEVEL_COUNT - 1;

/// Where a run lies within the levels of its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Level, 0 for what was flushed and not moved since.
    pub level: u8,
    /// Number of the sorted run within the level; higher is younger. 0 in level 0, where each run is by itself.
    pub sorted_run: u32,
}

/// What can stand in [`Levels`]: a run, described or open.
pub trait Leveled: Clone {
    /// The run's description.
    fn meta(&self) -> &RunMeta;
}

impl Leveled for Arc<RunMeta> {
    fn meta(&self) -> &RunMeta {
        self
    }
}

/// Files that together are one sorted sequence of versions. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedRun<F> {
    /// Its place.
    pub place: Place,
    /// Its files in key order; never empty.
    pub files: Arc<[F]>,
}

impl<F: Leveled> SortedRun<F> {
    /// The only file that may hold versions of `key`. A binary search over key ranges, in memory.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<&F> {
        let at = self.files.partition_point(|file| file.meta().key_max.as_slice() < key);
        self.files.get(at).filter(|file| file.meta().key_min.as_slice() <= key)
    }

    /// Positions of the files that hold keys from `first` to `last`, both included.
    #[must_use]
    pub fn overlapping(&self, first: &[u8], last: &[u8]) -> std::ops::Range<usize> {
        let start = self.files.partition_point(|file| file.meta().key_max.as_slice() < first);
        let end = self.files.partition_point(|file| file.meta().key_min.as_slice() <= last);
        start..end.max(start)
    }

    /// Positions of the files that hold keys in the half-open range `keys`.
    #[must_use]
    pub fn within(&self, keys: &std::ops::Range<&[u8]>) -> std::ops::Range<usize> {
        let start = self.files.partition_point(|file| file.meta().key_max.as_slice() < keys.start);
        let end = self.files.partition_point(|file| file.meta().key_min.as_slice() < keys.end);
        start..end.max(start)
    }

    /// Bytes of its files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.meta().file_bytes).sum()
    }
}

/// The runs of one table. As a slice: all of them, oldest sorted run first, in key order within each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels<F> {
    files: Vec<F>,
    sorted_runs: Vec<SortedRun<F>>,
}

impl<F> Default for Levels<F> {
    fn default() -> Self {
        Levels { files: Vec::new(), sorted_runs: Vec::new() }
    }
}

impl<F> Deref for Levels<F> {
    type Target = [F];

    fn deref(&self) -> &[F] {
        &self.files
    }
}

impl<F: Leveled> Levels<F> {
    /// Sorted runs, oldest first: the last level first and the newest flush last.
    #[must_use]
    pub fn sorted_runs(&self) -> &[SortedRun<F>] {
        &self.sorted_runs
    }

    /// Every file with its place, oldest first.
    pub fn placed(&self) -> impl Iterator<Item = (Place, &F)> {
        self.sorted_runs.iter().flat_map(|sorted| sorted.files.iter().map(|file| (sorted.place, file)))
    }

    /// The same levels with other values in the place of these.
    ///
    /// # Errors
    /// The first that `open` returns.
    pub fn try_map<G: Leveled, E>(&self, mut open: impl FnMut(&F) -> Result<G, E>) -> Result<Levels<G>, E> {
        let mut levels = Levels::default();
        for sorted in &self.sorted_runs {
            let files: Vec<G> = sorted.files.iter().map(&mut open).collect::<Result<_, E>>()?;
            levels.files.extend(files.iter().cloned());
            levels.sorted_runs.push(SortedRun { place: sorted.place, files: files.into() });
        }
        Ok(levels)
    }

    /// Adds a run that is newer than all there are.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn push(&mut self, file: F) -> Result<(), &'static str> {
        self.check_new(&file)?;
        self.files.push(file.clone());
        self.sorted_runs.push(SortedRun { place: Place::default(), files: Arc::new([file]) });
        Ok(())
    }

    /// Takes files out and puts others in, all at once. A file may do both, which moves it. In level 0 nothing can be
    /// put: its order is that of arrival.
    ///
    /// # Errors
    /// Why the result would not be levels; they are then as they were.
    pub fn replace(&mut self, removed: &[FileId], added: Vec<(Place, F)>) -> Result<(), &'static str> {
        let mut next = self.without(removed)?;
        for (place, file) in added {
            if place.level == 0 || place.level > LAST_LEVEL {
                return Err("run is placed in a level that does not take it");
            }
            check_meta(file.meta())?;
            next.push((place, file));
        }
        *self = Levels::arrange(next)?;
        Ok(())
    }

    /// Replaces neighbours in level 0, oldest first, by one run in their place; other runs keep their order.
    ///
    /// # Errors
    /// Why they cannot be; the levels are then as they were.
    pub fn merge(&mut self, removed: &[FileId], added: Option<F>) -> Result<(), &'static str> {
        let first = *removed.first().ok_or("merge of no runs")?;
        let at = self.files.iter().position(|file| file.meta().run == first).ok_or("removed run is not there")?;
        let neighbours = self.files[at..].iter().take(removed.len()).map(|file| file.meta().run);
        let is_level_0 = self.placed().nth(at).is_some_and(|(place, _)| place.level == 0);
        if !neighbours.eq(removed.iter().copied()) || !is_level_0 {
            return Err("merged runs are not neighbours, oldest first");
        }
        let mut next = self.without(removed)?;
        if let Some(file) = added {
            check_meta(file.meta())?;
            next.insert(at, (Place::default(), file));
        }
        *self = Levels::arrange(next)?;
        Ok(())
    }

    /// Takes files out.
    ///
    /// # Errors
    /// If one is not there; the levels are then as they were.
    pub fn remove(&mut self, removed: &[FileId]) -> Result<(), &'static str> {
        *self = Levels::arrange(self.without(removed)?)?;
        Ok(())
    }

    fn without(&self, removed: &[FileId]) -> Result<Vec<(Place, F)>, &'static str> {
        let all = self.placed().map(|(place, file)| (place, file.clone()));
        let kept: Vec<_> = all.filter(|(_, file)| !removed.contains(&file.meta().run)).collect();
        if kept.len() + removed.len() == self.files.len() { Ok(kept) } else { Err("removed run is not there") }
    }

    fn check_new(&self, file: &F) -> Result<(), &'static str> {
        check_meta(file.meta())?;
        match self.files.iter().any(|other| other.meta().run == file.meta().run) {
            true => Err("run is there already"),
            false => Ok(()),
        }
    }

    /// Levels of these files; those of level 0 come in the order of their age.
    fn arrange(mut all: Vec<(Place, F)>) -> Result<Levels<F>, &'static str> {
        // The sort is stable, and in level 0 all places are equal: age is kept there.
        all.sort_by(|(a, x), (b, y)| {
            let order = (Reverse(a.level), a.sorted_run).cmp(&(Reverse(b.level), b.sorted_run));
            order.then_with(|| if a.level == 0 { order } else { x.meta().key_min.cmp(&y.meta().key_min) })
        });
        let mut ids: Vec<FileId> = all.iter().map(|(_, file)| file.meta().run).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("run is there already");
        }
        let mut sorted_runs = Vec::new();
        for sorted in all.chunk_by(|(a, _), (b, _)| a == b && a.level > 0) {
            // I3, so that a reader may look into one file of a sorted run and be done with it.
            if sorted.windows(2).any(|pair| pair[0].1.meta().key_max >= pair[1].1.meta().key_min) {
                return Err("runs of one sorted run overlap");
            }
            let files = sorted.iter().map(|(_, file)| file.clone()).collect();
            sorted_runs.push(SortedRun { place: sorted[0].0, files });
        }
        Ok(Levels { files: all.into_iter().map(|(_, file)| file).collect(), sorted_runs })
    }
}

fn check_meta(run: &RunMeta) -> Result<(), &'static str> {
    if run.key_min > run.key_max || run.seqno_min > run.seqno_max || run.tombstone_count > run.version_count {
        return Err("run description contradicts itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableId;
    use crate::seqno::SeqNo;

    fn run(id: u64, first: u8, last: u8) -> Arc<RunMeta> {
        Arc::new(RunMeta {
            run: FileId(id),
            table: TableId(1),
            file_bytes: 10,
            version_count: 1,
            tombstone_count: 0,
            key_min: vec![first],
            key_max: vec![last],
            seqno_min: SeqNo(1),
            seqno_max: SeqNo(1),
            unique_keys: true,
            checksum: 0,
            created_ms: 0,
            values: Vec::new(),
        })
    }

    fn place(level: u8, sorted_run: u32) -> Place {
        Place { level, sorted_run }
    }

    fn ids(levels: &Levels<Arc<RunMeta>>) -> Vec<u64> {
        levels.iter().map(|run| run.run.0).collect()
    }

    /// Runs 1 and 2 in one sorted run of level 6, 3 in a younger one, 4 and 5 in level 5, 6 and 7 flushed.
    fn sample() -> Levels<Arc<RunMeta>> {
        let mut levels = Levels::default();
        levels.push(run(6, 0, 9)).unwrap();
        let added = vec![
            (place(5, 1), run(5, 6, 9)),
            (place(6, 2), run(3, 2, 8)),
            (place(6, 1), run(2, 5, 9)),
            (place(6, 1), run(1, 0, 4)),
            (place(5, 1), run(4, 0, 5)),
        ];
        levels.replace(&[], added).unwrap();
        levels.push(run(7, 0, 9)).unwrap();
        levels
    }

    #[test]
    fn files_are_ordered_by_age_and_key() {
        let mut levels = sample();
        assert_eq!(ids(&levels), [1, 2, 3, 4, 5, 6, 7]);
        let places: Vec<Place> = levels.sorted_runs().iter().map(|sorted| sorted.place).collect();
        assert_eq!(places, [place(6, 1), place(6, 2), place(5, 1), place(0, 0), place(0, 0)]);
        // Merged in place: 8 is older than 7 although its number is higher.
        levels.merge(&[FileId(6)], Some(run(8, 0, 9))).unwrap();
        assert_eq!(ids(&levels), [1, 2, 3, 4, 5, 8, 7]);
        levels.replace(&[FileId(8)], vec![(place(6, 3), run(8, 0, 9))]).unwrap();
        assert_eq!(ids(&levels), [1, 2, 3, 8, 4, 5, 7]);
        levels.remove(&[FileId(1), FileId(7)]).unwrap();
        assert_eq!(ids(&levels), [2, 3, 8, 4, 5]);
    }

    #[test]
    fn a_key_leads_to_its_only_file() {
        let levels = sample();
        let find = |at: usize, key: u8| levels.sorted_runs()[at].find(&[key]).map(|run| run.run.0);
        assert_eq!((find(0, 0), find(0, 4), find(0, 5), find(0, 9)), (Some(1), Some(1), Some(2), Some(2)));
        assert_eq!((find(1, 1), find(1, 2), find(1, 8), find(1, 9)), (None, Some(3), Some(3), None));
        let overlapping = |first: u8, last: u8| levels.sorted_runs()[0].overlapping(&[first], &[last]);
        assert_eq!((overlapping(0, 4), overlapping(4, 5), overlapping(5, 5)), (0..1, 0..2, 1..2));
        assert_eq!(levels.sorted_runs()[1].overlapping(&[9], &[9]).len(), 0);
    }

    #[test]
    fn changes_that_break_the_order_are_refused_and_change_nothing() {
        let mut levels = sample();
        let before = levels.clone();
        assert!(levels.push(run(1, 0, 1)).is_err());
        assert!(levels.replace(&[], vec![(place(6, 1), run(9, 4, 4))]).is_err(), "overlaps run 1");
        assert!(levels.replace(&[], vec![(place(6, 1), run(9, 9, 10))]).is_err(), "shares a bound with run 2");
        assert!(levels.replace(&[], vec![(place(0, 0), run(9, 0, 1))]).is_err());
        assert!(levels.replace(&[], vec![(place(7, 0), run(9, 0, 1))]).is_err());
        assert!(levels.replace(&[FileId(9)], Vec::new()).is_err());
        assert!(levels.merge(&[FileId(4), FileId(5)], None).is_err(), "not in level 0");
        assert!(levels.merge(&[FileId(7), FileId(6)], None).is_err());
        assert!(levels.remove(&[FileId(1), FileId(9)]).is_err());
        assert_eq!(levels, before);
        levels.replace(&[FileId(1)], vec![(place(6, 1), run(9, 0, 4))]).unwrap();
        assert_eq!(ids(&levels), [9, 2, 3, 4, 5, 6, 7], "what goes makes room for what comes");
    }
}
