//! What recent commits remember, and what they refuse to answer once they have forgotten.

use super::*;

fn recent(bytes_max: u64) -> RecentCommits {
    let room = Room::new(&MemoryBudget::new(1 << 30), bytes_max).unwrap();
    RecentCommits::new(room)
}

fn commit(recent: &mut RecentCommits, seqno: u64, keys: &[&[u8]], with_keys: bool) {
    let mut fingerprints: Vec<u64> = keys.iter().map(|key| fingerprint(key)).collect();
    fingerprints.sort_unstable();
    let keys = with_keys.then(|| CommitKeys::new(keys.iter().copied()));
    recent.room.prepare(fingerprints.len(), keys.as_ref().map_or(0, CommitKeys::memory_bytes)).unwrap();
    recent.insert(SeqNo(seqno), fingerprints, keys);
}

#[test]
fn the_second_committer_of_a_key_is_found_and_old_commits_are_forgotten() {
    let mut index = recent(1 << 20);
    commit(&mut index, 5, &[b"a", b"b"], false);
    commit(&mut index, 6, &[b"b"], false);
    let b = fingerprint(b"b");
    assert_eq!(index.find(&[b], SeqNo(5)), Ok(Some(b)));
    assert_eq!(index.find(&[fingerprint(b"a")], SeqNo(5)), Ok(None));
    assert_eq!(index.find(&[b], SeqNo(6)), Ok(None));
    index.forget(SeqNo(5));
    assert_eq!(index.find(&[b], SeqNo(5)), Ok(Some(b)), "the newer commit of b stays");
    assert_eq!(index.find(&[b], SeqNo(4)), Err(Forgotten), "nobody knows any more what 5 wrote");
    index.forget(SeqNo(6));
    assert!(index.newest.is_empty() && index.small.is_empty());
    assert_eq!(index.room.used_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn large_commits_are_searched_like_small_ones() {
    let mut index = recent(1 << 20);
    let keys: Vec<[u8; 4]> = (0..2 * LARGE_KEYS as u32).map(u32::to_be_bytes).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    commit(&mut index, 5, &keys, true);
    assert!(index.newest.is_empty(), "not key by key");
    let wanted = fingerprint(keys[77]);
    assert_eq!(index.find(&[wanted], SeqNo(4)), Ok(Some(wanted)));
    assert_eq!(index.find(&[wanted], SeqNo(5)), Ok(None));
    let since = index.since(SeqNo(4), SeqNo(5), (true, true), 100).unwrap();
    assert_eq!(since.through, SeqNo(5));
    assert_eq!(common(&[wanted], &since.large[0]), Some(wanted));
    assert_eq!(since.keys[0].find(keys[77], keys[78]), Some(keys[77]));
    index.forget(SeqNo(5));
    index.forget_keys(SeqNo(5));
    assert_eq!(index.room.used_bytes.load(Ordering::Relaxed), 0);
}

/// Looks in pieces, of any size, add up to everything that was committed after a point.
#[test]
fn pieces_add_up() {
    let mut index = recent(1 << 20);
    let keys: Vec<[u8; 4]> = (0..300u32).map(u32::to_be_bytes).collect();
    for (at, key) in keys.iter().enumerate() {
        commit(&mut index, at as u64 + 1, &[key], true);
    }
    for piece in [1, 7, 100, 1000] {
        let (mut fingerprints, mut found, mut after) = (Vec::new(), 0, SeqNo(50));
        while after < SeqNo(300) {
            let since = index.since(after, SeqNo(300), (true, true), piece).unwrap();
            assert!(since.through > after, "every look gets further");
            fingerprints.extend(since.fingerprints);
            found += since.keys.len();
            after = since.through;
        }
        assert_eq!(fingerprints, keys[50..].iter().map(|key| fingerprint(key)).collect::<Vec<_>>(), "by {piece}");
        assert_eq!(found, 250, "by {piece}");
    }
}

#[test]
fn history_without_room_is_forgotten_from_the_old_end() {
    let mut index = recent(2 * COMMIT_BYTES + 10 * HASHED_KEY_BYTES);
    commit(&mut index, 1, &[b"a"], false);
    commit(&mut index, 2, &[b"b"], false);
    assert_eq!(index.find(&[fingerprint(b"a")], SeqNo::ZERO), Ok(Some(fingerprint(b"a"))));
    commit(&mut index, 3, &[b"c", b"d", b"e", b"f", b"g", b"h", b"i"], false);
    assert_eq!(index.find(&[fingerprint(b"a")], SeqNo::ZERO), Err(Forgotten));
    assert_eq!(index.find(&[fingerprint(b"c")], SeqNo(2)), Ok(Some(fingerprint(b"c"))));
    assert!(!index.room.is_over());
}

#[test]
fn keys_are_known_from_the_first_commit_that_keeps_them() {
    let mut index = recent(1 << 20);
    commit(&mut index, 1, &[b"a"], false);
    commit(&mut index, 2, &[b"b", b"d"], true);
    assert_eq!(index.since(SeqNo::ZERO, SeqNo(2), (false, true), 9).unwrap_err(), Forgotten);
    let since = index.since(SeqNo(1), SeqNo(2), (false, true), 9).unwrap();
    let hit = |start: &[u8], end: &[u8]| since.keys[0].find(start, end).map(<[u8]>::to_vec);
    assert_eq!(hit(b"a", b"b"), None, "the end is not part of a range");
    assert_eq!(hit(b"b", b"c"), Some(b"b".to_vec()), "the start is");
    assert_eq!(hit(b"c", b"z"), Some(b"d".to_vec()));
    assert_eq!(hit(b"e", b"z"), None);
    commit(&mut index, 3, &[b"c"], false);
    assert_eq!(index.since(SeqNo(1), SeqNo(3), (false, true), 9).unwrap_err(), Forgotten);
}
