//! What a reader believes of an index whose checksums are right: nothing that it can compare.

use super::*;
use crate::env::sim::SimEnv;
use crate::iter::Cursor;
use crate::sstable::frame::{Framer, TRAILER_BYTES};
use crate::sstable::{Compression, RunOptions, RunWriter};
use crate::{SeqNo, TableId};

const DIR: &str = "/db";

/// A run of many partitions, in which the separator that the root has for the first one was raised by `by`.
fn forged(by: u8) -> (Arc<Run>, Vec<Vec<u8>>) {
    let sim = SimEnv::new(1);
    let env: Arc<dyn Env> = Arc::new(sim.clone());
    env.create_dir_all(&Path::new(DIR).join("runs")).unwrap();
    let options = RunOptions {
        block_bytes: 96,
        compression: Compression::None,
        index_partition_bytes: 64,
        ..RunOptions::default()
    };
    let mut writer = RunWriter::new(Arc::clone(&env), Path::new(DIR), FileId(3), TableId(7), options).unwrap();
    let keys: Vec<Vec<u8>> = (0..200u32).map(|at| format!("{:04}", 2 * at).into_bytes()).collect();
    for key in &keys {
        writer.add(key, SeqNo(1), VersionKind::Put, key).unwrap();
    }
    let meta = writer.finish().unwrap();
    let path = FileKind::Run.path(Path::new(DIR), FileId(3));
    let mut bytes = sim.read_file(&path).unwrap();
    let footer = Footer::decode(bytes[bytes.len() - FOOTER_BYTES..].try_into().unwrap()).unwrap();
    assert_eq!(footer.index_levels, 2);
    let at = footer.index.offset as usize..(footer.index.offset + u64::from(footer.index.bytes)) as usize;
    let mut raw = bytes[at.clone()][..at.len() - TRAILER_BYTES].to_vec();
    let first = Root::decode(raw.clone().into(), 0).unwrap().separator(0);
    // The first entry: its key is whole and stands behind four numbers of a byte each.
    assert_eq!(raw[4..4 + first.len()], first);
    raw[4 + first.len() - 1] += by;
    let mut stored = Vec::new();
    Framer::append_raw(&mut stored, &raw, FileId(3), footer.index.offset);
    bytes[at].copy_from_slice(&stored);
    sim.write_file(&path, &bytes).unwrap();
    (Run::open(&env, Path::new(DIR), &meta, BlockCache::disabled()).unwrap(), keys)
}

#[test]
fn a_partition_that_does_not_end_where_the_root_says_is_refused() {
    let (sound, keys) = forged(0);
    assert!(keys.iter().all(|key| sound.get(key, SeqNo(1)).unwrap().is_some()));
    let (forged, keys) = forged(1);
    // Between the two separators a search would run off the partition's end, and take that for the end of the run.
    let mut refused = 0;
    for key in &keys {
        match forged.get(key, SeqNo(1)) {
            Ok(found) => assert!(found.is_some(), "{key:?} is gone"),
            Err(error) => {
                assert!(matches!(error, Error::Corrupt { .. }), "{error}");
                refused += 1;
            }
        }
        let mut cursor = forged.cursor(true);
        let beyond = [&key[..], b"0"].concat();
        match cursor.seek(&beyond, SeqNo(1)) {
            Ok(()) => assert!(cursor.valid() || *key == keys[keys.len() - 1], "nothing behind {key:?}"),
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
        }
    }
    assert!(refused > 0 && refused < keys.len());
    assert!(matches!(forged.verify(), Err(Error::Corrupt { .. })));
}
