//! Mixtures of writes through the page cache and past it, on a real file, against a map of what was written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// A file of `bytes` bytes that are not zero, as a recycled log file has them; gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn make(bytes: usize) -> (Scratch, DirectFile) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("strata-direct-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, vec![0xaa; bytes]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let direct = DirectFile::new(file, &path).unwrap();
        (Scratch(path), direct)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// So many bytes behind the furthest end, after a gap.
    Append {
        gap: usize,
        bytes: usize,
    },
    /// So many bytes from before the furthest end.
    Back {
        by: usize,
        bytes: usize,
    },
    SetLen(usize),
    Sync,
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop_oneof![4 => 1usize..300, 2 => 3000usize..9000, 1 => 60_000usize..70_000];
    let gap = prop_oneof![6 => Just(0usize), 1 => 1usize..6000];
    prop_oneof![
        8 => (gap, bytes).prop_map(|(gap, bytes)| Op::Append { gap, bytes }),
        1 => (1usize..5000, 1usize..5000).prop_map(|(by, bytes)| Op::Back { by, bytes }),
        1 => (0usize..200_000).prop_map(Op::SetLen),
        2 => Just(Op::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What was written is read back, by whichever way it went. Only what nobody wrote may have become zeros.
    #[test]
    fn every_written_byte_is_read_back(start_bytes in 0usize..100_000, ops in prop::collection::vec(op(), 1..40)) {
        let (_scratch, file) = Scratch::make(start_bytes);
        let (mut written, mut end) = (BTreeMap::new(), 0);
        for (fill, op) in ops.into_iter().enumerate() {
            let fill = fill as u8 + 1;
            let (at, bytes) = match op {
                Op::Append { gap, bytes } => (end + gap, bytes),
                Op::Back { by, bytes } => (usize::saturating_sub(end, by), bytes),
                Op::SetLen(bytes) => {
                    file.set_len(bytes as u64).unwrap();
                    written.split_off(&bytes);
                    end = end.min(bytes);
                    continue;
                }
                Op::Sync => {
                    file.sync().unwrap();
                    continue;
                }
            };
            file.write_at(at as u64, &vec![fill; bytes]).unwrap();
            written.extend((at..at + bytes).map(|at| (at, fill)));
            end = end.max(at + bytes);
            let mut found = vec![0; end];
            file.read_at(0, &mut found).unwrap();
            for (&at, &byte) in &written {
                prop_assert_eq!(found[at], byte, "at {}", at);
            }
        }
    }
}

/// The test above would hold for plain writes too: small pieces of a filled file do go past the page cache here.
#[test]
fn small_pieces_are_written_directly() {
    let (_scratch, file) = Scratch::make(1 << 20);
    file.write_at(0, &[1; 4096]).unwrap();
    file.write_at(4096, &[2; 100]).unwrap();
    let state = file.state.lock().unwrap();
    assert_eq!((state.end, state.is_kept), (4196, state.direct.is_some()));
}
