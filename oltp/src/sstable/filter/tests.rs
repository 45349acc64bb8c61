//! What filters promise: every key is known, few others are, and so many bits are paid for that; measured, with bounds.

use super::*;
use crate::memory::MemoryBudget;

fn hashes(keys: std::ops::Range<u64>) -> Vec<u64> {
    keys.map(|key| key_hash(&key.to_be_bytes())).collect()
}

/// Bits per key, and absent keys in a hundred thousand that pass.
fn measure(kind: FilterKind, key_count: u64) -> (f64, usize) {
    let known = hashes(0..key_count);
    let (bytes, built) = build(known.clone(), kind, 10, None);
    assert_eq!(built, kind);
    let filter = Filter::new(bytes.into()).unwrap();
    assert_eq!(filter.kind(), kind);
    assert!(known.iter().all(|&hash| filter.may_contain(hash)), "{kind:?} of {key_count} does not know a key");
    let wrong = hashes(key_count..key_count + 100_000).into_iter().filter(|&hash| filter.may_contain(hash)).count();
    (filter.byte_count() as f64 * 8.0 / key_count as f64, wrong)
}

#[test]
fn false_positives_and_bits_are_as_promised() {
    // (kind, keys, bits per key at most, absent keys in 100,000 that pass: at least and at most)
    for (kind, keys, bits_max, wrong) in [
        (FilterKind::Bloom, 1_000, 10.4, 600..1_300),
        (FilterKind::Bloom, 300_000, 10.1, 800..1_200),
        (FilterKind::Fuse, 1_000, 11.5, 300..500),
        (FilterKind::Fuse, 20_000, 10.2, 300..500),
        // What a file of the last level has.
        (FilterKind::Fuse, 300_000, 9.5, 300..500),
        (FilterKind::Fuse, 540_000, 9.3, 300..500),
    ] {
        let (bits, found) = measure(kind, keys);
        assert!(bits <= bits_max, "{kind:?} of {keys} keys has {bits} bits per key");
        assert!(wrong.contains(&found), "{found} of 100000 absent keys pass {kind:?} of {keys} keys");
    }
}

#[test]
fn few_keys_are_known_too_and_one_may_come_twice() {
    for kind in [FilterKind::Bloom, FilterKind::Fuse] {
        for count in 1..200 {
            let mut known = hashes(0..count);
            known.push(known[0]);
            let (bytes, built) = build(known.clone(), kind, 10, None);
            let filter = Filter::new(bytes.into()).unwrap();
            assert_eq!((built, filter.kind()), (kind, kind));
            assert!(known.iter().all(|&hash| filter.may_contain(hash)), "{count} keys");
        }
    }
}

#[test]
fn without_memory_to_build_the_better_one_there_is_the_other() {
    let budget = MemoryBudget::new(100_000);
    let memory = budget.reserve("run writers", 0).unwrap();
    let kind_of = |count: usize| build(hashes(0..count as u64), FilterKind::Fuse, 10, Some(&memory)).1;
    assert_eq!(kind_of(1_000), FilterKind::Fuse);
    assert_eq!(kind_of(10_000), FilterKind::Bloom);
    assert_eq!(memory.bytes(), 0, "what building took is given back");
    let (many, built) = build(vec![7; fuse::KEYS_MAX + 1], FilterKind::Fuse, 1, None);
    assert!(built == FilterKind::Bloom && Filter::new(many.into()).unwrap().may_contain(7));
}

#[test]
fn headers_that_disagree_with_the_length_are_rejected() {
    for kind in [FilterKind::Bloom, FilterKind::Fuse] {
        let (bytes, _) = build(vec![1, 2, 3], kind, 10, None);
        for cut in 0..bytes.len() {
            assert!(Filter::new(Bytes::copy_from_slice(&bytes[..cut])).is_err());
        }
        assert!(Filter::new([&bytes[..], &[0]].concat().into()).is_err());
        // Every field but the seed.
        for at in [0, 4, 16, 20].into_iter().filter(|&at| kind == FilterKind::Fuse || at < 8) {
            let mut wrong = bytes.clone();
            wrong[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(Filter::new(wrong.into()).is_err(), "{kind:?} field at {at}");
        }
        assert!(Filter::new(Bytes::from(vec![0; 4096])).is_err());
    }
}

/// The worked example of the format, byte for byte: three keys whose hashes are 1, 2 and 3.
#[test]
fn the_example_of_a_fuse_filter_is_what_is_written() {
    let (bytes, _) = build(vec![1, 2, 3], FilterKind::Fuse, 10, None);
    let text = include_str!("../FORMAT.md");
    let example = text.split("```hex").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
    let words = example.lines().filter_map(|line| line.split(';').next()).flat_map(str::split_whitespace);
    let expected: Vec<u8> = words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect();
    assert_eq!(bytes, expected, "{bytes:02x?}");
}
