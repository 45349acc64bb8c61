//! Value files: copied if sound and needed. Of the others, what verifies goes into the runs that refer to it, because a
//! file that is not whole has no place in a database that verifies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Effect, Repair};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::inspect::values::ValuesFile;
use crate::manifest::{Edit, LiveValues};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::values::{ValueFile, ValueRef};

/// The value files of the original.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<FileId, Known>);

#[derive(Debug)]
enum Known {
    /// It is as the manifest says, so references to it may stay.
    Sound,
    /// Its records are read one by one.
    Damaged(ValuesFile),
    /// It cannot be read at all.
    Unreadable,
}

/// What is left of the row behind a reference.
pub(super) enum Row {
    /// It lies where the reference says, in a file that is copied.
    Kept,
    /// It was read out of a damaged file.
    Read(Bytes),
    /// It cannot be read.
    Lost(ValueRef),
}

impl Values {
    pub(super) fn is_sound(&self, file: FileId) -> bool {
        matches!(self.0.get(&file), Some(Known::Sound))
    }

    /// The row that `key` has from commit `seqno` on; `None` if `reference` is malformed.
    pub(super) fn row(&self, reference: &[u8], key: &[u8], seqno: SeqNo) -> Option<Row> {
        let at = ValueRef::decode(reference).ok()?;
        let file = match self.0.get(&at.file) {
            Some(Known::Sound) => return Some(Row::Kept),
            Some(Known::Damaged(file)) => file,
            Some(Known::Unreadable) | None => return Some(Row::Lost(at)),
        };
        let record = file.read(at).ok().filter(|record| record.key == key && record.seqno == seqno);
        Some(record.map_or(Row::Lost(at), |record| Row::Read(record.value)))
    }
}

/// Rows of one run that could not be read, by their value file.
#[derive(Debug, Default)]
pub(super) struct LostRows(BTreeMap<FileId, LostPart>);

#[derive(Debug)]
struct LostPart {
    bytes: std::ops::Range<u64>,
    first: Vec<u8>,
    last: Vec<u8>,
    count: u64,
}

impl LostRows {
    /// Notes one; keys come in order.
    pub(super) fn note(&mut self, at: ValueRef, key: &[u8]) {
        let bytes = at.offset..at.offset.saturating_add(u64::from(at.bytes));
        let part = self.0.entry(at.file).or_insert_with(|| LostPart {
            bytes: bytes.clone(),
            first: key.to_vec(),
            last: Vec::new(),
            count: 0,
        });
        part.bytes = part.bytes.start.min(bytes.start)..part.bytes.end.max(bytes.end);
        part.last = key.to_vec();
        part.count += 1;
    }

    pub(super) fn count(&self) -> u64 {
        self.0.values().map(|part| part.count).sum()
    }
}

impl Repair<'_> {
    /// Looks at every value file of a table that the manifest knows.
    pub(super) fn look_at_values(&mut self, live: &BTreeMap<FileId, LiveValues>) -> Result<()> {
        for (&id, file) in live {
            let whole = ValueFile::open(self.env, self.dir, &file.meta).and_then(|file| file.verify());
            match whole {
                Ok(()) => drop(self.values.0.insert(id, Known::Sound)),
                Err(error @ Error::NewerFormat { .. }) => return Err(error),
                Err(_) => self.look_at_damaged(id, Some(file.meta.table))?,
            }
        }
        Ok(())
    }

    /// Opens a value file whose records are to be read one by one.
    pub(super) fn look_at_damaged(&mut self, id: FileId, table: Option<TableId>) -> Result<()> {
        let path = FileKind::Values.path(self.dir, id);
        let known = match ValuesFile::open(self.env.as_ref(), &path, Some(id)) {
            Ok(file) => {
                let mut faults = file.faults.clone();
                // What it says of itself may hold and yet not be what the manifest knows.
                let _ = file.walk(&mut faults, &mut |_, _| {});
                self.lose_faults(&faults, Effect::Rebuilt, table);
                Known::Damaged(file)
            }
            Err(error @ Error::NewerFormat { .. }) => return Err(error),
            Err(_) => Known::Unreadable,
        };
        self.values.0.insert(id, known);
        Ok(())
    }

    pub(super) fn lose_rows(&mut self, table: TableId, lost: LostRows) {
        for (file, part) in lost.0 {
            let what = "values that cannot be read";
            let loss = self.lose(Effect::Lost, FileKind::Values, file, what);
            (loss.table, loss.bytes) = (Some(table), part.bytes);
            (loss.keys, loss.rows) = (Some((part.first, part.last)), Some(part.count));
        }
    }

    /// Copies the value files that the repaired runs of a table refer to; returns the edits that name them.
    pub(super) fn keep_values(
        &mut self,
        live: &BTreeMap<FileId, LiveValues>,
        needed: &BTreeSet<FileId>,
    ) -> Result<Vec<Edit>> {
        let mut edits = Vec::new();
        for (id, file) in live.iter().filter(|(id, _)| needed.contains(id)) {
            self.copy(FileKind::Values, *id)?;
            edits.push(Edit::AddValueFile((*file.meta).clone()));
        }
        Ok(edits)
    }
}
