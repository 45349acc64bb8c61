//! Blocks whose bytes are not what a builder wrote. Checksums keep most of them away from here; a faulty memory module or
//! a forged file does not.

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;

const KEYS: u64 = 20;

fn key(id: u64) -> String {
    format!("key{id:03}")
}

/// Two versions of each key, a restart every four entries, with a hash index.
fn bytes() -> Vec<u8> {
    let mut builder = BlockBuilder::new(4);
    let mut previous = String::new();
    for id in 0..KEYS {
        let key = key(id);
        for seqno in [9, 4] {
            let shared = shared_prefix(previous.as_bytes(), key.as_bytes());
            let hash = Some(xxh3_64(key.as_bytes()));
            builder.add(key.as_bytes(), shared, SeqNo(seqno), VersionKind::Put, b"value", hash);
            previous.clone_from(&key);
        }
    }
    let mut bytes = Vec::new();
    builder.finish_into(&mut bytes);
    bytes
}

/// Reads the block in every way there is; the first damage ends it.
fn read_all(bytes: Vec<u8>) -> Result<usize, Damage> {
    let block = Arc::new(Block::new(Bytes::from(bytes), 0)?);
    let mut cursor = BlockCursor::new(Arc::clone(&block));
    let mut count = 0;
    while cursor.next()? {
        count += cursor.key().len() + cursor.value().len();
    }
    for id in 0..=KEYS {
        let key = key(id);
        cursor.seek(key.as_bytes(), SeqNo(7))?;
        block.find(key.as_bytes(), xxh3_64(key.as_bytes()), SeqNo(7))?;
    }
    Ok(count)
}

#[test]
fn damage_is_named() {
    let sound = bytes();
    read_all(sound.clone()).unwrap();
    let restarts_at = Block::new(Bytes::from(sound.clone()), 0).unwrap().entries_end;
    let cases = [
        (0, 5, "key shares more than its predecessor has"),
        (restarts_at + 4 * 5 + 1, 0xff, "restart beyond the entries"),
        (sound.len() - 8, 0, "block without entries"),
        (sound.len() - 1, 0xff, "restarts and buckets exceed the block"),
    ];
    for (at, byte, what) in cases {
        let mut damaged = sound.clone();
        damaged[at] = byte;
        assert_eq!(read_all(damaged).unwrap_err().what, what, "byte {at} set to {byte}");
    }
}

proptest! {
    /// A point search finds what a walk finds, with a hash index and without.
    #[test]
    fn finding_is_walking(
        keys in prop::collection::btree_set("[ab]{0,9}", 1..40),
        others in prop::collection::vec("[abc]{0,9}", 0..20),
        interval in 1u16..20,
        hashed in any::<bool>(),
    ) {
        let mut builder = BlockBuilder::new(interval);
        let mut versions: Vec<(&str, u64)> = Vec::new();
        for key in &keys {
            for seqno in (2..3 + key.len() as u64 % 3).rev() {
                let previous = versions.last().map_or("", |(key, _)| key);
                let shared = shared_prefix(previous.as_bytes(), key.as_bytes());
                let hash = hashed.then(|| xxh3_64(key.as_bytes()));
                builder.add(key.as_bytes(), shared, SeqNo(seqno), VersionKind::Put, &seqno.to_le_bytes(), hash);
                versions.push((key, seqno));
            }
        }
        let mut bytes = Vec::new();
        builder.finish_into(&mut bytes);
        let block = Block::new(Bytes::from(bytes), 0).unwrap();
        for key in keys.iter().chain(&others) {
            for at in 0..6 {
                let expected = versions.iter().find(|(other, seqno)| other == key && *seqno <= at);
                let found = block.find(key.as_bytes(), xxh3_64(key.as_bytes()), SeqNo(at)).unwrap();
                match (found, expected) {
                    (Find::Found { seqno, value, .. }, Some((_, expected))) => {
                        prop_assert_eq!(seqno.0, *expected);
                        prop_assert_eq!(value, expected.to_le_bytes());
                    }
                    // `Beyond` is right only if nothing in the block lies behind what was looked for, or if the hash
                    // index knows that the key is not here.
                    (Find::Absent, None) => {}
                    (Find::Beyond, None) => prop_assert!(hashed || versions.iter().all(|(other, _)| *other <= key.as_str())),
                    (found, expected) => prop_assert!(false, "{found:?} instead of {expected:?}"),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Whatever the bytes, reading ends, in an answer or in an error.
    #[test]
    fn foreign_bytes_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read_all(bytes);
    }
}
