//! `RowTier`: a small cold tier for the row store's own tests. Segments are sorted lists of versions, held in memory
//! and written whole to one file each, so that restarts, crashes and orphan removal are exercised for real.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use strata_oltp::cold::{ColdJob, ColdOutput, ColdPlan, RowPart, SealedMarks, SegmentRecord};
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::iter::VersionKind;
use strata_oltp::{ColdTier, ColdView, Error, FileId, FileKind, Location, Result, SeqNo, TableId, TableSchema};

/// A row, or `None` for a delete.
type Value = Option<Vec<u8>>;

#[derive(Clone, Debug)]
struct Row {
    key: Vec<u8>,
    seqno: SeqNo,
    value: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    id: FileId,
    table: TableId,
    rows: Vec<Row>,
    marks: Mutex<BTreeMap<u32, SeqNo>>,
    marks_file: Mutex<Option<FileId>>,
    marks_through: Mutex<SeqNo>,
}

impl Segment {
    fn mark(&self, position: u32, seqno: SeqNo) {
        let mut marks = self.marks.lock().unwrap();
        let mark = marks.entry(position).or_insert(seqno);
        *mark = (*mark).min(seqno);
        assert!(self.rows[position as usize].seqno < *mark, "a row is superseded by a later commit only");
    }

    fn visible(&self, position: usize, at: SeqNo) -> bool {
        let mark = self.marks.lock().unwrap().get(&u32::try_from(position).unwrap()).copied();
        self.rows[position].seqno <= at && mark.is_none_or(|mark| mark > at)
    }

    /// Position of the newest version of `key` below `seqno`.
    fn newest_below(&self, key: &[u8], seqno: SeqNo) -> Option<u32> {
        let found = self.rows.iter().position(|row| row.key == key && row.seqno < seqno)?;
        Some(u32::try_from(found).unwrap())
    }
}

pub struct RowView {
    segments: Vec<Arc<Segment>>,
}

pub struct RowTier {
    env: Arc<dyn Env>,
    dir: PathBuf,
}

fn view(view: &dyn ColdView) -> &RowView {
    view.as_any().downcast_ref().expect("a view of this tier")
}

impl RowTier {
    pub fn make(env: &Arc<dyn Env>, dir: &Path) -> Arc<dyn ColdTier> {
        Arc::new(RowTier { env: Arc::clone(env), dir: dir.to_path_buf() })
    }

    fn write(&self, kind: FileKind, id: FileId, bytes: &[u8]) -> Result<()> {
        let path = kind.path(&self.dir, id);
        let file = self.env.open(&path, OpenMode::CreateNew).map_err(|e| Error::io("create", &path, e))?;
        file.write_at(0, bytes).map_err(|e| Error::io("write", &path, e))?;
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
        let folder = path.parent().unwrap();
        self.env.sync_dir(folder).map_err(|e| Error::io("sync folder", folder, e))
    }

    fn read(&self, kind: FileKind, id: FileId) -> Result<Vec<u8>> {
        let path = kind.path(&self.dir, id);
        let file = self.env.open(&path, OpenMode::Read).map_err(|e| Error::io("open", &path, e))?;
        let mut bytes = vec![0; usize::try_from(file.len().map_err(|e| Error::io("read", &path, e))?).unwrap()];
        file.read_at(0, &mut bytes).map_err(|e| Error::io("read", &path, e))?;
        Ok(bytes)
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let (length, rest) = bytes.split_at(4);
    let (head, rest) = rest.split_at(u32::from_le_bytes(length.try_into().unwrap()) as usize);
    *bytes = rest;
    head
}

fn take_u64(bytes: &mut &[u8]) -> u64 {
    let (head, rest) = bytes.split_at(8);
    *bytes = rest;
    u64::from_le_bytes(head.try_into().unwrap())
}

fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        put(&mut bytes, &row.key);
        bytes.extend_from_slice(&row.seqno.0.to_le_bytes());
        put(&mut bytes, &row.value);
    }
    bytes
}

fn decode_rows(mut bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let key = take(&mut bytes).to_vec();
        let seqno = SeqNo(take_u64(&mut bytes));
        rows.push(Row { key, seqno, value: take(&mut bytes).to_vec() });
    }
    rows
}

impl ColdView for RowView {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn locate(&self, table: TableId, key: &[u8], at: SeqNo) -> Result<Option<(Location, SeqNo)>> {
        let mut found = None;
        for segment in self.segments.iter().filter(|segment| segment.table == table) {
            for (position, row) in segment.rows.iter().enumerate().filter(|(_, row)| row.key == key) {
                if segment.visible(position, at) {
                    assert!(found.is_none(), "I6: one home for {key:?} at {at}");
                    let position = u32::try_from(position).unwrap();
                    found = Some((Location { segment: segment.id, position }, row.seqno));
                }
            }
        }
        Ok(found)
    }

    fn read_row(&self, _schema: &TableSchema, location: Location) -> Result<Vec<u8>> {
        let segment = self.segments.iter().find(|segment| segment.id == location.segment).expect("a live segment");
        Ok(segment.rows[location.position as usize].value.clone())
    }

    fn scan_keys(&self, table: TableId, keys: Range<&[u8]>, at: SeqNo) -> Result<Vec<(Vec<u8>, Location)>> {
        let mut found = Vec::new();
        for segment in self.segments.iter().filter(|segment| segment.table == table) {
            for (position, row) in segment.rows.iter().enumerate() {
                if keys.contains(&row.key.as_slice()) && segment.visible(position, at) {
                    let position = u32::try_from(position).unwrap();
                    found.push((row.key.clone(), Location { segment: segment.id, position }));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn segments(&self, table: TableId) -> Vec<FileId> {
        self.segments.iter().filter(|segment| segment.table == table).map(|segment| segment.id).collect()
    }

    fn key_range(&self, segment: FileId) -> Option<(Vec<u8>, Vec<u8>)> {
        let segment = self.segments.iter().find(|known| known.id == segment)?;
        Some((segment.rows.first()?.key.clone(), segment.rows.last()?.key.clone()))
    }
}

impl ColdTier for RowTier {
    fn restore(&self, records: &[SegmentRecord]) -> Result<Arc<dyn ColdView>> {
        let mut segments = Vec::new();
        for record in records {
            let mut marks = BTreeMap::new();
            if let Some(file) = record.marks {
                let bytes = self.read(FileKind::Marks, file)?;
                let mut bytes = bytes.as_slice();
                while !bytes.is_empty() {
                    let position = u32::try_from(take_u64(&mut bytes)).unwrap();
                    marks.insert(position, SeqNo(take_u64(&mut bytes)));
                }
            }
            let rows = decode_rows(&self.read(FileKind::Segment, record.segment)?);
            let keys = self.read(FileKind::Keys, record.segment)?;
            assert_eq!(keys, (rows.len() as u64).to_le_bytes(), "I4: a live file is whole");
            segments.push(Arc::new(Segment {
                id: record.segment,
                table: record.table,
                rows,
                marks: Mutex::new(marks),
                marks_file: Mutex::new(record.marks),
                marks_through: Mutex::new(record.marks_through),
            }));
        }
        Ok(Arc::new(RowView { segments }))
    }

    fn mark(&self, cold: &dyn ColdView, location: Location, seqno: SeqNo) {
        let segment = view(cold).segments.iter().find(|segment| segment.id == location.segment).expect("live");
        segment.mark(location.position, seqno);
    }

    fn replay_mark(&self, cold: &dyn ColdView, key: &[u8], seqno: SeqNo) -> Result<()> {
        for segment in &view(cold).segments {
            if *segment.marks_through.lock().unwrap() < seqno
                && let Some(position) = segment.newest_below(key, seqno)
            {
                segment.mark(position, seqno);
            }
        }
        Ok(())
    }

    fn plan(&self, cold: &dyn ColdView, rows: &RowPart) -> Option<ColdPlan> {
        // The older half, unless all must go: so that a job has newer runs beside it.
        let run_count = if rows.force { rows.runs.len() } else { rows.runs.len() / 2 };
        let runs: Vec<FileId> = rows.runs[..run_count].iter().map(|run| run.run).collect();
        let marked = view(cold).segments.iter().filter(|segment| segment.table == rows.table.table);
        let marked = marked.filter(|segment| rows.force && !segment.marks.lock().unwrap().is_empty());
        let plan = ColdPlan { runs, segments: marked.map(|segment| segment.id).collect() };
        (plan != ColdPlan::default()).then_some(plan)
    }

    fn run(&self, cold: &dyn ColdView, mut job: ColdJob<'_>) -> Result<ColdOutput> {
        // Every version of a key, newest first, with the commit that superseded it.
        let mut versions: BTreeMap<(Vec<u8>, Reverse<SeqNo>), Value> = BTreeMap::new();
        let mut marks_in: BTreeMap<(Vec<u8>, SeqNo), SeqNo> = BTreeMap::new();
        job.versions.next()?;
        while job.versions.valid() {
            let value = (job.versions.kind() == VersionKind::Put).then(|| job.versions.value().to_vec());
            versions.insert((job.versions.key().to_vec(), Reverse(job.versions.seqno())), value);
            job.versions.next()?;
        }
        for segment in view(cold).segments.iter().filter(|segment| job.segments.contains(&segment.id)) {
            for (position, row) in segment.rows.iter().enumerate() {
                versions.insert((row.key.clone(), Reverse(row.seqno)), Some(row.value.clone()));
                if let Some(mark) = segment.marks.lock().unwrap().get(&u32::try_from(position).unwrap()) {
                    marks_in.insert((row.key.clone(), row.seqno), *mark);
                }
            }
        }
        let mut newer: BTreeMap<Vec<u8>, SeqNo> = BTreeMap::new();
        job.newer.next()?;
        while job.newer.valid() {
            let seqno = job.newer.seqno();
            let oldest = newer.entry(job.newer.key().to_vec()).or_insert(seqno);
            *oldest = (*oldest).min(seqno);
            job.newer.next()?;
        }
        let (mut rows, mut marks) = (Vec::new(), BTreeMap::new());
        let mut previous: Option<(Vec<u8>, SeqNo)> = None;
        for ((key, Reverse(seqno)), value) in versions {
            let successor = match &previous {
                Some((last, successor)) if *last == key => Some(*successor),
                _ => newer.get(&key).copied(),
            };
            let successor = [successor, marks_in.get(&(key.clone(), seqno)).copied()].into_iter().flatten().min();
            previous = Some((key.clone(), seqno));
            let Some(value) = value else { continue };
            if successor.is_some_and(|successor| successor <= job.watermark) {
                continue;
            }
            if let Some(successor) = successor {
                marks.insert(u32::try_from(rows.len()).unwrap(), successor);
            }
            rows.push(Row { key, seqno, value });
        }
        let mut records = Vec::new();
        let mut handle: Option<Arc<Segment>> = None;
        if !rows.is_empty() {
            let id = (job.next_file)();
            self.write(FileKind::Segment, id, &encode_rows(&rows))?;
            self.write(FileKind::Keys, id, &(rows.len() as u64).to_le_bytes())?;
            let marks_file = if marks.is_empty() {
                None
            } else {
                let file = (job.next_file)();
                self.write(FileKind::Marks, file, &encode_marks(&marks))?;
                Some(file)
            };
            let table = job.schema.table;
            let (segment, marks_through) = (id, job.marks_through);
            let meta = fingerprint(&encode_rows(&rows)).to_le_bytes().to_vec();
            records.push(SegmentRecord { segment, table, meta, marks: marks_file, marks_through });
            handle = Some(Arc::new(Segment {
                id,
                table,
                rows,
                marks: Mutex::new(marks),
                marks_file: Mutex::new(marks_file),
                marks_through: Mutex::new(marks_through),
            }));
        }
        Ok(ColdOutput { segments: records, replaced: job.segments, handle: Box::new(handle) })
    }

    fn translate(&self, output: &ColdOutput, superseded: &[(Vec<u8>, SeqNo)]) -> Result<Vec<(Location, SeqNo)>> {
        let handle: &Option<Arc<Segment>> = output.handle.downcast_ref().expect("own output");
        let Some(segment) = handle else { return Ok(Vec::new()) };
        let located = superseded.iter().filter_map(|(key, seqno)| {
            let position = segment.newest_below(key, *seqno)?;
            Some((Location { segment: segment.id, position }, *seqno))
        });
        Ok(located.collect())
    }

    fn install(&self, cold: &dyn ColdView, output: ColdOutput, marks: &[(Location, SeqNo)]) -> Arc<dyn ColdView> {
        let kept = view(cold).segments.iter().filter(|segment| !output.replaced.contains(&segment.id));
        let mut segments: Vec<Arc<Segment>> = kept.cloned().collect();
        let handle: Box<Option<Arc<Segment>>> = output.handle.downcast().expect("own output");
        if let Some(segment) = *handle {
            for (location, seqno) in marks {
                segment.mark(location.position, *seqno);
            }
            segments.push(segment);
        }
        Arc::new(RowView { segments })
    }

    fn seal(
        &self,
        cold: &dyn ColdView,
        table: TableId,
        through: SeqNo,
        next_file: &dyn Fn() -> FileId,
    ) -> Result<Vec<SealedMarks>> {
        let mut sealed = Vec::new();
        for segment in view(cold).segments.iter().filter(|segment| segment.table == table) {
            // A segment installed since may be complete further than this flush: never seal less than before.
            let through = through.max(*segment.marks_through.lock().unwrap());
            let marks: BTreeMap<u32, SeqNo> =
                segment.marks.lock().unwrap().iter().filter(|(_, m)| **m <= through).map(|(p, m)| (*p, *m)).collect();
            let file = if marks.is_empty() {
                None
            } else {
                let file = next_file();
                self.write(FileKind::Marks, file, &encode_marks(&marks))?;
                Some(file)
            };
            *segment.marks_file.lock().unwrap() = file;
            *segment.marks_through.lock().unwrap() = through;
            sealed.push(SealedMarks { segment: segment.id, marks: file, marks_through: through });
        }
        Ok(sealed)
    }

    fn verify(&self, cold: &dyn ColdView) -> Result<u64> {
        Ok(view(cold).segments.len() as u64)
    }

    fn drop_table(&self, cold: &dyn ColdView, table: TableId) -> Arc<dyn ColdView> {
        let kept = view(cold).segments.iter().filter(|segment| segment.table != table);
        Arc::new(RowView { segments: kept.cloned().collect() })
    }
}

fn encode_marks(marks: &BTreeMap<u32, SeqNo>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (position, seqno) in marks {
        bytes.extend_from_slice(&u64::from(*position).to_le_bytes());
        bytes.extend_from_slice(&seqno.0.to_le_bytes());
    }
    bytes
}

/// FNV-1a: what the manifest says of a segment must tell its content from another, as the column store's checksum does.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
