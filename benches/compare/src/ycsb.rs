//! YCSB's core workloads: Cooper et al., "Benchmarking cloud serving systems with YCSB" (2010).
//!
//! A row is a key of 16 bytes and a value of 1000, which an update replaces whole. Which row is asked for follows Zipf's
//! law with exponent 0.99, scattered over the keys; in D the newest rows are the likely ones.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use crate::data::{Key, Random, YCSB_VALUE_BYTES, Zipf, fill, key, mix};
use crate::peers::{Peer, Session, Tuning};
use crate::works::{Size, rate};

const THETA: f64 = 0.99;
const SCAN_ROWS_MAX: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Half reads, half updates.
    A,
    /// 95 % reads, the rest updates.
    B,
    /// Reads only.
    C,
    /// 95 % reads of new rows, the rest inserts.
    D,
    /// 95 % scans of 1 to 100 rows, the rest inserts.
    E,
    /// Half reads, half a read and an update of the same row.
    F,
}

impl Mix {
    pub const ALL: [Mix; 6] = [Mix::A, Mix::B, Mix::C, Mix::D, Mix::E, Mix::F];

    pub fn letter(self) -> char {
        match self {
            Mix::A => 'A',
            Mix::B => 'B',
            Mix::C => 'C',
            Mix::D => 'D',
            Mix::E => 'E',
            Mix::F => 'F',
        }
    }

    fn read_percent(self) -> u64 {
        match self {
            Mix::A | Mix::F => 50,
            Mix::B | Mix::D | Mix::E => 95,
            Mix::C => 100,
        }
    }
}

/// Rows that exist: those loaded, by number, and those inserted since, in random order of keys.
struct Rows {
    loaded: u64,
    inserted: AtomicU64,
    seed: u64,
}

impl Rows {
    fn key(&self, number: u64) -> Key {
        match number.checked_sub(self.loaded) {
            None => key(number),
            Some(nth) => key(mix(self.seed ^ nth) | 1 << 63),
        }
    }
}

pub fn run(peer: &dyn Peer, dir: &Path, size: &Size, mixture: Mix, durable: bool) -> Result<f64> {
    let store = peer.open(dir, Tuning::default())?;
    store.warm(size.ycsb_rows)?;
    let zipf = Zipf::new(size.ycsb_rows, THETA);
    let seed = mix(size.round * 2 + u64::from(durable)) ^ mixture as u64;
    let rows = Rows { loaded: size.ycsb_rows, inserted: AtomicU64::new(0), seed };
    rate(store.as_ref(), durable, size.ycsb_threads, size.seconds, |session, random| {
        operation(session, random, mixture, &zipf, &rows)
    })
}

fn operation(session: &mut dyn Session, random: &mut Random, mixture: Mix, zipf: &Zipf, rows: &Rows) -> Result<()> {
    let reads = random.next() % 100 < mixture.read_percent();
    let chosen = match mixture {
        Mix::D => {
            let newest = rows.loaded + rows.inserted.load(Ordering::Relaxed) - 1;
            rows.key(newest - zipf.rank(random).min(newest))
        }
        _ => rows.key(mix(zipf.rank(random)) % rows.loaded),
    };
    if reads {
        match mixture {
            Mix::E => session.scan(&chosen, 1 + (random.next() % SCAN_ROWS_MAX) as usize).map(drop)?,
            _ => drop(session.get(&chosen)?),
        }
        return Ok(());
    }
    if mixture == Mix::F {
        session.get(&chosen)?;
    }
    let mut value = [0; YCSB_VALUE_BYTES];
    fill(random, &mut value);
    if matches!(mixture, Mix::D | Mix::E) {
        // Counted before it is there: a reader may ask for it a moment too early, and not find it.
        let nth = rows.inserted.fetch_add(1, Ordering::Relaxed);
        return session.put(&rows.key(rows.loaded + nth), &value);
    }
    session.put(&chosen, &value)
}
