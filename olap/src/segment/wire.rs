//! Fields of our own files: little-endian integers and LEB128 varints, read without trust.
//!
//! A [`Fields`] reader knows which file it reads and where it stands, so that any mismatch is an error that names both
//! (P6). Checksums are verified before a reader is made; a mismatch here means a bug or a forged file, and still no
//! panic.

use std::path::Path;

use strata_oltp::{Error, FileKind, Result};

/// Appends `value` as LEB128: seven bits a byte, lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends the length of `bytes` as a varint, then `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Length of the common prefix of `a` and `b`.
#[must_use]
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Reads fields one after the other.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    kind: FileKind,
    file: &'a Path,
    base: u64,
    all: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// A reader over `bytes`, found at offset `base` of `file`.
    #[must_use]
    pub fn new(kind: FileKind, file: &'a Path, base: u64, bytes: &'a [u8]) -> Fields<'a> {
        Fields { kind, file, base, all: bytes, at: 0 }
    }

    /// [`Error::Corrupt`] at the current field.
    #[must_use]
    pub fn corrupt(&self, what: &'static str) -> Error {
        Error::corrupt(self.kind, self.file, self.base + self.at as u64, what)
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.all.len() - self.at
    }

    /// Checks that everything was read.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if bytes are left.
    pub fn finish(self) -> Result<()> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.corrupt("bytes after the last field")) }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.remaining() {
            return Err(self.corrupt("a field is cut short"));
        }
        let taken = &self.all[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the end.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian integer of two bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if cut short.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A little-endian integer of four bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if cut short.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A little-endian integer of eight bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if cut short.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A varint.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if cut short or wider than 64 bits.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a varint is too wide"))
    }

    /// A varint that counts things each at least one byte (or bit-packed no denser than `per_byte` a byte) long, so
    /// that a damaged count cannot ask for memory out of proportion.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there cannot be as many.
    pub fn count(&mut self, per_byte: usize) -> Result<usize> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(count) if count <= self.remaining().saturating_mul(per_byte) => Ok(count),
            _ => Err(self.corrupt("a count is larger than its file")),
        }
    }

    /// A varint that fits 32 bits.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it does not.
    pub fn varint32(&mut self) -> Result<u32> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.corrupt("a number is wider than 32 bits"))
    }

    /// Length-prefixed bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if cut short.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.count(1)?;
        self.take(count)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}
