//! Keys and values: the same for every engine.

/// Bytes of a key, as LevelDB's benchmark has it.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;

/// A sequence of numbers: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Key number `id`, in the form of `db_bench`: the number, big-endian, then zeros.
pub fn key(id: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'0'; KEY_BYTES];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key
}

/// A value that compresses to about half, as `db_bench` makes them.
pub fn value(random: &mut Random) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for chunk in value[..VALUE_BYTES / 2].chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
    let (random_half, copy) = value.split_at_mut(VALUE_BYTES / 2);
    copy.copy_from_slice(random_half);
    value
}
