//! `BudgetPool`: DataFusion's memory, drawn from the database's one budget (P9).
//!
//! First come, first served. An operator that is refused spills if it can; if it cannot, the query fails with 53200 and
//! the process lives on.

use std::fmt;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};
use strata_oltp::memory::{MemoryBudget, Reservation};

use crate::error::Error;
use std::sync::Arc;

/// Name of the queries' share in `strata.memory`.
const CONSUMER: &str = "queries";

/// All queries of one database.
#[derive(Debug)]
pub(crate) struct BudgetPool {
    held: Reservation,
    limit_bytes: u64,
}

impl BudgetPool {
    /// # Errors
    /// None: nothing is taken yet.
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> strata_oltp::Result<BudgetPool> {
        Ok(BudgetPool { held: budget.reserve(CONSUMER, 0)?, limit_bytes: budget.limit() })
    }
}

impl fmt::Display for BudgetPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CONSUMER}: {} of {} bytes", self.held.bytes(), self.limit_bytes)
    }
}

impl MemoryPool for BudgetPool {
    fn name(&self) -> &'static str {
        CONSUMER
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.held.grow(additional as u64);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.held.shrink(shrink as u64);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.held.try_grow(additional as u64).map_err(|error| {
            // The kind must stay `ResourcesExhausted`: operators that can spill look for it.
            let consumer = reservation.consumer().name();
            DataFusionError::ResourcesExhausted(format!("{} (asked for by {consumer})", Error::from(error).message()))
        })
    }

    fn reserved(&self) -> usize {
        usize::try_from(self.held.bytes()).unwrap_or(usize::MAX)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(usize::try_from(self.limit_bytes).unwrap_or(usize::MAX))
    }
}
