//! The command line's own files: answers beside a database, scripts, results, and the size of a folder.
//!
//! Files of a database are never touched here; they go through `strata_oltp::env`.
#![expect(clippy::disallowed_methods, reason = "files of the user, not of a database; no crash test needs to see them")]

use std::fs::{self, File};
use std::io::{Read, stdin};
use std::path::Path;

use anyhow::{Context, Result};

/// A file's text; `-` is standard input.
///
/// # Errors
/// Names the file that cannot be read.
pub fn read_text(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a whole file, replacing what stood there.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Opens a new or emptied file for writing.
///
/// # Errors
/// Names the file that cannot be written.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Creates a folder and its parents.
///
/// # Errors
/// Names the folder that cannot be created.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Gives a file or folder another name.
///
/// # Errors
/// Names both.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// Bytes of all files below `path`.
///
/// # Errors
/// Names the folder that cannot be read.
pub fn folder_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// A folder of our own that goes away with the value. It must not exist before, so that nothing of the user's is lost.
#[derive(Debug)]
pub struct TemporaryFolder<'a>(&'a Path);

impl TemporaryFolder<'_> {
    /// Claims a name that does not exist yet; whoever needs the folder creates it.
    ///
    /// # Errors
    /// If something stands there already.
    pub fn claim(path: &Path) -> Result<TemporaryFolder<'_>> {
        anyhow::ensure!(!path.exists(), "{} is in the way; remove it if a killed run left it behind", path.display());
        Ok(TemporaryFolder(path))
    }
}

impl Drop for TemporaryFolder<'_> {
    fn drop(&mut self) {
        // It may never have been created; and what cannot be removed is reported by the next claim.
        let _ = fs::remove_dir_all(self.0);
    }
}

/// The most memory this process ever had resident, if the system tells.
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
