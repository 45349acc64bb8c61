//! The disk by itself: what no engine with one sync per commit can exceed.
//!
//! One thread writes records as long as a commit of ours, 168 bytes, one behind the other into a zero-filled file, and
//! syncs each. Shown beside the engines and never counted as one.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Peer, Store, Tuning};
use crate::works::Work;

const RECORD_BYTES: usize = 168;
const FILE_BYTES: u64 = 32 << 20;

pub struct Disk;

impl Peer for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn does(&self, work: Work) -> bool {
        work == Work::DurableCommits(1)
    }

    fn open(&self, _: &Path, _: Tuning) -> Result<Box<dyn Store>> {
        bail!("the disk is not an engine")
    }

    fn own_rate(&self, _: Work, dir: &Path, _: u64, seconds: u64) -> Result<Option<f64>> {
        let file = std::fs::File::options().create_new(true).write(true).open(dir.join("records"))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        let (started, record) = (Instant::now(), [7; RECORD_BYTES]);
        let (mut at, mut count) = (0, 0u64);
        while started.elapsed() < Duration::from_secs(seconds) {
            file.write_all_at(&record, at)?;
            file.sync_data()?;
            at = (at + RECORD_BYTES as u64) % (FILE_BYTES - RECORD_BYTES as u64);
            count += 1;
        }
        Ok(Some(count as f64 / started.elapsed().as_secs_f64()))
    }
}
