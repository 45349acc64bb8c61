//! Work that is stopped in the middle: a cold tier that waits at a chosen moment of a conversion, so that a test can
//! commit, flush and look around while the job runs, and let it go on; or in the middle of a commit. The two sides take turns, so a run is as
//! deterministic as one on a single thread.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex};

use strata_oltp::cold::{ColdJob, ColdOutput, ColdPlan, RowPart, SealedMarks, SegmentRecord};
use strata_oltp::{ColdTier, ColdView, FileId, Location, Result, SeqNo, TableId, TableSchema};

/// Where work can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A conversion: its inputs are chosen, nothing is read.
    BeforeRun,
    /// A conversion: its files are written, nothing is installed.
    AfterRun,
    /// A conversion: what was committed meanwhile has been translated once, nothing is installed.
    AfterTranslate,
    /// A commit or a read: it knows where a row lies, and has done nothing with that.
    AfterLocate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Armed(Moment),
    /// The job waits.
    Closed,
}

/// Stops one job at one moment.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, state: State) {
        *self.state.lock().unwrap() = state;
        self.changed.notify_all();
    }

    fn pass(&self, moment: Moment) {
        let mut state = self.state.lock().unwrap();
        if *state == State::Armed(moment) {
            *state = State::Closed;
            self.changed.notify_all();
            while *state == State::Closed {
                state = self.changed.wait(state).unwrap();
            }
        }
    }

    /// Whether the job reached its moment, `false` if it ended before.
    fn await_job(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while matches!(*state, State::Armed(_)) {
            state = self.changed.wait(state).unwrap();
        }
        *state == State::Closed
    }

    /// Runs `job` on another thread, stops it at `moment`, does `meanwhile`, and lets it go on. `meanwhile` does not
    /// happen if the job never gets there. Returns what the job and `meanwhile` returned.
    pub fn interrupt<J: Send, M>(
        &self,
        moment: Moment,
        job: impl FnOnce() -> J + Send,
        meanwhile: impl FnOnce() -> M,
    ) -> (J, Option<M>) {
        self.set(State::Armed(moment));
        std::thread::scope(|scope| {
            let job = scope.spawn(|| {
                let outcome = catch_unwind(AssertUnwindSafe(job));
                self.set(State::Open);
                outcome.unwrap_or_else(|panic| resume_unwind(panic))
            });
            let seen = self.await_job().then(|| catch_unwind(AssertUnwindSafe(meanwhile)));
            self.set(State::Open);
            let job = job.join();
            let seen = seen.map(|outcome| outcome.unwrap_or_else(|panic| resume_unwind(panic)));
            (job.unwrap_or_else(|panic| resume_unwind(panic)), seen)
        })
    }
}

/// A tier with a gate in it.
pub struct GatedTier {
    tier: Arc<dyn ColdTier>,
    gate: Arc<Gate>,
}

impl GatedTier {
    pub fn make(tier: Arc<dyn ColdTier>, gate: &Arc<Gate>) -> Arc<dyn ColdTier> {
        Arc::new(GatedTier { tier, gate: Arc::clone(gate) })
    }
}

impl GatedTier {
    fn wrap(&self, view: Arc<dyn ColdView>) -> Arc<dyn ColdView> {
        Arc::new(GatedView { view, gate: Arc::clone(&self.gate) })
    }
}

struct GatedView {
    view: Arc<dyn ColdView>,
    gate: Arc<Gate>,
}

impl ColdView for GatedView {
    fn as_any(&self) -> &dyn Any {
        self.view.as_any()
    }

    fn locate(&self, table: TableId, key: &[u8], at: SeqNo) -> Result<Option<(Location, SeqNo)>> {
        let found = self.view.locate(table, key, at);
        self.gate.pass(Moment::AfterLocate);
        found
    }

    fn read_row(&self, schema: &TableSchema, location: Location) -> Result<Vec<u8>> {
        self.view.read_row(schema, location)
    }

    fn scan_keys(&self, table: TableId, keys: Range<&[u8]>, at: SeqNo) -> Result<Vec<(Vec<u8>, Location)>> {
        self.view.scan_keys(table, keys, at)
    }

    fn segments(&self, table: TableId) -> Vec<FileId> {
        self.view.segments(table)
    }

    fn key_range(&self, segment: FileId) -> Option<(Vec<u8>, Vec<u8>)> {
        self.view.key_range(segment)
    }
}

impl ColdTier for GatedTier {
    fn restore(&self, segments: &[SegmentRecord]) -> Result<Arc<dyn ColdView>> {
        Ok(self.wrap(self.tier.restore(segments)?))
    }

    fn mark(&self, view: &dyn ColdView, location: Location, seqno: SeqNo) {
        self.tier.mark(view, location, seqno);
    }

    fn replay_mark(&self, view: &dyn ColdView, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.tier.replay_mark(view, key, seqno)
    }

    fn plan(&self, view: &dyn ColdView, rows: &RowPart) -> Option<ColdPlan> {
        self.tier.plan(view, rows)
    }

    fn run(&self, view: &dyn ColdView, job: ColdJob<'_>) -> Result<ColdOutput> {
        self.gate.pass(Moment::BeforeRun);
        let output = self.tier.run(view, job);
        self.gate.pass(Moment::AfterRun);
        output
    }

    fn translate(&self, output: &ColdOutput, superseded: &[(Vec<u8>, SeqNo)]) -> Result<Vec<(Location, SeqNo)>> {
        let marks = self.tier.translate(output, superseded);
        self.gate.pass(Moment::AfterTranslate);
        marks
    }

    fn install(&self, view: &dyn ColdView, output: ColdOutput, marks: &[(Location, SeqNo)]) -> Arc<dyn ColdView> {
        self.wrap(self.tier.install(view, output, marks))
    }

    fn seal(
        &self,
        view: &dyn ColdView,
        table: TableId,
        through: SeqNo,
        next_file: &dyn Fn() -> FileId,
    ) -> Result<Vec<SealedMarks>> {
        self.tier.seal(view, table, through, next_file)
    }

    fn verify(&self, view: &dyn ColdView) -> Result<u64> {
        self.tier.verify(view)
    }

    fn drop_table(&self, view: &dyn ColdView, table: TableId) -> Arc<dyn ColdView> {
        self.wrap(self.tier.drop_table(view, table))
    }
}
