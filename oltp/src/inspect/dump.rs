//! `inspect`: any file or folder of a database as text.
//!
//! The text is for people and for golden files; its form may change. Lists are cut after [`LIST_MAX`] lines unless
//! everything was asked for, and what was left out is counted.

use std::fmt::Write as _;
use std::path::Path;

use super::{ColdFiles, Fault, log, manifest, run, values};
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::sync::Arc;

/// Lines of one list that are shown unless everything was asked for.
pub const LIST_MAX: u64 = 100;
/// Bytes of a key or value that are shown unless everything was asked for.
const BYTES_MAX: usize = 48;

/// Where a dump goes, line by line, and the faults met on the way.
pub struct Dump<'a> {
    line: &'a mut dyn FnMut(&str),
    all: bool,
    faults: Vec<Fault>,
}

impl<'a> Dump<'a> {
    /// A dump that hands each line to `line`; cut lists and long keys are shown whole with `all`.
    pub fn new(line: &'a mut dyn FnMut(&str), all: bool) -> Dump<'a> {
        Dump { line, all, faults: Vec::new() }
    }

    /// One line, indented.
    pub fn say(&mut self, depth: usize, text: impl AsRef<str>) {
        (self.line)(&format!("{:indent$}{}", "", text.as_ref(), indent = depth * 2));
    }

    /// A line of a list whose number is `at`; left out beyond the limit. `text` is only called if it is shown.
    pub fn item(&mut self, depth: usize, at: u64, text: impl FnOnce(&Dump<'_>) -> String) {
        if self.shows(at) {
            let text = text(self);
            self.say(depth, text);
        }
    }

    /// Whether line `at` of a list is shown.
    #[must_use]
    pub fn shows(&self, at: u64) -> bool {
        self.all || at < LIST_MAX
    }

    /// Says how many lines of a list of `count` were left out, if any were.
    pub fn end_list(&mut self, depth: usize, count: u64) {
        if !self.shows(count.saturating_sub(1)) {
            self.say(depth, format!("… {} more", count - LIST_MAX));
        }
    }

    /// Notes a fault, and says it where it was met.
    pub fn fault(&mut self, depth: usize, fault: Fault) {
        self.say(depth, format!("FAULT at byte {}: {}", fault.offset, fault.what));
        self.faults.push(fault);
    }

    /// Everything that does not hold, in the order it was met.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Bytes in hexadecimal, cut if long.
    #[must_use]
    pub fn hex(&self, bytes: &[u8]) -> String {
        let shown = if self.all { bytes } else { &bytes[..bytes.len().min(BYTES_MAX)] };
        let mut text = hex(shown);
        if shown.len() < bytes.len() {
            let _ = write!(text, "… ({} bytes)", bytes.len());
        }
        text
    }

    /// A full key: table, index and the rest in hexadecimal.
    #[must_use]
    pub fn key(&self, key: &[u8]) -> String {
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        match key.split_at_checked(crate::key::PREFIX_BYTES) {
            Some((prefix, rest)) if number(&prefix[4..]) == 0 => {
                format!("{}/{}", number(&prefix[..4]), self.hex(rest))
            }
            Some((prefix, rest)) => {
                format!("{}.{}/{}", number(&prefix[..4]), number(&prefix[4..]), self.hex(rest))
            }
            None => format!("?/{}", self.hex(key)),
        }
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes what `path` holds into `dump`: a database folder as an overview, one of its files in detail. What a file is
/// is told by its name, or by its first and last bytes if it was renamed.
///
/// # Errors
/// [`Error::Invalid`] if it is neither; [`Error::Io`]. Damage is no error: see [`Dump::faults`].
pub fn inspect(env: &Arc<dyn Env>, path: &Path, cold: Option<&dyn ColdFiles>, dump: &mut Dump<'_>) -> Result<()> {
    if env.list(path).is_ok() {
        return manifest::overview(env, path, cold, dump);
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let named = FileKind::parse(&name);
    let file = env.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
    let bytes = file.len().map_err(|error| Error::io("measure", path, error))?;
    let kind = match named {
        Some((kind, _)) => Some(kind),
        None => by_magic(&*file, bytes).map_err(|error| Error::io("read", path, error))?,
    };
    let Some(kind) = kind else {
        return Err(Error::Invalid(format!("{} is neither a database nor a file of one", path.display())));
    };
    let id = named.map(|(_, id)| id);
    match kind {
        FileKind::Manifest => manifest::inspect(env.as_ref(), path, id, cold, dump),
        FileKind::Wal => log::inspect(env.as_ref(), path, id, dump),
        FileKind::Run => run::inspect(env.as_ref(), path, id, dump),
        FileKind::Values => values::inspect(env.as_ref(), path, id, dump),
        FileKind::Backup => crate::backup::record::inspect(env.as_ref(), path, id, dump),
        FileKind::Segment | FileKind::Keys | FileKind::Marks => match cold {
            Some(cold) => cold.inspect(env, kind, path, id, dump),
            None => {
                dump.say(0, format!("{}, {bytes} bytes", title(kind, id)));
                Ok(())
            }
        },
    }
}

/// How a file is called in a dump.
#[must_use]
pub fn title(kind: FileKind, id: Option<FileId>) -> String {
    id.map_or_else(|| format!("{kind}, renamed"), |id| format!("{kind} {id}"))
}

fn by_magic(file: &dyn crate::env::File, bytes: u64) -> std::io::Result<Option<FileKind>> {
    if bytes < 8 {
        return Ok(None);
    }
    let (mut first, mut last) = ([0; 8], [0; 8]);
    file.read_at(0, &mut first)?;
    file.read_at(bytes - 8, &mut last)?;
    Ok(match &first {
        b"STRATAWL" => Some(FileKind::Wal),
        b"STRATAMF" => Some(FileKind::Manifest),
        b"STRATABK" => Some(FileKind::Backup),
        b"STRAKEYS" => Some(FileKind::Keys),
        b"STRAMARK" => Some(FileKind::Marks),
        _ if first.starts_with(b"PAR1") => Some(FileKind::Segment),
        _ if &last == b"STRATRUN" => Some(FileKind::Run),
        _ if &last == b"STRATVAL" => Some(FileKind::Values),
        _ => None,
    })
}
