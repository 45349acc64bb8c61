//! Copying immutable files from one folder to another, checksummed on the way.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3Default;

use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Length and XXH3-64 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Its length.
    pub bytes: u64,
    /// XXH3-64 of all of it.
    pub checksum: u64,
}

/// Copies `from` to the new file `to`, synced; the name is not. Returns what was read.
///
/// # Errors
/// I/O.
pub(crate) fn copy_file(env: &dyn Env, from: &Path, to: &Path) -> Result<Digest> {
    let copy = env.open(to, OpenMode::CreateNew).map_err(|error| Error::io("create", to, error))?;
    let digest = read_file(env, from, &mut |offset, piece| {
        copy.write_at(offset, piece).map_err(|error| Error::io("write", to, error))
    })?;
    copy.sync().map_err(|error| Error::io("sync", to, error))?;
    Ok(digest)
}

/// Reads all of `path` for its digest.
///
/// # Errors
/// I/O.
pub(crate) fn digest_file(env: &dyn Env, path: &Path) -> Result<Digest> {
    read_file(env, path, &mut |_, _| Ok(()))
}

/// The whole of a small file.
pub(crate) fn read_whole(env: &dyn Env, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_file(env, path, &mut |_, piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

/// Length of a file, or `None` if there is none.
pub(crate) fn length_of(env: &dyn Env, path: &Path) -> Result<Option<u64>> {
    match env.open(path, OpenMode::Read).and_then(|file| file.len()) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("measure", path, error)),
    }
}

fn read_file(env: &dyn Env, path: &Path, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<Digest> {
    let file = env.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
    let bytes = file.len().map_err(|error| Error::io("measure", path, error))?;
    let mut hasher = Xxh3Default::new();
    let mut piece = vec![0; bytes.min(PIECE_BYTES as u64) as usize];
    let mut offset = 0;
    while offset < bytes {
        piece.truncate((bytes - offset).min(PIECE_BYTES as u64) as usize);
        file.read_at(offset, &mut piece).map_err(|error| Error::io("read", path, error))?;
        hasher.update(&piece);
        visit(offset, &piece)?;
        offset += piece.len() as u64;
    }
    Ok(Digest { bytes, checksum: hasher.digest() })
}
