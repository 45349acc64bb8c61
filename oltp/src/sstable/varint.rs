//! Little-endian base-128 integers, and a bounds-checked reader for everything in a run.

/// What is wrong with some bytes, and where within them. Turned into `Error::Corrupt` by whoever knows the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Offset within the decoded bytes.
    pub at: usize,
    /// What does not hold.
    pub what: &'static str,
}

/// Appends `value`, seven bits per byte, lowest first.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads forward through untrusted bytes; never past `end`.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at `at` within `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { bytes, at }
    }

    /// Offset of the next byte.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next integer. Rejects more than ten bytes and bits beyond the 64th.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Damage> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.varint_long(),
        }
    }

    fn varint_long(&mut self) -> Result<u64, Damage> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(Damage { at: start, what: "integer runs past the end" });
            };
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage { at: start, what: "integer has more than 64 bits" })
    }

    /// The next `count` bytes.
    #[inline]
    pub fn bytes(&mut self, count: u64) -> Result<&'a [u8], Damage> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or(Damage { at: self.at, what: "field runs past the end" })?;
        self.at += taken.len();
        Ok(taken)
    }

    /// The next four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Damage> {
        let mut field = [0; 4];
        field.copy_from_slice(self.bytes(4)?);
        Ok(u32::from_le_bytes(field))
    }

    /// The next eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Damage> {
        let mut field = [0; 8];
        field.copy_from_slice(self.bytes(8)?);
        Ok(u64::from_le_bytes(field))
    }

    /// Nothing may be left.
    pub fn finish(&self) -> Result<(), Damage> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Damage { at: self.at, what: "bytes after the last field" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip_and_overlong_ones_are_rejected() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes, 0);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
            for cut in 0..bytes.len() {
                assert!(Reader::new(&bytes[..cut], 0).varint().is_err());
            }
        }
        assert!(Reader::new(&[0xff; 12], 0).varint().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], 0).varint().is_err());
        assert!(Reader::new(&[1, 2], 0).bytes(u64::MAX).is_err());
    }
}
