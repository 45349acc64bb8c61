//! What a run says about itself: counts, ranges, and a digest of its content before compression.

use super::varint::{Damage, Reader, put_varint};
use crate::file::FileId;
use crate::seqno::SeqNo;
use crate::values::ValueShare;

/// Facts about a run, checked against the manifest's when it is opened and against its entries when it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Versions, tombstones included.
    pub version_count: u64,
    /// Tombstones.
    pub tombstone_count: u64,
    /// Distinct keys.
    pub key_count: u64,
    /// Data blocks.
    pub block_count: u64,
    /// Bytes of the data blocks before compression.
    pub raw_bytes: u64,
    /// [`fold_digest`] over the data blocks before compression.
    pub raw_digest: u64,
    /// Oldest version.
    pub seqno_min: SeqNo,
    /// Newest version.
    pub seqno_max: SeqNo,
    /// When it was written, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Smallest key.
    pub key_min: Vec<u8>,
    /// Largest key.
    pub key_max: Vec<u8>,
    /// What it refers to of value files, in the order of their numbers.
    pub values: Vec<ValueShare>,
}

/// Digest of one more block. Taken before compression and compared after decompression, so that a fault of processor
/// or memory between the two is noticed, which a checksum over compressed bytes cannot see.
pub fn fold_digest(digest: u64, raw: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(raw, digest)
}

impl Properties {
    /// Of a run without a version yet: where counting starts.
    pub fn of_nothing(created_ms: u64) -> Properties {
        Properties {
            version_count: 0,
            tombstone_count: 0,
            key_count: 0,
            block_count: 0,
            raw_bytes: 0,
            raw_digest: 0,
            seqno_min: SeqNo::MAX,
            seqno_max: SeqNo::ZERO,
            created_ms,
            key_min: Vec::new(),
            key_max: Vec::new(),
            values: Vec::new(),
        }
    }

    /// The properties' bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in [
            self.version_count,
            self.tombstone_count,
            self.key_count,
            self.block_count,
            self.raw_bytes,
            self.raw_digest,
            self.seqno_min.0,
            self.seqno_max.0,
            self.created_ms,
        ] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for key in [&self.key_min, &self.key_max] {
            put_varint(&mut bytes, key.len() as u64);
            bytes.extend_from_slice(key);
        }
        if !self.values.is_empty() {
            put_varint(&mut bytes, self.values.len() as u64);
        }
        for share in &self.values {
            let numbers = [share.file.0, share.value_count, share.record_bytes];
            numbers.into_iter().for_each(|number| put_varint(&mut bytes, number));
        }
        bytes
    }

    /// From bytes that [`Properties::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Properties, Damage> {
        let mut reader = Reader::new(bytes, 0);
        let properties = Properties {
            version_count: reader.u64()?,
            tombstone_count: reader.u64()?,
            key_count: reader.u64()?,
            block_count: reader.u64()?,
            raw_bytes: reader.u64()?,
            raw_digest: reader.u64()?,
            seqno_min: SeqNo(reader.u64()?),
            seqno_max: SeqNo(reader.u64()?),
            created_ms: reader.u64()?,
            key_min: key(&mut reader)?,
            key_max: key(&mut reader)?,
            values: values(&mut reader)?,
        };
        reader.finish()?;
        Ok(properties)
    }
}

fn key(reader: &mut Reader<'_>) -> Result<Vec<u8>, Damage> {
    let bytes = reader.varint()?;
    Ok(reader.bytes(bytes)?.to_vec())
}

/// What follows the keys, if anything does.
fn values(reader: &mut Reader<'_>) -> Result<Vec<ValueShare>, Damage> {
    let mut values: Vec<ValueShare> = Vec::new();
    if reader.finish().is_ok() {
        return Ok(values);
    }
    let at = reader.at();
    for _ in 0..reader.varint()? {
        let (file, value_count, record_bytes) = (FileId(reader.varint()?), reader.varint()?, reader.varint()?);
        if values.last().is_some_and(|last| last.file >= file) {
            return Err(Damage { at, what: "value files out of order" });
        }
        values.push(ValueShare { file, value_count, record_bytes });
    }
    if values.is_empty() { Err(Damage { at, what: "an empty list of value files" }) } else { Ok(values) }
}
