//! Everything that can be checked about a run, checked: the last step of writing one, and what `strata verify` does.

use xxhash_rust::xxh3::Xxh3Default;

use super::block::{Block, BlockCursor, compare};
use super::cursor::IndexCursor;
use super::filter::key_hash;
use super::frame;
use super::properties::{Properties, fold_digest};
use super::reader::{Run, in_bounds};
use super::varint::Damage;
use crate::error::{Error, Result};
use crate::file::FileKind;
use crate::iter::VersionKind;
use crate::seqno::SeqNo;
use crate::values::{ValueRef, count_reference};

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// See [`Run::verify`].
pub fn verify(run: &Run) -> Result<()> {
    check_file(run)?;
    let mut census = Census::new(run);
    let mut index = IndexCursor::new();
    let mut data_end = 0;
    while index.next(run, false)? {
        let handle = index.handle();
        let at = |what: &'static str| Error::corrupt(FileKind::Run, run.path(), handle.offset, what);
        if handle.offset != data_end || !in_bounds(handle, run.meta().file_bytes) {
            return Err(at("data blocks do not follow each other"));
        }
        data_end += u64::from(handle.bytes);
        if handle.offset / PIECE_BYTES as u64 != data_end / PIECE_BYTES as u64 {
            run.file().will_read(data_end, 2 * PIECE_BYTES as u64);
        }
        // Straight from the file: the point is what the device holds, not what a cache remembers.
        let mut stored = vec![0; handle.bytes as usize];
        run.file().read_at(handle.offset, &mut stored).map_err(|e| Error::io("read", run.path(), e))?;
        let raw = frame::open(&stored, run.id(), handle.offset).map_err(|d| run.damaged(handle.offset, d))?;
        census.facts.raw_digest = fold_digest(census.facts.raw_digest, &raw);
        census.facts.raw_bytes += raw.len() as u64;
        census.facts.block_count += 1;
        let block = Block::new(raw.into(), handle.offset).map_err(|d| run.damaged(handle.offset, d))?;
        census.block(block, &index.separator()).map_err(|d| run.damaged(handle.offset, d))?;
    }
    census.facts.created_ms = run.properties().created_ms;
    let at = run.footer().properties.offset;
    if census.facts != *run.properties() {
        return Err(Error::corrupt(FileKind::Run, run.path(), at, "entries disagree with the properties"));
    }
    Ok(())
}

/// The checksum of the whole file, as the manifest has it.
fn check_file(run: &Run) -> Result<()> {
    let bytes = run.meta().file_bytes;
    let mut checksum = Xxh3Default::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let rest = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(PIECE_BYTES);
        run.file().will_read(offset + rest as u64, PIECE_BYTES as u64);
        run.file().read_at(offset, &mut piece[..rest]).map_err(|e| Error::io("read", run.path(), e))?;
        checksum.update(&piece[..rest]);
        offset += rest as u64;
    }
    if checksum.digest() == run.meta().checksum {
        return Ok(());
    }
    Err(Error::corrupt(FileKind::Run, run.path(), 0, "file checksum disagrees with the manifest"))
}

/// What the entries say, counted anew.
struct Census<'a> {
    run: &'a Run,
    facts: Properties,
    previous: Option<SeqNo>,
    /// Separator of the previous block: no key of this block may lie below it.
    floor: Vec<u8>,
}

impl Census<'_> {
    fn new(run: &Run) -> Census<'_> {
        Census { run, facts: Properties::of_nothing(0), previous: None, floor: Vec::new() }
    }

    fn block(&mut self, block: Block, separator: &[u8]) -> Result<(), Damage> {
        let expected = block.entry_count();
        let mut cursor = BlockCursor::new(block.into());
        let mut count = 0;
        let mut at = cursor.next_at();
        while cursor.next()? {
            let new_key = self.entry(&cursor)?;
            if cursor.key() < &self.floor[..] || cursor.key() > separator {
                return Err(Damage { at: 0, what: "key outside its block's separators" });
            }
            let hash = key_hash(cursor.key());
            if new_key && self.run.filter().is_some_and(|filter| !filter.may_contain(hash)) {
                return Err(Damage { at: 0, what: "filter does not know a key" });
            }
            cursor.block().check_paths(count, at, hash)?;
            at = cursor.next_at();
            count += 1;
        }
        if count != expected {
            return Err(Damage { at: 0, what: "entry count disagrees with the block" });
        }
        self.floor.clear();
        self.floor.extend_from_slice(separator);
        Ok(())
    }

    fn entry(&mut self, cursor: &BlockCursor) -> Result<bool, Damage> {
        let (key, seqno, kind) = (cursor.key(), cursor.seqno(), cursor.kind());
        let facts = &mut self.facts;
        if kind == VersionKind::Reference {
            count_reference(&mut facts.values, ValueRef::decode(cursor.value())?);
        }
        let new_key = self.previous.is_none() || facts.key_max != key;
        match self.previous {
            None => facts.key_min = key.to_vec(),
            Some(previous) if compare((&facts.key_max, previous), (key, seqno)).is_ge() => {
                return Err(Damage { at: 0, what: "versions out of order" });
            }
            Some(_) => {}
        }
        facts.version_count += 1;
        facts.tombstone_count += u64::from(kind == VersionKind::Delete);
        facts.key_count += u64::from(new_key);
        facts.seqno_min = facts.seqno_min.min(seqno);
        facts.seqno_max = facts.seqno_max.max(seqno);
        facts.key_max.clear();
        facts.key_max.extend_from_slice(key);
        self.previous = Some(seqno);
        Ok(new_key)
    }
}
