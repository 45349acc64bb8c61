//! What is done to a database as a whole: dropping a table's storage, verification. Copies are made in `backup`.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crate::db::{Db, Inner};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::manifest::{Edit, Version};
use crate::schema::TableId;
use crate::values::ValueFiles;

/// What [`Db::verify`] read without finding fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Runs read whole.
    pub run_count: u64,
    /// Segments read whole.
    pub segment_count: u64,
    /// Versions in those runs.
    pub version_count: u64,
    /// Value files read whole.
    pub value_file_count: u64,
    /// References followed to their values.
    pub value_count: u64,
}

/// Large values of a table; see [`Db::value_stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueStats {
    /// Value files.
    pub file_count: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Values that runs refer to.
    pub value_count: u64,
    /// Stored bytes of these.
    pub live_bytes: u64,
    /// Stored bytes of values that no run refers to.
    pub garbage_bytes: u64,
}

impl Db {
    /// Drops the storage of a table whose catalog entry is gone, and with it the states of the past that retention kept, of all
    /// tables. Snapshots taken before go on reading it; its files go
    /// when the last of them does.
    ///
    /// # Errors
    /// I/O on the manifest; the table's storage then stays and can be dropped again.
    pub fn drop_table(&self, table: TableId) -> Result<()> {
        let inner = &self.inner;
        let _restructuring = inner.work.restructuring.lock().unwrap_or_else(PoisonError::into_inner);
        let _flushing = inner.work.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let _installing = inner.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tables.write().unwrap_or_else(PoisonError::into_inner).remove(&table);
        inner.wal.sync_to(inner.wal.end_lsn())?;
        let version = inner.manifest.version();
        // In older states the table would be found empty.
        inner.snapshots.forget_past(&inner.views);
        inner.append_edits(&[Edit::DropTable { table }])?;
        let sequencer = inner.lock_sequencer();
        let view = inner.views.load();
        let mut tables = view.tables.clone();
        tables.remove(&table);
        let cold = inner.cold.drop_table(view.cold.as_ref(), table);
        inner.views.install(tables, cold, files_of(&version, table));
        drop(sequencer);
        drop(view);
        inner.remove_garbage();
        Ok(())
    }

    /// Reads every live file whole and checks all checksums, key order and counts.
    ///
    /// # Errors
    /// The first [`Error::Corrupt`], naming file and offset.
    pub fn verify(&self) -> Result<VerifyReport> {
        let view = self.inner.views.load();
        let mut report = VerifyReport::default();
        let mut values = ValueFiles::new();
        for run in view.tables.values().flat_map(|rows| rows.runs()) {
            run.verify()?;
            report.value_count += run.verify_values()?;
            values.extend(run.value_files().iter().map(|(id, file)| (*id, Arc::clone(file))));
            report.run_count += 1;
            report.version_count += run.meta().version_count;
        }
        for file in values.values() {
            file.verify()?;
            report.value_file_count += 1;
        }
        report.segment_count = self.inner.cold.verify(view.cold.as_ref())?;
        Ok(report)
    }

    /// Every file that the manifest names, besides the log and the manifest itself.
    #[must_use]
    pub fn live_files(&self) -> BTreeSet<(FileKind, FileId)> {
        self.inner.manifest.version().files().into_iter().collect()
    }

    /// The current manifest version: runs, segments and how far each table is flushed.
    #[must_use]
    pub fn version(&self) -> Arc<Version> {
        self.inner.manifest.version()
    }

    /// What `table` has in value files, and how much of it is garbage: what no run refers to, so that no snapshot sees it.
    #[must_use]
    pub fn value_stats(&self, table: TableId) -> ValueStats {
        let version = self.inner.manifest.version();
        let files = version.table(table).into_iter().flat_map(|live| live.values.values());
        files.fold(ValueStats::default(), |sum, file| ValueStats {
            file_count: sum.file_count + 1,
            file_bytes: sum.file_bytes + file.meta.file_bytes,
            value_count: sum.value_count + file.value_count,
            live_bytes: sum.live_bytes + file.record_bytes,
            garbage_bytes: sum.garbage_bytes + file.garbage_bytes(),
        })
    }

    /// Bytes on disk that the database needs: live files, log and manifest; spare log files are left out.
    ///
    /// # Errors
    /// I/O.
    pub fn disk_bytes(&self) -> Result<u64> {
        self.inner.disk_bytes()
    }
}

impl Inner {
    fn disk_bytes(&self) -> Result<u64> {
        let mut total = self.wal.live_bytes();
        for folder in [self.dir.clone(), self.dir.join("runs"), self.dir.join("segments")] {
            for name in self.env.list(&folder).map_err(|e| Error::io("list", &folder, e))? {
                let path = folder.join(&name);
                match self.env.open(&path, crate::env::OpenMode::Read).and_then(|file| file.len()) {
                    Ok(bytes) => total += bytes,
                    // Dropped between the listing and now.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io("read", &path, error)),
                }
            }
        }
        Ok(total)
    }
}

fn files_of(version: &Version, table: TableId) -> Vec<(FileKind, FileId)> {
    let only = Version {
        tables: version.tables.clone().into_iter().filter(|(id, _)| *id == table).collect(),
        ..Version::default()
    };
    only.files()
}
