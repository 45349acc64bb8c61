//! `Patient`: reads a file of which the device does not give every byte.
//!
//! A disk that goes bad refuses some sectors and gives the others. Whoever looks for what is left reads on behind them:
//! refused bytes come as zeros, which no checksum takes for good, so that they are damage like any other. Not for readers
//! that act on where a log ends.

use std::io::{ErrorKind, Result};

use crate::env::File;
use crate::sync::Arc;

/// What is asked for again after a failed read: a page, because systems read nothing smaller.
const PIECE_BYTES: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Patient(pub(crate) Arc<dyn File>);

impl File for Patient {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match self.0.read_at(offset, buffer) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => {}
            done => return done,
        }
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let bytes = (PIECE_BYTES - at % PIECE_BYTES).min(rest.len() as u64);
            let (piece, behind) = rest.split_at_mut(bytes as usize);
            if self.0.read_at(at, piece).is_err() {
                piece.fill(0);
            }
            (at, rest) = (at + bytes, behind);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.0.set_len(bytes)
    }
}
