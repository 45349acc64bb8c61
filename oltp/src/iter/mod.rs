//! Cursors over row versions: the one shape in which memtables, runs and their merges are read.
//!
//! Order is (user key ascending, SeqNo descending), so the newest version of a key comes first.

pub mod bounded;
pub mod loaded;
pub mod merge;
pub mod overlay;
pub mod vec;
pub mod visible;

pub use loaded::LoadedCursor;
pub use merge::MergeCursor;
pub use overlay::{Overlay, OverlayCursor};
pub use vec::{VecCursor, Version};
pub use visible::{SourceKind, VisibleCursor};

use bytes::Bytes;

use crate::error::Result;
use crate::seqno::SeqNo;

/// What a version does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VersionKind {
    /// The row is gone from this commit on.
    Delete = 0,
    /// The row has the version's value from this commit on.
    Put = 1,
    /// As [`VersionKind::Put`], but the value lies in a value file, and here is only where: see [`crate::values`]. Met in
    /// runs alone.
    Reference = 2,
}

/// A position in a sorted sequence of versions. Starts before the first entry; `seek` or `next` moves it onto one.
///
/// Keys are full keys, table prefix included. Borrowed bytes stay valid until the next move.
pub trait Cursor: Send {
    /// Whether the cursor stands on an entry.
    fn valid(&self) -> bool;
    /// Key of the current entry. Only while [`Cursor::valid`].
    fn key(&self) -> &[u8];
    /// Commit of the current entry. Only while [`Cursor::valid`].
    fn seqno(&self) -> SeqNo;
    /// Kind of the current entry. Only while [`Cursor::valid`].
    fn kind(&self) -> VersionKind;
    /// Row bytes of the current entry, empty for a delete; of a [`VersionKind::Reference`] the encoded
    /// [`ValueRef`](crate::values::ValueRef). Only while [`Cursor::valid`].
    fn value(&self) -> &[u8];
    /// Row bytes of the current entry wherever they lie, copied or read from their value file. Only while
    /// [`Cursor::valid`].
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn load(&self) -> Result<Bytes> {
        debug_assert!(self.kind() != VersionKind::Reference, "who returns references loads them");
        Ok(Bytes::copy_from_slice(self.value()))
    }
    /// Moves to the next entry, or onto the first if the cursor has not been moved yet.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn next(&mut self) -> Result<()>;
    /// Moves to the first entry at or after (`key`, `seqno`) in cursor order.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()>;
}
