//! Files that background work wrote and no manifest came to name: removed at once, or as soon as that is certain.
//!
//! Without it a disk that is full fills up with what each attempt leaves behind, until the next open removes the orphans.
//!
//! Always true:
//! * what an edit names whose write or sync failed stays until a later append has voided that edit: until then a crash may
//!   leave it in effect, and the files must be there (RocksDB calls them quarantined);
//! * marks stay as well while the cold tier holds them for sealed, because it names them again in its next edit.

use crate::db::Inner;
use crate::file::{FileId, FileKind};
use crate::manifest::{Edit, Version};
use crate::sync::{Mutex, PoisonError};

/// A file that an edit in doubt would bring in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leftover {
    kind: FileKind,
    file: FileId,
    /// The segment that the file belongs to, for marks of a segment that was there before.
    marks_of: Option<FileId>,
}

/// Files in doubt.
#[derive(Default)]
pub(crate) struct Leftovers(Mutex<Vec<Leftover>>);

/// Gives numbers to files of one piece of work and remembers them.
pub(crate) struct Numbered<'a> {
    inner: &'a Inner,
    files: Mutex<Vec<FileId>>,
}

impl Leftovers {
    /// Keeps what `edits`, which failed, would have brought in on top of `version`.
    pub(super) fn doubt(&self, edits: &[Edit], version: &Version) {
        let known = version.files();
        let brought = edits.iter().flat_map(brought_in).filter(|left| !known.contains(&(left.kind, left.file)));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(brought);
    }

    /// What can go after `edits` succeeded and made `version`; each is returned once.
    pub(super) fn settle(&self, edits: &[Edit], version: &Version) -> Vec<(FileKind, FileId)> {
        let mut doubtful = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if doubtful.is_empty() {
            return Vec::new();
        }
        let (known, segments) = (version.files(), version.segments());
        doubtful.retain(|left| !known.contains(&(left.kind, left.file)));
        let is_held = |left: &mut Leftover| {
            let Some(segment) = left.marks_of else { return false };
            let is_sealed_anew = |edit: &Edit| matches!(edit, Edit::SetMarks(sealed) if sealed.segment == segment);
            segments.iter().any(|record| record.segment == segment) && !edits.iter().any(is_sealed_anew)
        };
        let gone: Vec<Leftover> = doubtful.extract_if(.., |left| !is_held(left)).collect();
        gone.into_iter().map(|left| (left.kind, left.file)).collect()
    }

    fn has(&self, file: FileId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|left| left.file == file)
    }
}

fn brought_in(edit: &Edit) -> Vec<Leftover> {
    let run = |file| Leftover { kind: FileKind::Run, file, marks_of: None };
    match edit {
        Edit::AddRun(meta) => vec![run(meta.run)],
        Edit::MergeRuns { added, .. } => added.iter().map(|meta| run(meta.run)).collect(),
        Edit::PlaceRuns { added, .. } => added.iter().map(|(_, meta)| run(meta.run)).collect(),
        Edit::AddValueFile(meta) => vec![Leftover { kind: FileKind::Values, file: meta.file, marks_of: None }],
        Edit::AddSegment(record) => {
            let of_segment = |kind| Leftover { kind, file: record.segment, marks_of: None };
            let marks = record.marks.map(|file| Leftover { kind: FileKind::Marks, file, marks_of: None });
            [of_segment(FileKind::Segment), of_segment(FileKind::Keys)].into_iter().chain(marks).collect()
        }
        Edit::SetMarks(sealed) => {
            let marks_of = Some(sealed.segment);
            sealed.marks.map(|file| Leftover { kind: FileKind::Marks, file, marks_of }).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

impl<'a> Numbered<'a> {
    pub(super) fn new(inner: &'a Inner) -> Numbered<'a> {
        Numbered { inner, files: Mutex::default() }
    }

    pub(super) fn next_file(&self) -> FileId {
        let file = self.inner.manifest.next_file();
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        file
    }

    /// Removes the cold tier's files under these numbers, after the work failed; but not those that the manifest names, or
    /// may name after a crash.
    pub(super) fn discard(&self) {
        let inner = self.inner;
        let named = inner.manifest.version().files();
        for file in std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner)) {
            for kind in [FileKind::Segment, FileKind::Keys, FileKind::Marks] {
                if !named.contains(&(kind, file)) && !inner.work.leftovers.has(file) {
                    // Most numbers stand for one or two of the three kinds.
                    drop(inner.env.remove(&kind.path(&inner.dir, file)));
                }
            }
        }
    }
}
