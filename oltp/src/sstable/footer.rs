//! The last 72 bytes of a run: where everything else is.

use xxhash_rust::xxh3::xxh3_64;

use super::index::Handle;
use super::varint::{Damage, Reader};
use crate::file::FileId;
use crate::schema::TableId;

/// Length of a footer, in this and every later version.
pub const FOOTER_BYTES: usize = 72;
const MAGIC: [u8; 8] = *b"STRATRUN";
/// The checksum covers everything before it.
const CHECKSUM_AT: usize = 56;

/// Where a run's parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The file's number, so that a renamed file is noticed.
    pub id: FileId,
    /// The table whose versions it holds.
    pub table: TableId,
    /// 1: the root names data blocks. 2: it names index partitions.
    pub index_levels: u32,
    /// Index root.
    pub index: Handle,
    /// Filter; zero bytes if there is none.
    pub filter: Handle,
    /// Properties.
    pub properties: Handle,
    /// Format version.
    pub version: u32,
}

impl Footer {
    /// The footer's bytes.
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.table.0.to_le_bytes());
        bytes.extend_from_slice(&self.index_levels.to_le_bytes());
        for handle in [self.index, self.filter, self.properties] {
            bytes.extend_from_slice(&handle.offset.to_le_bytes());
            bytes.extend_from_slice(&handle.bytes.to_le_bytes());
        }
        bytes.extend_from_slice(&self.version.to_le_bytes());
        seal(bytes, MAGIC)
    }

    /// Checks magic and checksum and returns the fields; whether version and handles make sense is the caller's.
    pub fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Footer, Damage> {
        check(bytes, MAGIC, "not the end of a run")?;
        let mut reader = Reader::new(bytes, 0);
        let id = FileId(reader.u64()?);
        let table = TableId(reader.u32()?);
        let index_levels = reader.u32()?;
        let index = handle(&mut reader)?;
        let filter = handle(&mut reader)?;
        let properties = handle(&mut reader)?;
        let version = reader.u32()?;
        Ok(Footer { id, table, index_levels, index, filter, properties, version })
    }
}

/// The fields of a footer, of a run or a value file, with checksum and magic.
pub fn seal(mut fields: Vec<u8>, magic: [u8; 8]) -> [u8; FOOTER_BYTES] {
    let checksum = xxh3_64(&fields);
    fields.extend_from_slice(&checksum.to_le_bytes());
    fields.extend_from_slice(&magic);
    let mut footer = [0; FOOTER_BYTES];
    footer.copy_from_slice(&fields);
    footer
}

/// Checks magic, whose absence is called `stranger`, and checksum of what [`seal`] made.
pub fn check(bytes: &[u8; FOOTER_BYTES], magic: [u8; 8], stranger: &'static str) -> Result<(), Damage> {
    let (checksum, found) = bytes[CHECKSUM_AT..].split_at(8);
    if found != magic {
        return Err(Damage { at: CHECKSUM_AT + 8, what: stranger });
    }
    if checksum != xxh3_64(&bytes[..CHECKSUM_AT]).to_le_bytes() {
        return Err(Damage { at: CHECKSUM_AT, what: "footer checksum mismatch" });
    }
    Ok(())
}

fn handle(reader: &mut Reader<'_>) -> Result<Handle, Damage> {
    Ok(Handle { offset: reader.u64()?, bytes: reader.u32()? })
}
