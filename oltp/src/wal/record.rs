//! One frame of a log to bytes and back. Layout: FORMAT.md.
//!
//! A frame is laid out in two steps: [`begin_frame`] when it is appended (its position is known), [`seal_frame`] when
//! it is written (its file, and how far the log is durable, are known only then; and the checksum is computed outside
//! the lock that orders appends).

use crate::file::{FileId, FileKind};
use crate::seqno::SeqNo;
use crate::wal::{DbId, Lsn};

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 40;
/// Frames start at multiples of this, so that a search for frames needs to look only there.
pub const FRAME_ALIGN: usize = 8;
/// Largest payload of one frame.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;

const LEN_AT: usize = 4;
const KIND_AT: usize = 8;
const RESERVED_AT: usize = 9;
pub(crate) const LSN_AT: usize = 16;
const DURABLE_AT: usize = 24;
const SEQNO_AT: usize = 32;

const _: () = assert!(SEQNO_AT + 8 == FRAME_HEADER_BYTES);
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// One transaction, whole.
    Commit = 1,
    /// The log was closed in order; nothing follows in this file.
    CleanClose = 2,
    /// No payload: proves that everything before it was synced.
    Watermark = 3,
    /// A note for whoever restores from an archive: the wall-clock time, in Unix milliseconds, before which everything up to
    /// here was sequenced. Only in files of version 2.
    Clock = 4,
    /// A note: row ids of a table below a bound may have been given out. Only in files of version 2.
    RowIds = 5,
    /// Manifest: edits that build the whole version from nothing; the first frame of each manifest.
    ManifestSnapshot = 16,
    /// Manifest: edits that take effect together.
    ManifestEdits = 17,
}

impl RecordKind {
    /// The kind with this number, or `None` if this program knows none.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<RecordKind> {
        Some(match number {
            1 => RecordKind::Commit,
            2 => RecordKind::CleanClose,
            3 => RecordKind::Watermark,
            4 => RecordKind::Clock,
            5 => RecordKind::RowIds,
            16 => RecordKind::ManifestSnapshot,
            17 => RecordKind::ManifestEdits,
            _ => return None,
        })
    }
}

/// Which file a frame belongs to, folded into every checksum so that bytes of another file, or of an earlier life of
/// a recycled one, never verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    seed: u32,
}

impl Identity {
    pub(crate) fn new(kind: FileKind, db_id: &DbId, file: FileId) -> Identity {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(db_id);
        hasher.update(&[if kind == FileKind::Manifest { 1 } else { 0 }]);
        hasher.update(&file.0.to_le_bytes());
        Identity { seed: hasher.finalize() }
    }

    fn checksum(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// One verified frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it starts in the log.
    pub lsn: Lsn,
    /// Where the next one starts.
    pub end: Lsn,
    /// Everything below this was synced when the frame was written.
    pub durable: Lsn,
    /// Number of its [`RecordKind`].
    pub kind: u8,
    /// The commit, or for other kinds the newest commit before it.
    pub seqno: SeqNo,
    /// The caller's bytes.
    pub payload: &'a [u8],
}

/// Bytes that a frame with such a payload occupies.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGN)
}

/// Bytes that the frame starting with `header` says it occupies; meaningless unless the frame verifies.
pub(crate) fn claimed_bytes(header: &[u8]) -> usize {
    frame_bytes(read_u32(header, LEN_AT) as usize)
}

/// Position that the frame starting with `header` says it has; meaningless unless the frame verifies.
pub(crate) fn claimed_lsn(header: &[u8]) -> Lsn {
    Lsn(read_u64(header, LSN_AT))
}

/// SeqNo in the header of a frame that was begun.
pub(crate) fn begun_seqno(header: &[u8]) -> SeqNo {
    SeqNo(read_u64(header, SEQNO_AT))
}

/// Appends a frame to `buffer`, all but its checksum and durable position.
pub(crate) fn begin_frame(buffer: &mut Vec<u8>, kind: RecordKind, lsn: Lsn, seqno: SeqNo, parts: &[&[u8]]) {
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX);
    let start = buffer.len();
    buffer.reserve(frame_bytes(payload_bytes));
    let mut header = [0; FRAME_HEADER_BYTES];
    header[LEN_AT..LEN_AT + 4].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    header[KIND_AT] = kind as u8;
    header[LSN_AT..LSN_AT + 8].copy_from_slice(&lsn.0.to_le_bytes());
    header[SEQNO_AT..SEQNO_AT + 8].copy_from_slice(&seqno.0.to_le_bytes());
    buffer.extend_from_slice(&header);
    for part in parts {
        buffer.extend_from_slice(part);
    }
    buffer.resize(start + frame_bytes(payload_bytes), 0);
}

/// Completes a frame that [`begin_frame`] laid out, for the file `identity`.
pub(crate) fn seal_frame(identity: Identity, frame: &mut [u8], durable: Lsn) {
    assert_eq!(frame.len(), claimed_bytes(frame));
    assert!(durable <= claimed_lsn(frame));
    frame[DURABLE_AT..DURABLE_AT + 8].copy_from_slice(&durable.0.to_le_bytes());
    let checksum = identity.checksum(&frame[LEN_AT..]);
    frame[..LEN_AT].copy_from_slice(&checksum.to_le_bytes());
}

/// The frame at the start of `bytes` if it is whole, belongs to `identity` and sits at `lsn`.
pub(crate) fn decode_frame(identity: Identity, bytes: &[u8], lsn: Lsn) -> Option<Frame<'_>> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    // The cheap comparison first: it rejects nearly everything that is no frame.
    if claimed_lsn(header) != lsn || header[RESERVED_AT..LSN_AT].iter().any(|&byte| byte != 0) {
        return None;
    }
    let payload_bytes = read_u32(header, LEN_AT) as usize;
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return None;
    }
    let frame = bytes.get(..frame_bytes(payload_bytes))?;
    if identity.checksum(&frame[LEN_AT..]) != read_u32(frame, 0) {
        return None;
    }
    let durable = Lsn(read_u64(frame, DURABLE_AT));
    if durable > lsn {
        return None;
    }
    Some(Frame {
        lsn,
        end: Lsn(lsn.0 + frame.len() as u64),
        durable,
        kind: frame[KIND_AT],
        seqno: SeqNo(read_u64(frame, SEQNO_AT)),
        payload: &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload_bytes],
    })
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
