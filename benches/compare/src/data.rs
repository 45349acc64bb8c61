//! Keys and values, and how often each is asked for: the same for every engine.

/// Bytes of a key, as LevelDB's benchmark has it.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value, where the work does not say otherwise.
pub const VALUE_BYTES: usize = 100;
/// Bytes of a value in YCSB: ten fields of a hundred, kept as one.
pub const YCSB_VALUE_BYTES: usize = 1000;

pub type Key = [u8; KEY_BYTES];

/// A sequence of numbers: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Between 0 and 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A number that depends on every bit of `number`; no two share one.
pub fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Key number `id`, in the form of `db_bench`: the number, big-endian, then zeros.
pub fn key(id: u64) -> Key {
    let mut key = [b'0'; KEY_BYTES];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key
}

/// Fills `value` with bytes that compress to about half, as `db_bench` makes them.
pub fn fill(random: &mut Random, value: &mut [u8]) {
    for part in value.chunks_mut(VALUE_BYTES) {
        let half = part.len() / 2;
        let (noise, copy) = part.split_at_mut(half);
        for chunk in noise.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        copy[..half].copy_from_slice(noise);
    }
}

/// Ranks by Zipf's law: rank 0 most often. Gray et al., "Quickly generating billion-record synthetic databases" (1994),
/// as YCSB has it.
#[derive(Clone)]
pub struct Zipf {
    items: u64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    pub fn new(items: u64, theta: f64) -> Zipf {
        let sum = |count: u64| (1..=count).map(|rank| 1.0 / (rank as f64).powf(theta)).sum::<f64>();
        let (zeta, zeta2) = (sum(items), sum(2));
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta2 / zeta);
        Zipf { items, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    pub fn rank(&self, random: &mut Random) -> u64 {
        let fraction = random.fraction();
        let scaled = fraction * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.items as f64 * (self.eta * fraction - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_zipf() {
        let (zipf, mut random) = (Zipf::new(1000, 0.99), Random(1));
        let mut counts = vec![0u32; 1000];
        for _ in 0..1_000_000 {
            counts[zipf.rank(&mut random) as usize] += 1;
        }
        // Rank r is drawn 1/r^0.99 as often as rank 1; the approximation is good to some percent.
        for (rank, tolerance) in [(1usize, 0.02), (2, 0.03), (10, 0.2), (100, 0.2)] {
            let expected = f64::from(counts[0]) / (rank as f64).powf(0.99);
            let found = f64::from(counts[rank - 1]);
            assert!((found / expected - 1.0).abs() < tolerance, "rank {rank}: {found} instead of {expected}");
        }
    }

    #[test]
    fn values_compress_to_half() {
        let mut value = [0; 250];
        fill(&mut Random(3), &mut value);
        assert_eq!(value[..50], value[50..100]);
        assert_eq!(value[200..225], value[225..250]);
        assert_ne!(value[..50], value[100..150]);
    }
}
