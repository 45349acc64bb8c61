//! The key block of FORMAT.md's worked example.

use super::*;

#[test]
fn the_worked_example_of_the_format() {
    let mut block = BlockBuilder::default();
    block.add(b"table/apple", SeqNo(300));
    block.add(b"table/apple", SeqNo(200));
    block.add(b"table/apricot", SeqNo(200));
    block.add(b"table/b a rather long key", SeqNo(201));
    let bytes = block.finish();
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let format = include_str!("../FORMAT.md");
    let example = format.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert_eq!(hex.join(" "), example.split_whitespace().collect::<Vec<_>>().join(" "));

    let fields = Fields::new(FileKind::Keys, Path::new("x.keys"), 0, &bytes);
    let decoded = KeyBlock::decode(fields, 40).expect("what was written can be read");
    let entries: Vec<_> = (0..decoded.len()).map(|entry| (decoded.key(entry).to_vec(), decoded.seqno(entry))).collect();
    assert_eq!(entries[2], (b"table/apricot".to_vec(), SeqNo(200)));
    assert_eq!(entries[3], (b"table/b a rather long key".to_vec(), SeqNo(201)));
    assert_eq!(
        (decoded.lower_bound(b"table/ap"), decoded.lower_bound(b"table/apple0"), decoded.lower_bound(b"u")),
        (0, 2, 4)
    );
}
