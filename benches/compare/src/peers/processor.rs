//! The processors by themselves: how even the latencies of any engine can be.
//!
//! Each write computes for a few microseconds, as long as one of ours, with nothing shared, nothing allocated, no lock
//! and no file. Where more threads run than there are processors, what its p99.9 exceeds its p50 by is what the scheduler
//! does to everybody. Shown beside the engines and never counted as one.

use std::hint::black_box;
use std::path::Path;

use anyhow::{Result, bail};

use super::{Peer, Session, Store, Tuning};
use crate::data::{Key, mix};
use crate::works::Work;

/// About three microseconds of dependent multiplications.
const STEPS: u64 = 1000;

pub struct Processor;

impl Peer for Processor {
    fn name(&self) -> &'static str {
        "processor"
    }

    fn does(&self, work: Work) -> bool {
        work == Work::Overwrite
    }

    fn open(&self, _: &Path, _: Tuning) -> Result<Box<dyn Store>> {
        Ok(Box::new(Computation))
    }
}

struct Computation;

impl Store for Computation {
    fn session(&self, _: bool) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Computation))
    }

    fn load(&self, _: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        Ok(())
    }

    fn settle(&self, _: bool) -> Result<()> {
        Ok(())
    }
}

impl Session for Computation {
    fn put(&mut self, key: &Key, _: &[u8]) -> Result<()> {
        black_box((0..STEPS).fold(u64::from(key[7]), |number, step| mix(number ^ step)));
        Ok(())
    }

    fn get(&mut self, _: &Key) -> Result<bool> {
        bail!("it has no rows")
    }

    fn scan(&mut self, _: &Key, _: usize) -> Result<usize> {
        bail!("it has no rows")
    }
}
