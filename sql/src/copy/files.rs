//! Files of COPY: which ones may be touched, reading one in pieces, and a new one that appears only when it is whole.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::reader::{ChunkReader, Length};
use strata_oltp::env::{Env, File, OpenMode};

use crate::error::{Error, Result, SqlState};

/// Files that COPY may read and write: the rights are those of the process, whoever sent the statement. A server that
/// takes statements from others should give it folders, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileAccess {
    /// Any file: for a program's own statements.
    #[default]
    Anywhere,
    /// Files in these folders and those below them, links followed; none if the list is empty.
    Within(Vec<PathBuf>),
}

impl FileAccess {
    /// The file meant by `path`, if it may be touched.
    ///
    /// # Errors
    /// 42501.
    pub(crate) fn permit(&self, path: &str) -> Result<PathBuf> {
        let FileAccess::Within(folders) = self else { return Ok(PathBuf::from(path)) };
        let refused = || {
            Error::new(SqlState::InsufficientPrivilege, format!("COPY may not touch the file {path}"))
                .with_hint("EngineOptions::copy_files lists the folders it may use")
        };
        let asked = Path::new(path);
        let (Some(folder), Some(name)) = (asked.parent(), asked.file_name()) else { return Err(refused()) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = folder.canonicalize().map_err(|_| refused())?;
        let mut real = folder.join(name);
        // A link within a permitted folder may lead out of it.
        if real.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            real = real.canonicalize().map_err(|_| refused())?;
        }
        let is_within = |allowed: &PathBuf| allowed.canonicalize().is_ok_and(|allowed| real.starts_with(allowed));
        if folders.iter().any(is_within) { Ok(real) } else { Err(refused()) }
    }
}

/// Refuses what is there but is no plain file: renaming over a device would be the end of it.
fn check_plain(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(Error::new(SqlState::WrongObjectType, format!("{} is a directory, not a file", path.display())))
        }
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::unsupported(format!("COPY with {}, which is not a plain file,", path.display())))
        }
        // What is not there on disk may be in an environment of its own.
        _ => Ok(()),
    }
}

/// 58P01, 42501 or 58030, naming the file.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let (state, hint) = match error.kind() {
        io::ErrorKind::NotFound => (SqlState::UndefinedFile, "relative names count from the process's folder"),
        io::ErrorKind::PermissionDenied => (SqlState::InsufficientPrivilege, "the process needs the right to do so"),
        io::ErrorKind::StorageFull => (SqlState::DiskFull, "free space on the disk"),
        _ => (SqlState::IoError, "see the cause"),
    };
    Error::new(state, format!("cannot {what} {}: {error}", path.display())).with_hint(hint).with_source(error)
}

/// A file being read: in order, and by Parquet's reader at random.
#[derive(Clone)]
pub(super) struct Source {
    file: Arc<dyn File>,
    at: u64,
    bytes: u64,
}

impl Source {
    /// # Errors
    /// 58P01 and other failures of the operating system.
    pub(super) fn open(env: &Arc<dyn Env>, path: &Path) -> Result<Source> {
        check_plain(path)?;
        let file = env.open(path, OpenMode::Read).map_err(|error| failed("read", path, error))?;
        let bytes = file.len().map_err(|error| failed("read", path, error))?;
        Ok(Source { file, at: 0, bytes })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        self.file.read_at(self.at, &mut buffer[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Source {
    type T = io::BufReader<Source>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(io::BufReader::new(Source { at: start, ..self.clone() }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut buffer = vec![0; length];
        self.file.read_at(start, &mut buffer).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(buffer.into())
    }
}

/// A file that takes its name when it is finished; dropped before, it is gone.
pub(super) struct NewFile {
    env: Arc<dyn Env>,
    path: PathBuf,
    temporary: PathBuf,
    /// `None` once it is finished.
    writer: Option<BufWriter<Appender>>,
}

struct Appender {
    file: Arc<dyn File>,
    at: u64,
}

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile {
    /// # Errors
    /// 42809 for a folder; failures of the operating system.
    pub(super) fn create(env: &Arc<dyn Env>, path: &Path) -> Result<NewFile> {
        const BUFFER_BYTES: usize = 256 << 10;
        check_plain(path)?;
        let Some(name) = path.file_name() else {
            return Err(Error::new(SqlState::WrongObjectType, format!("{} is not the name of a file", path.display())));
        };
        let hidden = format!(".{}.{:016x}.tmp", name.to_string_lossy(), env.random_u64());
        let temporary = path.with_file_name(hidden);
        let file = env.open(&temporary, OpenMode::CreateNew).map_err(|error| failed("write", path, error))?;
        let writer = Some(BufWriter::with_capacity(BUFFER_BYTES, Appender { file, at: 0 }));
        Ok(NewFile { env: Arc::clone(env), path: path.to_owned(), temporary, writer })
    }

    /// Gives the file its name, durably; what had it before is replaced.
    ///
    /// # Errors
    /// Failures of the operating system; the old file, if there was one, is then still there.
    pub(super) fn finish(mut self) -> Result<()> {
        self.publish().map_err(|error| failed("write", &self.path, error))
    }

    fn publish(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = writer
            .flush()
            .and_then(|()| writer.get_ref().file.sync())
            .and_then(|()| self.env.rename(&self.temporary, &self.path));
        if written.is_err() {
            self.writer = Some(writer);
        }
        written?;
        self.env.sync_dir(folder)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.writer {
            Some(writer) => writer.write(bytes),
            None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // What is buffered would only be written to be removed.
            drop(writer.into_parts());
            if let Err(error) = self.env.remove(&self.temporary) {
                tracing::warn!(%error, "cannot remove {}", self.temporary.display());
            }
        }
    }
}
