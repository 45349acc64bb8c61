//! A manifest file as far as it can be read, and the overview of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::dump::title;
use super::log::{self, Piece, walk};
use super::{ColdFiles, Dump, Fault};
use crate::cold::SegmentRecord;
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::manifest::edit::decode_edits;
use crate::manifest::levels::Place;
use crate::manifest::{Edit, RunMeta, Version};
use crate::sync::Arc;
use crate::values::{ValueFileMeta, ValueShare};
use crate::wal::{DbId, RecordKind};

/// What a manifest file still says.
#[derive(Debug)]
pub(crate) struct Remains {
    /// Its database, if the header could be read.
    pub db_id: Option<DbId>,
    /// What the edits before the first fault add up to.
    pub version: Version,
    /// Descriptions of runs and segments in any readable frame, also of those dropped since.
    pub runs: BTreeMap<FileId, RunMeta>,
    pub segments: BTreeMap<FileId, SegmentRecord>,
    /// What does not hold. With none, `version` is the truth.
    pub faults: Vec<Fault>,
}

/// Reads all that can be read of the manifest at `path`.
pub(crate) fn read(env: &dyn Env, path: &Path, id: Option<FileId>, dump: Option<&mut Dump<'_>>) -> Result<Remains> {
    let mut remains = Remains {
        db_id: None,
        version: Version::default(),
        runs: BTreeMap::new(),
        segments: BTreeMap::new(),
        faults: Vec::new(),
    };
    let mut reader = match log::open(env, FileKind::Manifest, path, id) {
        Ok(reader) => reader,
        Err(error @ Error::Io { .. }) => return Err(error),
        Err(error) => {
            remains.faults.push(Fault::of(&error, FileKind::Manifest, path));
            return Ok(remains);
        }
    };
    remains.db_id = Some(reader.header.db_id);
    let mut dump = dump;
    if let Some(dump) = dump.as_deref_mut() {
        log::say_header(&reader, FileKind::Manifest, dump);
    }
    let mut count = 0;
    walk(&mut reader, &mut |piece| {
        let fault = |offset, what: &str| Fault::new(FileKind::Manifest, path, offset, what);
        match piece {
            Piece::Frame(offset, frame) => {
                let kind = RecordKind::from_u8(frame.kind);
                match (kind, decode_edits(frame.payload)) {
                    (Some(RecordKind::Watermark), _) if count > 0 => {}
                    (Some(RecordKind::ManifestSnapshot), Some(edits)) if count == 0 => {
                        remains.apply(&edits, path, offset);
                    }
                    (Some(RecordKind::ManifestEdits), Some(edits)) if count > 0 => remains.apply(&edits, path, offset),
                    (Some(RecordKind::ManifestSnapshot | RecordKind::ManifestEdits), None) => {
                        remains.faults.push(fault(offset, "malformed version edit"));
                    }
                    _ => remains.faults.push(fault(offset, "record of a kind that does not belong here")),
                }
                if let Some(dump) = dump.as_deref_mut() {
                    say_frame(dump, count, offset, &frame);
                }
                count += 1;
            }
            Piece::Gap { offset, end, .. } => {
                remains.faults.push(fault(offset, &format!("{} bytes that do not verify", end - offset)));
            }
            Piece::End { offset, .. } if count == 0 => remains.faults.push(fault(offset, "bad snapshot")),
            // What may stand behind the last frame was cut short by a crash, or its watermark would prove it synced.
            Piece::End { .. } => {}
        }
        Ok(())
    })?;
    if let Some(dump) = dump {
        dump.end_list(1, count);
    }
    Ok(remains)
}

impl Remains {
    fn apply(&mut self, edits: &[Edit], path: &Path, offset: u64) {
        for edit in edits {
            match edit {
                Edit::AddRun(run) | Edit::MergeRuns { added: Some(run), .. } => {
                    self.runs.insert(run.run, run.clone());
                }
                Edit::PlaceRuns { added, .. } => {
                    self.runs.extend(added.iter().map(|(_, run)| (run.run, run.clone())));
                }
                Edit::AddSegment(record) => {
                    self.segments.insert(record.segment, record.clone());
                }
                Edit::SetMarks(sealed) => {
                    if let Some(record) = self.segments.get_mut(&sealed.segment) {
                        (record.marks, record.marks_through) = (sealed.marks, sealed.marks_through);
                    }
                }
                _ => {}
            }
            // Behind a gap edits may not fit any more, which is no fault of theirs.
            if self.faults.is_empty()
                && let Err(what) = self.version.apply(edit)
            {
                self.faults.push(Fault::new(FileKind::Manifest, path, offset, what));
            }
        }
    }
}

fn say_frame(dump: &mut Dump<'_>, at: u64, offset: u64, frame: &crate::wal::Frame<'_>) {
    let kind = match RecordKind::from_u8(frame.kind) {
        Some(RecordKind::ManifestSnapshot) => "snapshot",
        Some(RecordKind::ManifestEdits) => "edits",
        Some(RecordKind::Watermark) => "watermark",
        _ => "foreign record",
    };
    dump.item(1, at, |_| format!("{offset}: {kind}, newest commit {}, {} bytes", frame.seqno, frame.payload.len()));
    if dump.shows(at)
        && let Some(edits) = decode_edits(frame.payload)
    {
        for (nth, edit) in (0..).zip(&edits) {
            dump.item(2, nth, |dump| describe(dump, edit));
        }
        dump.end_list(2, edits.len() as u64);
    }
}

fn describe(dump: &Dump<'_>, edit: &Edit) -> String {
    let run = |run: &RunMeta| describe_run(dump, run);
    match edit {
        Edit::AddRun(meta) => format!("add run {}", run(meta)),
        Edit::RemoveRun { table, run } => format!("remove run {run} of table {}", table.0),
        Edit::MergeRuns { table, removed, added } => {
            let removed: Vec<String> = removed.iter().map(ToString::to_string).collect();
            let added = added.as_ref().map_or_else(|| "nothing".to_owned(), run);
            format!("merge runs {} of table {} into {added}", removed.join(", "), table.0)
        }
        Edit::AddValueFile(meta) => format!("add value file {}", describe_values(meta)),
        Edit::DropValueFiles { table, files } => {
            let files: Vec<String> = files.iter().map(ToString::to_string).collect();
            format!("drop value files {} of table {}", files.join(", "), table.0)
        }
        Edit::AddSegment(SegmentRecord { segment, table, meta, marks, marks_through }) => {
            let marks = marks.map_or_else(|| "no marks".to_owned(), |marks| format!("marks {marks}"));
            format!(
                "add segment {segment} of table {}, {marks} through {marks_through}, {} bytes of description",
                table.0,
                meta.len()
            )
        }
        Edit::RemoveSegment { table, segment } => format!("remove segment {segment} of table {}", table.0),
        Edit::SetMarks(sealed) => {
            let marks = sealed.marks.map_or_else(|| "none".to_owned(), |marks| marks.to_string());
            format!("marks of segment {}: {marks}, through {}", sealed.segment, sealed.marks_through)
        }
        Edit::FlushedThrough { table, seqno } => format!("table {} flushed through {seqno}", table.0),
        Edit::RowIds { table, next } => format!("table {} next row id {next}", table.0),
        Edit::DropTable { table } => format!("drop table {}", table.0),
        Edit::LastSeqNo(seqno) => format!("newest commit {seqno}"),
        Edit::WalReleased(start) => format!("log needed from file {} at position {}", start.file, start.lsn),
        Edit::NextFile(file) => format!("next file {file}"),
        Edit::History { kept_from: Some(seqno), marks } => {
            format!("states from commit {seqno} on are kept, {} times of commits", marks.len())
        }
        Edit::History { kept_from: None, .. } => "old states are not kept".to_owned(),
        Edit::PlaceRuns { table, removed, added } => {
            let removed: Vec<String> = removed.iter().map(ToString::to_string).collect();
            let placed = |(place, meta): &(Place, RunMeta)| format!("{} {}", say_place(*place), run(meta));
            let added: Vec<String> = added.iter().map(placed).collect();
            format!("table {}: place {} for {}", table.0, added.join("; "), removed.join(", "))
        }
    }
}

fn say_place(place: Place) -> String {
    match place.level {
        0 => "run".to_owned(),
        level => format!("level {level}, sorted run {}: run", place.sorted_run),
    }
}

fn describe_values(meta: &ValueFileMeta) -> String {
    let ValueFileMeta { file, table, file_bytes, value_count, record_bytes, raw_bytes, .. } = meta;
    let table = table.0;
    format!(
        "{file} of table {table}: {file_bytes} bytes, {value_count} values in {record_bytes} bytes, {raw_bytes} before \
         compression"
    )
}

fn describe_run(dump: &Dump<'_>, run: &RunMeta) -> String {
    let share = |share: &ValueShare| {
        format!(", {} values in {} bytes of value file {}", share.value_count, share.record_bytes, share.file)
    };
    let values: String = run.values.iter().map(share).collect();
    format!(
        "{} of table {}: {} bytes, {} versions ({} tombstones), commits {} to {}, keys {} to {}{values}",
        run.run,
        run.table.0,
        run.file_bytes,
        run.version_count,
        run.tombstone_count,
        run.seqno_min,
        run.seqno_max,
        dump.key(&run.key_min),
        dump.key(&run.key_max)
    )
}

/// `strata inspect` of a manifest.
///
/// # Errors
/// [`Error::Io`].
pub fn inspect(
    env: &dyn Env,
    path: &Path,
    id: Option<FileId>,
    cold: Option<&dyn ColdFiles>,
    dump: &mut Dump<'_>,
) -> Result<()> {
    let remains = read(env, path, id, Some(dump))?;
    if remains.db_id.is_none() {
        dump.say(0, title(FileKind::Manifest, id));
    }
    for fault in &remains.faults {
        dump.fault(1, fault.clone());
    }
    let adds_up = if remains.faults.is_empty() { "adds up to" } else { "before the first fault this adds up to" };
    dump.say(1, format!("{adds_up}:"));
    say_version(dump, 2, &remains.version, cold);
    Ok(())
}

fn say_version(dump: &mut Dump<'_>, depth: usize, version: &Version, cold: Option<&dyn ColdFiles>) {
    let start = version.wal_start.map_or_else(
        || "from its beginning".to_owned(),
        |start| format!("from file {} at position {}", start.file, start.lsn),
    );
    let (last, next) = (version.last_seqno, version.next_file);
    dump.say(depth, format!("newest commit {last}, next file {next}, log needed {start}"));
    for (id, table) in &version.tables {
        let (flushed, next) = (table.flushed_through, table.next_row_id);
        dump.say(depth, format!("table {}: flushed through {flushed}, next row id {next}", id.0));
        for (at, (place, run)) in (0..).zip(table.runs.placed()) {
            dump.item(depth + 1, at, |dump| format!("{} {}", say_place(place), describe_run(dump, run)));
        }
        dump.end_list(depth + 1, table.runs.len() as u64);
        for (at, file) in (0..).zip(table.values.values()) {
            dump.item(depth + 1, at, |_| {
                let garbage = file.garbage_bytes();
                format!("value file {}, {garbage} bytes of them garbage", describe_values(&file.meta))
            });
        }
        dump.end_list(depth + 1, table.values.len() as u64);
        for (at, record) in (0..).zip(table.segments.values()) {
            let marks = record.marks.map_or_else(|| "no marks".to_owned(), |marks| format!("marks {marks}"));
            dump.item(depth + 1, at, |_| {
                let meta = cold.map_or_else(|| format!("{} bytes", record.meta.len()), |c| c.describe(&record.meta));
                format!("segment {}, {marks} through {}: {meta}", record.segment, record.marks_through)
            });
        }
        dump.end_list(depth + 1, table.segments.len() as u64);
    }
}

/// The newest manifest in `dir`, if there is one.
pub(crate) fn newest(env: &dyn Env, dir: &Path) -> Result<Option<(FileId, PathBuf)>> {
    let names = env.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let manifests = names.iter().filter_map(|name| match FileKind::parse(name) {
        Some((FileKind::Manifest, id)) => Some(id),
        _ => None,
    });
    Ok(manifests.max().map(|id| (id, FileKind::Manifest.path(dir, id))))
}

/// `strata inspect` of a folder: what its manifest says, and its files with what each is to the manifest.
///
/// # Errors
/// [`Error::Invalid`] if nothing in it is a database's; [`Error::Io`].
pub fn overview(env: &Arc<dyn Env>, dir: &Path, cold: Option<&dyn ColdFiles>, dump: &mut Dump<'_>) -> Result<()> {
    let manifest = newest(env.as_ref(), dir)?;
    let files = files(env.as_ref(), dir)?;
    if manifest.is_none() && files.is_empty() {
        return Err(Error::Invalid(format!("{} holds no database", dir.display())));
    }
    let mut live = None;
    dump.say(0, "database");
    match &manifest {
        Some((id, path)) => {
            let remains = read(env.as_ref(), path, Some(*id), None)?;
            dump.say(1, format!("manifest {id}"));
            for fault in &remains.faults {
                dump.fault(2, fault.clone());
            }
            say_version(dump, 2, &remains.version, cold);
            if remains.faults.is_empty() {
                live = Some(remains.version);
            }
        }
        None => dump.fault(1, Fault::new(FileKind::Manifest, dir, 0, "no manifest, although there are data files")),
    }
    dump.say(1, "files");
    let named: Vec<_> = live.iter().flat_map(Version::files).collect();
    for (at, (kind, id, bytes)) in (0..).zip(&files) {
        let is_live = match kind {
            FileKind::Wal => live.as_ref().is_none_or(|live| live.wal_start.is_none_or(|start| *id >= start.file)),
            FileKind::Manifest => manifest.as_ref().is_some_and(|(newest, _)| newest == id),
            _ => live.is_none() || named.contains(&(*kind, *id)),
        };
        dump.item(2, at, |_| format!("{kind} {id}, {bytes} bytes{}", if is_live { "" } else { ", not in use" }));
    }
    dump.end_list(2, files.len() as u64);
    for (kind, id) in named.iter().filter(|file| !files.iter().any(|(kind, id, _)| (*kind, *id) == **file)) {
        let path = kind.path(dir, *id);
        dump.fault(2, Fault::new(*kind, &path, 0, format!("{kind} {id} is missing")));
    }
    Ok(())
}

/// Every file of ours in `dir`, with its size, by kind and number.
pub(crate) fn files(env: &dyn Env, dir: &Path) -> Result<Vec<(FileKind, FileId, u64)>> {
    let mut files = Vec::new();
    for folder in [dir.to_path_buf(), dir.join("wal"), dir.join("runs"), dir.join("segments")] {
        let names = match env.list(&folder) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list", &folder, error)),
        };
        for name in names {
            let Some((kind, id)) = FileKind::parse(&name) else { continue };
            let path = folder.join(&name);
            if path != kind.path(dir, id) {
                continue;
            }
            match env.open(&path, OpenMode::Read).and_then(|file| file.len()) {
                Ok(bytes) => files.push((kind, id, bytes)),
                // One that goes away between the listing and now belonged to a running process.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                // It is there, and whoever needs it is told why it cannot be read.
                Err(_) => files.push((kind, id, 0)),
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
