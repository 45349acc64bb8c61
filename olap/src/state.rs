//! `ColdState`: the cold side of one read view, and nothing that changes but marks.
//!
//! The row store holds it as an opaque `ColdView`; the scan gets it back by downcast.
//!
//! Always true: a state never changes its set of segments; an install makes a new one that shares the rest.

use std::any::Any;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use strata_oltp::key::table_of;
use strata_oltp::{ColdView, ColumnId, Error, FileId, Location, Result, SeqNo, TableId, TableSchema};

use crate::cache::ColumnCache;
use crate::segment::Segment;
use crate::segment::sketch::Sketch;

/// Segments of all tables, as of one read view.
#[derive(Debug)]
pub struct ColdState {
    cache: Arc<ColumnCache>,
    tables: HashMap<TableId, Arc<TableSegments>>,
    /// The same segments by number: a commit marks inside its mutex and must not search.
    by_id: HashMap<FileId, Arc<Segment>>,
}

/// Segments of one table, ascending by smallest key. Their key ranges may overlap.
#[derive(Debug, Default)]
pub struct TableSegments {
    segments: Vec<Arc<Segment>>,
    /// For each segment the place, at or before it, of the one that reaches furthest: bounds the walk of a look-up.
    furthest: Vec<usize>,
    sketches: OnceLock<HashMap<ColumnId, u64>>,
}

impl TableSegments {
    pub(crate) fn new(mut segments: Vec<Arc<Segment>>) -> TableSegments {
        segments.sort_by(|a, b| a.key_range().0.cmp(b.key_range().0).then(a.id().cmp(&b.id())));
        let mut furthest: Vec<usize> = Vec::with_capacity(segments.len());
        for (at, segment) in segments.iter().enumerate() {
            let before = furthest.last().copied();
            let reaches = |other: usize| segments[other].key_range().1 > segment.key_range().1;
            furthest.push(before.filter(|&other| reaches(other)).unwrap_or(at));
        }
        TableSegments { segments, furthest, sketches: OnceLock::new() }
    }

    /// The segments.
    #[must_use]
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Physical rows in all segments.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.row_count())).sum()
    }

    /// Rows that a snapshot at `at` sees, if that is known without reading.
    #[must_use]
    pub fn visible_rows(&self, at: SeqNo) -> Option<u64> {
        self.segments.iter().map(|segment| segment.visible_rows(at)).sum()
    }

    /// Estimated number of distinct values of a column over all segments; `None` if no segment has it.
    #[must_use]
    pub fn distinct_estimate(&self, column: ColumnId) -> Option<u64> {
        let estimates = self.sketches.get_or_init(|| {
            let mut merged: HashMap<ColumnId, Sketch> = HashMap::new();
            for segment in &self.segments {
                for id in segment.column_ids() {
                    if let Some(sketch) = segment.sketch(id) {
                        merged.entry(id).or_default().merge(sketch);
                    }
                }
            }
            merged.into_iter().map(|(id, sketch)| (id, sketch.estimate())).collect()
        });
        estimates.get(&column).map(|&estimate| estimate.min(self.row_count()))
    }

    /// Segments whose key range holds `key`.
    pub fn holding<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Arc<Segment>> + 'a {
        let end = self.segments.partition_point(|segment| segment.key_range().0 <= key);
        let candidates = (0..end).rev();
        // Once nothing at or before a place reaches the key, nothing further left does.
        let reachable = candidates.take_while(move |&at| self.segments[self.furthest[at]].key_range().1 >= key);
        reachable.map(|at| &self.segments[at]).filter(move |segment| segment.key_range().1 >= key)
    }
}

impl ColdState {
    /// Segments of `table`; none if it has none.
    #[must_use]
    pub fn table(&self, table: TableId) -> &TableSegments {
        static NONE: TableSegments =
            TableSegments { segments: Vec::new(), furthest: Vec::new(), sketches: OnceLock::new() };
        self.tables.get(&table).map_or(&NONE, |segments| segments)
    }

    /// Tables that have segments, in no order.
    pub fn tables(&self) -> impl Iterator<Item = TableId> + '_ {
        self.tables.keys().copied()
    }

    /// The segment `id`, if the state has it.
    #[must_use]
    pub fn segment(&self, id: FileId) -> Option<&Arc<Segment>> {
        self.by_id.get(&id)
    }

    /// The state in a view.
    ///
    /// # Panics
    /// If the view is of another tier.
    #[must_use]
    pub fn of(view: &dyn ColdView) -> &ColdState {
        view.as_any().downcast_ref().expect("a database has one cold tier, which made every view of it")
    }

    /// The store's cache, which scans of the row part use as well.
    #[must_use]
    pub fn cache(&self) -> &Arc<ColumnCache> {
        &self.cache
    }

    pub(crate) fn build(cache: Arc<ColumnCache>, segments: impl IntoIterator<Item = Arc<Segment>>) -> ColdState {
        let mut tables: HashMap<TableId, Vec<Arc<Segment>>> = HashMap::new();
        for segment in segments {
            tables.entry(segment.table()).or_default().push(segment);
        }
        let sorted = tables.into_iter().map(|(table, segments)| (table, Arc::new(TableSegments::new(segments))));
        ColdState::of_tables(cache, sorted.collect())
    }

    fn of_tables(cache: Arc<ColumnCache>, tables: HashMap<TableId, Arc<TableSegments>>) -> ColdState {
        let segments = tables.values().flat_map(|table| &table.segments);
        let by_id = segments.map(|segment| (segment.id(), Arc::clone(segment))).collect();
        ColdState { cache, tables, by_id }
    }

    /// The state with other segments for one table.
    pub(crate) fn with_table(&self, table: TableId, segments: Vec<Arc<Segment>>) -> ColdState {
        let mut tables = self.tables.clone();
        if segments.is_empty() {
            tables.remove(&table);
        } else {
            tables.insert(table, Arc::new(TableSegments::new(segments)));
        }
        ColdState::of_tables(Arc::clone(&self.cache), tables)
    }
}

impl ColdView for ColdState {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn locate(&self, table: TableId, key: &[u8], at: SeqNo) -> Result<Option<(Location, SeqNo)>> {
        debug_assert_eq!(table_of(key), Some(table), "a full key starts with its table");
        for segment in self.table(table).holding(key) {
            if let Some((position, seqno)) = segment.locate(key, at)? {
                return Ok(Some((Location { segment: segment.id(), position }, seqno)));
            }
        }
        Ok(None)
    }

    fn read_row(&self, schema: &TableSchema, location: Location) -> Result<Vec<u8>> {
        let segment = self.segment(location.segment);
        let segment = segment.filter(|segment| location.position < segment.row_count());
        let segment = segment.ok_or_else(|| Error::Invalid(format!("no row at {location:?} in this view")))?;
        segment.read_row(schema, location.position)
    }

    fn scan_keys(&self, table: TableId, keys: Range<&[u8]>, at: SeqNo) -> Result<Vec<(Vec<u8>, Location)>> {
        let mut found = Vec::new();
        for segment in self.table(table).segments() {
            let (first, last) = segment.key_range();
            if first >= keys.end || last < keys.start {
                continue;
            }
            let hidden = segment.marks().marks_at(at);
            segment.visit_keys(keys.clone(), |key, position, seqno| {
                if seqno <= at && !hidden.contains(position) {
                    found.push((key.to_vec(), Location { segment: segment.id(), position }));
                }
                Ok(())
            })?;
        }
        found.sort_unstable();
        Ok(found)
    }

    fn segments(&self, table: TableId) -> Vec<FileId> {
        self.table(table).segments().iter().map(|segment| segment.id()).collect()
    }

    fn key_range(&self, segment: FileId) -> Option<(Vec<u8>, Vec<u8>)> {
        let (first, last) = self.segment(segment)?.key_range();
        Some((first.to_vec(), last.to_vec()))
    }
}
