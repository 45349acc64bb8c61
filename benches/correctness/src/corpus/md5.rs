//! MD5, with which the corpus abbreviates long results. Source: RFC 1321 (Rivest, 1992).
//!
//! Written out here because it is a page, and says nothing about security: it compares results of tests.

const SHIFTS: [u32; 16] = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];

/// The digest of `bytes`, as 32 hexadecimal digits.
pub fn hex_digest(bytes: &[u8]) -> String {
    // Section 3.1 and 3.2: one bit, then zeros, then the length in bits, to a whole number of blocks.
    let mut message = bytes.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((bytes.len() as u64).wrapping_mul(8).to_le_bytes());
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let sines: Vec<u32> = (1..=64_u32).map(|step| (f64::from(step).sin().abs() * 4_294_967_296.0) as u32).collect();
    for block in message.chunks_exact(64) {
        let words: Vec<u32> =
            block.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        mix(&mut state, &words, &sines);
    }
    state.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
}

/// Section 3.4: the four rounds over one block.
fn mix(state: &mut [u32; 4], words: &[u32], sines: &[u32]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for step in 0..64 {
        let (mixed, word) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
            2 => (b ^ c ^ d, (3 * step + 5) % 16),
            _ => (c ^ (b | !d), (7 * step) % 16),
        };
        let sum = a.wrapping_add(mixed).wrapping_add(sines[step]).wrapping_add(words[word]);
        let turned = b.wrapping_add(sum.rotate_left(SHIFTS[step / 16 * 4 + step % 4]));
        (a, d, c, b) = (d, c, b, turned);
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(added);
    }
}

#[cfg(test)]
mod tests {
    use super::hex_digest;

    /// The test suite of the RFC, section A.5, and what the corpus itself says of a known result.
    #[test]
    fn digests_of_the_rfc() {
        assert_eq!(hex_digest(b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex_digest(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        let digits = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        assert_eq!(hex_digest(digits), "57edf4a22be3c955ac49da2e2107b67a");
    }
}
