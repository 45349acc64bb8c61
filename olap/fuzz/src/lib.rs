//! The column store's own decoders, as functions from any bytes: what is accepted must be consistent, and nothing may panic.
//! Where a checksum guards the bytes, it is made right first, because a fuzzer that must guess it would test nothing else.
#![allow(dead_code, missing_docs, reason = "a part of olap's sources, for their decoders")]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::{FileId, FileKind, SeqNo};

use delete_vector::Contents;
use segment::file::checksum;
use segment::filter::hash_key;
use segment::keys::{FOOTER_BYTES, HEADER_BYTES, KeyFile, KeyIndex, KeyWriter, MAGIC};
use segment::meta::SegmentMeta;
use segment::wire::put_varint;

// The sources say `arrow::datatypes` and need no more of `arrow` than this.
extern crate self as arrow;

pub mod datatypes {
    //! Stands in for `arrow::datatypes`.
    pub use arrow_schema::{DataType, IntervalUnit, TimeUnit};
}

#[path = "../../src/delete_vector.rs"]
pub mod delete_vector;

pub mod segment;

const ID: FileId = FileId(7);
const SEGMENT: FileId = FileId(3);
const ROWS: u32 = 100_000;

/// A file of marks: the input is what follows the fixed fields.
pub fn marks(input: &[u8]) {
    let _ = Contents::decode(input, Path::new("marks"), ID, SEGMENT, ROWS);
    let mut bytes = Contents::of_pairs(&[]).encode(ID, SEGMENT);
    bytes.truncate(32);
    bytes.extend_from_slice(input);
    let sum = checksum(ID, 0, &bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    let Ok(contents) = Contents::decode(&bytes, Path::new("marks"), ID, SEGMENT, ROWS) else { return };
    let again = Contents::decode(&contents.encode(ID, SEGMENT), Path::new("marks"), ID, SEGMENT, ROWS);
    assert_eq!(again.expect("what was encoded is read"), contents);
}

/// What the manifest keeps of a segment.
pub fn segment_meta(input: &[u8]) {
    let Ok(meta) = SegmentMeta::decode(input, Path::new("meta")) else { return };
    let bytes = meta.encode();
    let again = SegmentMeta::decode(&bytes, Path::new("meta")).expect("what was encoded is read");
    assert_eq!(again.encode(), bytes);
}

/// The first bytes of every key index of this number.
fn header() -> &'static [u8] {
    static HEADER: OnceLock<Vec<u8>> = OnceLock::new();
    HEADER.get_or_init(|| {
        let env = MemEnv::new();
        let dir = Path::new("db");
        env.create_dir_all(&dir.join("segments")).expect("memory has room");
        let mut writer = KeyWriter::create(&env, dir, ID).expect("memory has room");
        writer.add(b"key", SeqNo(1)).expect("memory has room");
        writer.finish(0, &[], &[]).expect("memory has room");
        let file = env.open(&FileKind::Keys.path(dir, ID), OpenMode::Read).expect("the file exists");
        let mut bytes = vec![0; HEADER_BYTES];
        file.read_at(0, &mut bytes).expect("the file has a header");
        bytes
    })
}

/// A key index: the input is the lengths and the bytes of its parts, the checksums are right.
pub fn keys(input: &[u8]) {
    let Some((lengths, mut rest)) = input.split_first_chunk::<6>() else { return };
    let mut take = |count: u8| {
        let (part, after) = rest.split_at(usize::from(count).min(rest.len()));
        rest = after;
        part
    };
    let mut bytes = header().to_vec();
    bytes.extend_from_slice(take(lengths[0]));
    let sum = checksum(ID, HEADER_BYTES as u64, &bytes[HEADER_BYTES..]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    // The first fence says where the block ends; a second block, if any, has a wrong checksum.
    let mut fences = Vec::new();
    put_varint(&mut fences, (bytes.len() - HEADER_BYTES) as u64);
    fences.extend_from_slice(take(lengths[1]));
    let mut footer = Vec::new();
    for section in [&fences[..], take(lengths[2]), take(lengths[3]), &[]] {
        let at = bytes.len() as u64;
        for field in [at, section.len() as u64, checksum(ID, at, section)] {
            footer.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(section);
    }
    footer.extend_from_slice(&u32::from(lengths[4]).to_le_bytes());
    footer.extend_from_slice(&u32::from(lengths[5]).to_le_bytes());
    footer.extend_from_slice(&0_u64.to_le_bytes());
    let footer_sum = checksum(ID, bytes.len() as u64, &footer);
    footer.extend_from_slice(&footer_sum.to_le_bytes());
    footer.extend_from_slice(&MAGIC);
    assert_eq!(footer.len(), FOOTER_BYTES);
    bytes.extend_from_slice(&footer);
    read_keys(&bytes, KeyFile { file_bytes: bytes.len() as u64, footer_sum });
}

/// Opens a key index and asks it everything.
fn read_keys(bytes: &[u8], expected: KeyFile) {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let dir = Path::new("db");
    env.create_dir_all(&dir.join("segments")).expect("memory has room");
    let path = FileKind::Keys.path(dir, ID);
    env.open(&path, OpenMode::CreateNew).and_then(|file| file.write_at(0, bytes)).expect("memory has room");
    let Ok((index, _)) = KeyIndex::open(&*env, dir, ID, expected) else { return };
    for key in [b"".as_slice(), b"key", &[0xff; 9]] {
        let _ = index.may_contain(hash_key(key));
        if let Some(block) = index.block_of(key) {
            assert!(block < index.block_count());
        }
    }
    for block in 0..index.block_count() {
        let Ok(block) = index.read_block(block) else { continue };
        for entry in 0..block.len() {
            let key = block.key(entry);
            let _ = (block.seqno(entry), block.lower_bound(key));
        }
    }
    for position in 0..index.row_count() {
        assert!(index.block_at(position) < index.block_count());
    }
}
