//! Proves the bytes of a backup's record. What backups hold is tested from outside, in `tests/backup.rs`.

use std::path::Path;

use proptest::prelude::*;

use super::copy::Digest;
use super::record::BackupRecord;
use crate::error::Error;
use crate::file::FileId;
use crate::manifest::Version;
use crate::seqno::SeqNo;
use crate::wal::Lsn;
use crate::wal::tests::hex_example;

fn example() -> BackupRecord {
    BackupRecord {
        number: FileId(3),
        db_id: std::array::from_fn(|at| at as u8),
        seqno: SeqNo(5),
        through: Lsn(256),
        taken_ms: 1,
        log_start: Lsn(200),
        log: Digest { bytes: 4136, checksum: 7 },
        manifest_version: 2,
        version: Version { last_seqno: SeqNo(5), next_file: FileId(9), ..Version::default() },
        files: Vec::new(),
    }
}

fn decode(bytes: &[u8]) -> Result<BackupRecord, Error> {
    BackupRecord::decode(bytes, FileId(3), Path::new("record"))
}

#[test]
fn the_worked_example_of_the_format_holds() {
    let bytes = example().encode();
    assert_eq!(bytes, hex_example(include_str!("FORMAT.md")), "{bytes:02x?}");
}

#[test]
fn a_version_1_record_is_read() {
    assert_eq!(decode(include_bytes!("../../../data/compat/v1/backup.bin")).expect("decodes"), example());
}

#[test]
fn a_newer_record_is_refused_as_newer() {
    let mut bytes = example().encode();
    bytes[8] = 2;
    let body = bytes.len() - 8;
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..body]);
    bytes[body..].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(decode(&bytes), Err(Error::NewerFormat { found: 2, .. })));
}

proptest! {
    #[test]
    fn a_cut_or_flipped_record_is_refused(at in any::<usize>(), xor in 1u8..) {
        let bytes = example().encode();
        prop_assert!(decode(&bytes[..at % bytes.len()]).is_err());
        let mut flipped = bytes.clone();
        flipped[at % bytes.len()] ^= xor;
        let refused = matches!(decode(&flipped), Err(Error::Corrupt { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes).is_err());
        // With a right checksum the fields themselves are looked at.
        let mut forged = b"STRATABK\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0".to_vec();
        forged.extend_from_slice(&bytes);
        let checksum = xxhash_rust::xxh3::xxh3_64(&forged);
        forged.extend_from_slice(&checksum.to_le_bytes());
        prop_assert!(decode(&forged).is_err());
    }
}
