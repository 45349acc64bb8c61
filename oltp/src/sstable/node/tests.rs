//! A search in a node against a walk over its separators; and nodes whose bytes are not what a builder wrote.

use proptest::prelude::*;

use super::*;
use crate::sstable::index::IndexBuilder;

fn bytes(separators: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = IndexBuilder::new(usize::MAX);
    for (at, separator) in separators.iter().enumerate() {
        builder.add(separator, Handle { offset: at as u64 * 100, bytes: at as u32 });
    }
    builder.finish().remove(0).1
}

/// Keys that share much or little, with zeros at their ends and more than one of the same.
fn any_keys(max: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let tail = prop_oneof![
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff)], 0..12),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    (prop::collection::vec(any::<u8>(), 0..10), prop::collection::vec(tail, 1..max)).prop_map(|(prefix, tails)| {
        let mut keys: Vec<Vec<u8>> = tails.into_iter().map(|tail| [&prefix[..], &tail].concat()).collect();
        keys.sort();
        keys
    })
}

proptest! {
    #[test]
    fn searching_is_walking(separators in any_keys(60), others in any_keys(20)) {
        let node = Leaf::decode(bytes(&separators).into(), 7).unwrap();
        prop_assert_eq!(node.count(), separators.len());
        for key in separators.iter().chain(&others) {
            let expected = separators.iter().position(|separator| separator >= key).unwrap_or(separators.len());
            prop_assert_eq!(node.search(key), expected);
            for cut in [key.len() / 2, key.len().saturating_sub(1)] {
                let key = &key[..cut];
                let expected = separators.iter().position(|separator| &separator[..] >= key);
                prop_assert_eq!(node.search(key), expected.unwrap_or(separators.len()));
            }
        }
        for (at, separator) in separators.iter().enumerate() {
            prop_assert_eq!(&node.separator(at), separator);
            prop_assert!(node.is_separator(at, separator));
            prop_assert!(!node.is_separator(at, &[&separator[..], &[0]].concat()));
            prop_assert_eq!(node.handle(at), Handle { offset: at as u64 * 100, bytes: at as u32 });
        }
    }

    /// What is decoded at all can be searched, and its separators do not fall.
    #[test]
    fn foreign_bytes_do_no_harm(
        separators in any_keys(30),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes(&separators);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(node) = Leaf::decode(bytes.into(), 0) else { return Ok(()) };
        let found: Vec<Vec<u8>> = (0..node.count()).map(|at| node.separator(at)).collect();
        prop_assert!(found.is_sorted());
        for key in &separators {
            prop_assert_eq!(node.search(key), found.iter().position(|other| other >= key).unwrap_or(found.len()));
        }
    }
}

#[test]
fn separators_that_fall_are_damage() {
    let falling = bytes(&[b"b".to_vec(), b"a".to_vec()]);
    assert_eq!(Leaf::decode(falling.into(), 0).unwrap_err().what, "separators fall");
}

#[test]
#[should_panic(expected = "a slot holds what lies at its handle")]
fn a_block_in_a_wrong_slot_is_a_bug() {
    let node = Leaf::decode(bytes(&[b"a".to_vec(), b"b".to_vec()]).into(), 0).unwrap();
    let block = Block::new(bytes(&[b"a".to_vec()]).into(), 0).unwrap();
    node.slot(1).put(Some(Arc::new(block)));
    drop(node.child(1));
}
