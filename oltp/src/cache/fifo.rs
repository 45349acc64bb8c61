//! Which of the cached blocks goes next: S3-FIFO.
//!
//! Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction" (SOSP 2023). A new block enters a small
//! queue, a tenth of the cache, and moves on to the main one only if it was used again meanwhile: a long scan passes
//! through the small queue and drives out nothing else. A block that comes back soon after it left the small queue enters the
//! main one at once. Uses are counted where they happen, in the block; only misses and evictions come here.
//!
//! A queue has no block, only the place where one is. That place may be gone with its run; then the entry means nothing
//! and is dropped when it is met, or when such entries have become as many as the others.

use std::collections::{HashSet, VecDeque};

use super::Home;
use crate::file::FileId;
use crate::sync::Weak;

/// The small queue's share of the bytes is one part in so many.
const SMALL_PARTS: u64 = 10;
/// Uses in the small queue that let a block move to the main one: the second proves more than a neighbour's row.
const USES_TO_STAY: u8 = 2;
/// Entries below which nobody looks for dead ones.
const SWEEP_MIN: usize = 64;

/// Something in a slot.
#[derive(Debug)]
pub(super) struct Resident {
    /// Whose slot.
    pub home: Weak<dyn Home>,
    /// Which of its slots.
    pub at: usize,
    pub bytes: u64,
    /// Where it was read from.
    pub id: (FileId, u64),
}

/// The order in which residents go.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    small: Queue,
    main: Queue,
    /// Who left the small queue lately, oldest first.
    ghosts: VecDeque<(FileId, u64)>,
    ghost_set: HashSet<(FileId, u64)>,
}

#[derive(Debug, Default)]
struct Queue {
    residents: VecDeque<Resident>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, resident: Resident) {
        self.bytes += resident.bytes;
        self.residents.push_back(resident);
    }

    fn pop(&mut self) -> Option<Resident> {
        let resident = self.residents.pop_front()?;
        self.bytes -= resident.bytes;
        Some(resident)
    }

    fn retain(&mut self, keep: impl Fn(&Resident) -> bool) {
        self.residents.retain(keep);
        self.bytes = self.residents.iter().map(|resident| resident.bytes).sum();
    }
}

impl Fifo {
    /// Takes in what was just put into its slot; `live` is how many there are in all.
    pub fn admit(&mut self, resident: Resident, live: u64) {
        let entries = self.small.residents.len() + self.main.residents.len();
        if entries > SWEEP_MIN && entries as u64 > 2 * live {
            self.retain(|resident| resident.home.strong_count() > 0);
        }
        // The ghost itself stays until its turn: taking it out of the middle costs more than it takes up.
        let queue = if self.ghost_set.contains(&resident.id) { &mut self.main } else { &mut self.small };
        queue.push(resident);
    }

    /// Empties the slot of the next one that has to go; `false` if there is none.
    pub fn evict(&mut self) -> bool {
        // Readers may raise counts as fast as they are lowered here; after so many steps one goes whatever its count.
        let mut patience = 4 * (self.small.residents.len() + self.main.residents.len());
        loop {
            patience = patience.saturating_sub(1);
            let from_small = self.main.residents.is_empty()
                || (self.small.bytes > (self.small.bytes + self.main.bytes) / SMALL_PARTS);
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let Some(resident) = queue.pop() else { return false };
            let Some(home) = resident.home.upgrade() else { continue };
            let Some(uses) = home.uses(resident.at) else { continue };
            if from_small && uses >= USES_TO_STAY && patience > 0 {
                home.set_uses(resident.at, 0);
                self.main.push(resident);
            } else if !from_small && uses > 0 && patience > 0 {
                home.set_uses(resident.at, uses - 1);
                self.main.push(resident);
            } else {
                home.vacate(resident.at);
                if from_small {
                    self.remember(resident.id);
                }
                return true;
            }
        }
    }

    /// Empties the slots of all residents that `is_wanted` does not want.
    pub fn vacate_unless(&mut self, is_wanted: impl Fn(&Resident) -> bool) {
        self.retain(|resident| {
            let Some(home) = resident.home.upgrade() else { return false };
            let keep = is_wanted(resident);
            if !keep {
                home.vacate(resident.at);
            }
            keep
        });
    }

    /// Number of residents, dead ones included.
    #[cfg(test)]
    pub fn entry_count(&self) -> usize {
        self.small.residents.len() + self.main.residents.len()
    }

    fn retain(&mut self, keep: impl Fn(&Resident) -> bool) {
        self.small.retain(&keep);
        self.main.retain(&keep);
    }

    /// As many ghosts as the main queue has residents: older ones say little about what comes back.
    fn remember(&mut self, id: (FileId, u64)) {
        while self.ghosts.len() > self.main.residents.len().max(SWEEP_MIN) {
            let Some(oldest) = self.ghosts.pop_front() else { break };
            self.ghost_set.remove(&oldest);
        }
        if self.ghost_set.insert(id) {
            self.ghosts.push_back(id);
        }
    }
}
