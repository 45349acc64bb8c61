//! The last 72 bytes of a value file: what is in it and where its list of records lies.

use crate::file::FileId;
use crate::schema::TableId;
use crate::sstable::footer::{check, seal};
use crate::sstable::varint::{Damage, Reader};

pub use crate::sstable::footer::FOOTER_BYTES;

const MAGIC: [u8; 8] = *b"STRATVAL";

/// What a value file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The file's number, so that a renamed file is noticed.
    pub id: FileId,
    /// The table whose values it holds.
    pub table: TableId,
    /// Format version.
    pub version: u32,
    /// Records.
    pub value_count: u64,
    /// Where they end: the list of their lengths begins there.
    pub record_bytes: u64,
    /// Stored length of the list.
    pub lengths_bytes: u32,
    /// Bytes of the values before compression.
    pub raw_bytes: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

impl Footer {
    /// The footer's bytes.
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.table.0.to_le_bytes());
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.value_count.to_le_bytes());
        bytes.extend_from_slice(&self.record_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.lengths_bytes.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.raw_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.created_ms.to_le_bytes());
        seal(bytes, MAGIC)
    }

    /// Checks magic and checksum and returns the fields; whether they make sense is the caller's.
    pub fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Footer, Damage> {
        check(bytes, MAGIC, "not the end of a value file")?;
        let mut reader = Reader::new(bytes, 0);
        let id = FileId(reader.u64()?);
        let table = TableId(reader.u32()?);
        let version = reader.u32()?;
        let value_count = reader.u64()?;
        let record_bytes = reader.u64()?;
        let lengths_bytes = reader.u32()?;
        let reserved = reader.u32()?;
        let raw_bytes = reader.u64()?;
        let created_ms = reader.u64()?;
        if reserved != 0 && version <= super::FORMAT_VERSION {
            return Err(Damage { at: 36, what: "reserved bytes are in use" });
        }
        Ok(Footer { id, table, version, value_count, record_bytes, lengths_bytes, raw_bytes, created_ms })
    }
}
