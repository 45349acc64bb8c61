//! One merge: several runs in, one run out. Installing it is the caller's, in one manifest edit.

use super::gc::{GcCursor, GcOptions};
use crate::error::Result;
use crate::iter::{Cursor, MergeCursor};
use crate::manifest::RunMeta;
use crate::sstable::RunWriter;

/// Merges `inputs`, newest first, into `writer` without the versions that `options` lets go, and finishes it:
/// synced, read back and verified. `None` if no version remained; the file is then removed.
///
/// Reads and writes each byte once and holds a block per input; the filter's key hashes take 8 bytes per key.
///
/// # Errors
/// Corrupt or unreadable inputs, or a failed write; the unfinished file is then removed.
pub fn merge_runs(inputs: Vec<Box<dyn Cursor>>, mut writer: RunWriter, options: GcOptions) -> Result<Option<RunMeta>> {
    let mut versions = GcCursor::new(MergeCursor::new(inputs), options);
    let copied = copy(&mut versions, &mut writer);
    if copied.is_ok() && writer.version_count() > 0 {
        return writer.finish().map(Some);
    }
    let removed = writer.abandon();
    copied?;
    removed?;
    Ok(None)
}

fn copy(versions: &mut dyn Cursor, writer: &mut RunWriter) -> Result<()> {
    versions.next()?;
    while versions.valid() {
        writer.add(versions.key(), versions.seqno(), versions.kind(), versions.value())?;
        versions.next()?;
    }
    Ok(())
}
