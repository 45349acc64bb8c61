//! A value file as far as it can be read, without its record in the manifest.
//!
//! Records have no length in front; the list behind them says where each ends. Without it, or beside it, the references of
//! runs do, so that a record is found by whoever needs it: [`ValuesFile::read`].

use std::path::{Path, PathBuf};

use super::dump::title;
use super::{Dump, Fault};
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::sstable::frame;
use crate::sstable::varint::Reader;
use crate::sync::Arc;
use crate::values::footer::{FOOTER_BYTES, Footer};
use crate::values::{FORMAT_VERSION, Record, ValueRef, read_record};

/// A value file whose records are read one by one.
#[derive(Debug)]
pub(crate) struct ValuesFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// From the name, or from the footer of a renamed file.
    pub id: FileId,
    pub footer: Option<Footer>,
    /// Where the records lie, as far as the list says.
    pub places: Vec<ValueRef>,
    /// What does not hold about footer and list.
    pub faults: Vec<Fault>,
    file: Arc<dyn File>,
}

impl ValuesFile {
    /// Opens the file; damage becomes faults.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NewerFormat`].
    pub fn open(env: &dyn Env, path: &Path, id: Option<FileId>) -> Result<ValuesFile> {
        let file = env.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
        let bytes = file.len().map_err(|e| Error::io("measure", path, e))?;
        let mut values = ValuesFile {
            path: path.to_path_buf(),
            bytes,
            id: id.unwrap_or(FileId(0)),
            footer: None,
            places: Vec::new(),
            faults: Vec::new(),
            file,
        };
        let Some(footer_at) = bytes.checked_sub(FOOTER_BYTES as u64) else {
            values.fault(bytes, "file is shorter than its footer");
            return Ok(values);
        };
        let mut footer = [0; FOOTER_BYTES];
        values.file.read_at(footer_at, &mut footer).map_err(|e| Error::io("read", path, e))?;
        match Footer::decode(&footer) {
            Ok(footer) if footer.version > FORMAT_VERSION => {
                let (found, supported) = (footer.version, FORMAT_VERSION);
                return Err(Error::NewerFormat { file: path.to_path_buf(), found, supported });
            }
            Ok(footer) => {
                values.id = id.unwrap_or(footer.id);
                if footer.id != values.id {
                    values.fault(footer_at, format!("the footer is of value file {}", footer.id));
                }
                values.footer = Some(footer);
                values.read_list(&footer, footer_at)?;
            }
            Err(damage) => values.fault(footer_at, damage.what),
        }
        Ok(values)
    }

    fn fault(&mut self, offset: u64, what: impl Into<String>) {
        self.faults.push(Fault::new(FileKind::Values, &self.path, offset, what));
    }

    fn read_list(&mut self, footer: &Footer, footer_at: u64) -> Result<()> {
        let list_at = footer.record_bytes;
        if list_at.checked_add(u64::from(footer.lengths_bytes)) != Some(footer_at) {
            self.fault(footer_at, "footer disagrees with the length of the file");
            return Ok(());
        }
        let mut stored = vec![0; footer.lengths_bytes as usize];
        self.file.read_at(list_at, &mut stored).map_err(|e| Error::io("read", &self.path, e))?;
        let raw = match frame::open(&stored, self.id, list_at) {
            Ok(raw) => raw,
            Err(damage) => {
                self.fault(list_at, format!("list of records: {}", damage.what));
                return Ok(());
            }
        };
        let (mut lengths, mut offset) = (Reader::new(&raw, 0), 0u64);
        while lengths.finish().is_err() {
            let bytes = lengths.varint().ok().and_then(|bytes| u32::try_from(bytes).ok());
            let end = bytes.and_then(|bytes| offset.checked_add(u64::from(bytes))).filter(|end| *end <= list_at);
            let (Some(bytes), Some(end)) = (bytes, end) else {
                self.fault(list_at, "the list of records leads beyond them");
                return Ok(());
            };
            self.places.push(ValueRef { file: self.id, offset, bytes });
            offset = end;
        }
        if offset != list_at || self.places.len() as u64 != footer.value_count {
            self.fault(list_at, "the list of records disagrees with the footer");
        }
        Ok(())
    }

    /// The record at `at`.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Io`].
    pub fn read(&self, at: ValueRef) -> Result<Record> {
        read_record(&*self.file, &self.path, self.bytes, ValueRef { file: self.id, ..at })
    }

    /// Calls `visit` with every record that the list names; what cannot be read becomes a fault.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn walk(&self, faults: &mut Vec<Fault>, visit: &mut dyn FnMut(ValueRef, &Record)) -> Result<()> {
        for at in &self.places {
            match self.read(*at) {
                Ok(record) => {
                    let table = crate::key::table_of(&record.key);
                    if self.footer.is_some_and(|footer| table != Some(footer.table)) {
                        faults.push(Fault::new(FileKind::Values, &self.path, at.offset, "a value of another table"));
                    }
                    visit(*at, &record);
                }
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => faults.push(Fault::of(&error, FileKind::Values, &self.path)),
            }
        }
        Ok(())
    }
}

/// `strata inspect` of a value file.
///
/// # Errors
/// [`Error::Io`].
pub fn inspect(env: &dyn Env, path: &Path, id: Option<FileId>, dump: &mut Dump<'_>) -> Result<()> {
    let values = ValuesFile::open(env, path, id)?;
    let table = values.footer.map_or_else(String::new, |footer| format!(", table {}", footer.table.0));
    dump.say(0, format!("{}{table}, {} bytes", title(FileKind::Values, Some(values.id)), values.bytes));
    for fault in &values.faults {
        dump.fault(1, fault.clone());
    }
    if let Some(footer) = values.footer {
        let Footer { version, value_count, record_bytes, raw_bytes, created_ms, .. } = footer;
        dump.say(1, format!("format {version}, written at {created_ms} ms since 1970"));
        dump.say(1, format!("{value_count} values in {record_bytes} bytes, {raw_bytes} before compression"));
    }
    let (mut faults, mut count) = (Vec::new(), 0);
    values.walk(&mut faults, &mut |at, record| {
        dump.item(1, count, |dump| {
            let (key, bytes) = (dump.key(&record.key), record.value.len());
            format!("value at {}: {} bytes, {key} @{} = {bytes} bytes", at.offset, at.bytes, record.seqno)
        });
        count += 1;
    })?;
    dump.end_list(1, count);
    for fault in faults {
        dump.fault(1, fault);
    }
    Ok(())
}
