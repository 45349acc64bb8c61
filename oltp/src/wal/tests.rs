//! Proves the format (worked example, cut and flipped bytes), the group sync and the crash behaviour of the log, by
//! replaying what a simulated machine keeps.

use super::record::{self, FRAME_HEADER_BYTES, Identity};
use super::*;
use crate::SeqNo;
use crate::file::FileKind;

const DB_ID: DbId = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Bytes of the first hex example in a FORMAT.md.
pub(crate) fn hex_example(text: &str) -> Vec<u8> {
    let block = text.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).expect("no hex example");
    let words = block.lines().flat_map(|line| line.split_whitespace().skip(1));
    words.map(|word| u8::from_str_radix(word, 16).expect("hex")).collect()
}

#[test]
fn format_example_is_what_is_written() {
    let mut frame = Vec::new();
    record::begin_frame(&mut frame, RecordKind::Commit, Lsn(256), SeqNo(5), &[b"h", b"i"]);
    record::seal_frame(Identity::new(FileKind::Wal, &DB_ID, FileId(7)), &mut frame, Lsn(256));
    assert_eq!(frame.len(), FRAME_HEADER_BYTES + 8);
    assert_eq!(frame, hex_example(include_str!("FORMAT.md")), "{frame:02x?}");
}
