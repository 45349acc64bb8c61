//! Decoders that the crate keeps to itself, as functions from any bytes: what is accepted must be consistent, and nothing
//! may panic. Part of the library only under `cfg(fuzzing)` and of its tests, so that they keep compiling.
//!
//! Where a checksum guards the bytes, it is made right first: a fuzzer that must guess it would test nothing else.
#![allow(missing_docs, clippy::unwrap_used, clippy::missing_panics_doc, reason = "a fuzz target panics")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::commit::record::CommitRecord;
use crate::error::Error;
use crate::file::{FileId, FileKind};
use crate::manifest::Version;
use crate::manifest::edit::{decode_edits, encode_edits};
use crate::seqno::SeqNo;
use crate::sstable::block::{Block, BlockCursor};
use crate::sstable::filter::{self, Filter};
use crate::sstable::footer::{FOOTER_BYTES, Footer};
use crate::sstable::frame;
use crate::sstable::index::Handle;
use crate::sstable::properties::Properties;
use crate::values::{self, Record, ValueRef};
use crate::wal::Lsn;
use crate::wal::header::{FileHeader, HEADER_BYTES};
use crate::wal::record::{Identity, RecordKind, begin_frame, decode_frame, seal_frame};

const FILE: FileId = FileId(7);

/// Edits of the manifest, and what they do to a version.
pub fn manifest(input: &[u8]) {
    let Some(edits) = decode_edits(input) else { return };
    assert_eq!(decode_edits(&encode_edits(&edits)).as_ref(), Some(&edits));
    let mut version = Version::default();
    if edits.iter().all(|edit| version.apply(edit).is_ok()) {
        let _ = version.files();
        // A snapshot of a version makes the same version.
        let mut copy = Version::default();
        let snapshot = decode_edits(&encode_edits(&version.snapshot())).unwrap();
        snapshot.iter().for_each(|edit| copy.apply(edit).expect("a snapshot fits an empty version"));
        assert_eq!(copy, version);
    }
}

/// The payload of a commit in the log.
pub fn commit_record(input: &[u8]) {
    let Ok(record) = CommitRecord::decode(input) else { return };
    let keys = record.keys().map(<[u8]>::len).sum::<usize>();
    let mut found = 0;
    for (table, range) in &record.tables {
        for (key, _, value) in record.versions(range.clone()) {
            assert!(key.starts_with(&table.0.to_be_bytes()));
            assert!(key.len() + value.len() <= input.len());
            found += key.len();
        }
    }
    assert_eq!(found, keys, "every entry belongs to one table");
}

/// A frame of the log: the input as it is, as a payload, and damaged at a place it names.
pub fn log_frame(input: &[u8]) {
    let identity = Identity::new(FileKind::Wal, &[3; 16], FILE);
    let _ = decode_frame(identity, input, Lsn(0));
    let Some((&[at, bit, number, ..], payload)) = input.split_first_chunk::<8>() else { return };
    let kind = RecordKind::from_u8(number).unwrap_or(RecordKind::Commit);
    let mut bytes = Vec::new();
    begin_frame(&mut bytes, kind, Lsn(64), SeqNo(9), &[payload]);
    seal_frame(identity, &mut bytes, Lsn(32));
    let frame = decode_frame(identity, &bytes, Lsn(64)).expect("what was sealed is read");
    assert_eq!((frame.kind, frame.seqno, frame.payload), (kind as u8, SeqNo(9), payload));
    assert!(decode_frame(identity, &bytes, Lsn(0)).is_none(), "a frame in the wrong place");
    let at = (usize::from(at) * 31 + usize::from(bit)) % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
    assert!(decode_frame(identity, &bytes, Lsn(64)).is_none(), "a flipped bit");
}

/// The header of a log file or manifest.
pub fn file_header(input: &[u8]) {
    let kind = if input.first().is_some_and(|byte| byte % 2 == 0) { FileKind::Wal } else { FileKind::Manifest };
    let _ = FileHeader::decode(input, kind, FILE, Path::new("header"));
    let header = FileHeader { db_id: [0; 16], file: FILE, first_lsn: Lsn(0), previous: None };
    let mut block = header.encode(kind);
    assert_eq!(block.len(), HEADER_BYTES);
    // Everything between magic and checksum comes from the input.
    let end = (8 + input.len()).min(HEADER_BYTES - 4);
    block[8..end].copy_from_slice(&input[..end - 8]);
    let checksum = crc32fast::hash(&block[..HEADER_BYTES - 4]);
    block[HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
    match FileHeader::decode(&block, kind, FILE, Path::new("header")) {
        Ok(header) => assert_eq!(header.file, FILE),
        Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// A stored block: trailer, then decompression.
pub fn stored_block(input: &[u8]) {
    let _ = frame::open(input, FILE, 4096);
    let mut stored = input.to_vec();
    let checksum = xxh3_64_with_seed(&stored, frame::seed(FILE, 4096));
    stored.extend_from_slice(&checksum.to_le_bytes());
    if let Ok(raw) = frame::open(&stored, FILE, 4096) {
        assert!(raw.len() <= stored.len().max(frame::COMPRESSED_RAW_BYTES_MAX));
    }
}

/// Walks a block to its end, seeks in it, and asks its hash index.
fn walk(block: &Arc<Block>, mut visit: impl FnMut(&BlockCursor)) {
    let mut cursor = BlockCursor::new(Arc::clone(block));
    let mut count = 0_u64;
    while matches!(cursor.next(), Ok(true)) {
        visit(&cursor);
        count += 1;
        assert!(count <= block.byte_count() as u64, "more entries than bytes");
        let (key, seqno) = (cursor.key().to_vec(), cursor.seqno());
        if count < 16 {
            let mut other = BlockCursor::new(Arc::clone(block));
            let _ = other.seek(&key, seqno);
            let _ = block.find(&key, filter::key_hash(&key), seqno);
            let _ = block.check_paths(count as u32 - 1, 0, filter::key_hash(&key));
        }
    }
    let mut cursor = BlockCursor::new(Arc::clone(block));
    let _ = cursor.seek(b"", SeqNo::MAX);
    let _ = cursor.seek(&[0xff; 9], SeqNo::ZERO);
    let _ = block.find(b"k", filter::key_hash(b"k"), SeqNo::MAX);
    let _ = block.find(&[0xff; 9], filter::key_hash(&[0xff; 9]), SeqNo::ZERO);
}

/// A data block.
pub fn block(input: &[u8]) {
    let Ok(block) = Block::new(Bytes::copy_from_slice(input), 0) else { return };
    walk(&Arc::new(block), |cursor| assert!(cursor.key().len() + cursor.value().len() < (1 << 30)));
}

/// An index block and the handles in it.
pub fn index(input: &[u8]) {
    if let Ok(handle) = Handle::decode(input) {
        let mut bytes = Vec::new();
        handle.encode(&mut bytes);
        let again = Handle::decode(&bytes).expect("what was encoded is read");
        assert_eq!((again.offset, again.bytes), (handle.offset, handle.bytes));
    }
    let Ok(block) = Block::new(Bytes::copy_from_slice(input), 0) else { return };
    walk(&Arc::new(block), |cursor| {
        let _ = Handle::decode(cursor.value());
    });
}

/// A filter: whatever it holds, it answers.
pub fn filter(input: &[u8]) {
    let Ok(filter) = Filter::new(Bytes::copy_from_slice(input)) else { return };
    for hash in [0, 1, u64::MAX, xxh3_64(input)] {
        let _ = filter.may_contain(hash);
    }
}

/// The end of a run.
pub fn footer(input: &[u8]) {
    let mut bytes = [0; FOOTER_BYTES];
    let count = input.len().min(FOOTER_BYTES);
    bytes[..count].copy_from_slice(&input[..count]);
    let _ = Footer::decode(&bytes);
    let Ok(made) = Footer::decode(&Footer::decode(&signed(bytes)).expect("signed").encode()) else {
        panic!("what was encoded is not read")
    };
    assert_eq!(made.encode(), signed(bytes));
}

/// A footer with these fields and the checksum and magic that belong to them.
fn signed(mut bytes: [u8; FOOTER_BYTES]) -> [u8; FOOTER_BYTES] {
    let nothing = Handle { offset: 0, bytes: 0 };
    let (id, table) = (FILE, crate::TableId(1));
    let sound = Footer { id, table, index_levels: 1, index: nothing, filter: nothing, properties: nothing, version: 1 };
    let sound = sound.encode();
    bytes[FOOTER_BYTES - 8..].copy_from_slice(&sound[FOOTER_BYTES - 8..]);
    let checksum = xxh3_64(&bytes[..FOOTER_BYTES - 16]);
    bytes[FOOTER_BYTES - 16..FOOTER_BYTES - 8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The properties of a run.
pub fn properties(input: &[u8]) {
    let Ok(properties) = Properties::decode(input) else { return };
    let bytes = properties.encode();
    let again = Properties::decode(&bytes).expect("what was encoded is read");
    assert_eq!(again.encode(), bytes);
    assert_eq!((again.key_min, again.key_max), (properties.key_min, properties.key_max));
}

/// A reference to a large value, the record it leads to, and the end of a value file.
pub fn values(input: &[u8]) {
    if let Ok(at) = ValueRef::decode(input) {
        let mut bytes = Vec::new();
        at.encode(&mut bytes);
        assert_eq!(ValueRef::decode(&bytes), Ok(at));
    }
    if let Ok(record) = Record::decode(&Bytes::copy_from_slice(input)) {
        assert!(record.key.len() + record.value.len() < input.len());
    }
    let mut bytes = [0; FOOTER_BYTES];
    let count = input.len().min(bytes.len());
    bytes[..count].copy_from_slice(&input[..count]);
    let _ = values::footer::Footer::decode(&bytes);
    let body = bytes.len() - 16;
    bytes[body + 8..].copy_from_slice(b"STRATVAL");
    let checksum = xxh3_64(&bytes[..body]);
    bytes[body..body + 8].copy_from_slice(&checksum.to_le_bytes());
    if let Ok(footer) = values::footer::Footer::decode(&bytes) {
        assert!(footer.version > values::FORMAT_VERSION || footer.encode() == bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iter::VersionKind;
    use crate::sstable::block::BlockBuilder;

    const TARGETS: [fn(&[u8]); 11] = [
        manifest,
        commit_record,
        log_frame,
        file_header,
        stored_block,
        block,
        index,
        filter,
        footer,
        properties,
        values,
    ];

    /// Something for each target to start from: two edits of the manifest, a block, and nothing much.
    fn seeds() -> Vec<Vec<u8>> {
        let edits = [crate::manifest::Edit::LastSeqNo(SeqNo(9)), crate::manifest::Edit::NextFile(FileId(3))];
        let mut builder = BlockBuilder::new(4);
        for number in 0_u8..30 {
            let key = [0, 0, 0, 7, 0, 1, number];
            let shared = if number == 0 { 0 } else { 6 };
            let hash = Some(filter::key_hash(&key));
            builder.add(&key, shared, SeqNo(9), VersionKind::Put, &[number; 5], hash);
        }
        let mut block = Vec::new();
        builder.finish_into(&mut block);
        vec![encode_edits(&edits), block, vec![0; 120], (0..=255).collect()]
    }

    /// A glimpse of what the fuzzers do for hours.
    #[test]
    fn damaged_bytes_make_no_decoder_panic() {
        let mut state = 1_u64;
        let mut random = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        for _ in 0..500 {
            for mut input in seeds() {
                for _ in 0..random(6) {
                    let at = random(input.len());
                    input[at] = [0, 1, 0x7f, 0xff, random(256) as u8][random(5)];
                }
                input.truncate(input.len() - random(2) * random(input.len()));
                TARGETS.iter().for_each(|target| target(&input));
            }
        }
    }
}
