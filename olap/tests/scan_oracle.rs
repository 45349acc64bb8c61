//! The scan against a row-at-a-time oracle: random histories, deletion vectors, snapshots old and new, own writes.
//!
//! Every case makes a history of commits with flushes, conversions and rewrites in between, keeps a few snapshots on
//! the way, and then asks every query of `support::queries` at each of them, with and without uncommitted writes.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use support::{Bench, Row, TABLE, view};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Rows `first..first + count`, every `stride`-th, all with the same salt.
    Put {
        first: i64,
        count: i64,
        stride: i64,
        salt: u64,
    },
    /// The same keys, deleted where they exist.
    Delete {
        first: i64,
        count: i64,
        stride: i64,
    },
    Flush,
    Convert,
    Compact,
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || (0..1200_i64, 1..400_i64, 1..9_i64);
    prop_oneof![
        4 => (keys(), any::<u64>()).prop_map(|((first, count, stride), salt)| Step::Put { first, count, stride, salt }),
        3 => keys().prop_map(|(first, count, stride)| Step::Delete { first, count, stride }),
        2 => Just(Step::Flush),
        3 => Just(Step::Convert),
        1 => Just(Step::Compact),
        2 => Just(Step::Snapshot),
    ]
}

fn changes(bench: &Bench, step: &Step) -> BTreeMap<i64, Option<Row>> {
    let keys = |first: i64, count: i64, stride: i64| (first..first + count).step_by(stride as usize);
    match *step {
        Step::Put { first, count, stride, salt } => {
            keys(first, count, stride).map(|id| (id, Some(Row::of(id, salt)))).collect()
        }
        Step::Delete { first, count, stride } => {
            let live: std::collections::HashSet<i64> = bench.live().into_iter().collect();
            keys(first, count, stride).filter(|id| live.contains(id)).map(|id| (id, None)).collect()
        }
        _ => BTreeMap::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_the_model(
        history in prop::collection::vec(step(), 4..16),
        own in prop::collection::vec(step(), 2),
        rest in prop::option::of(prop_oneof![3 => Just(Step::Convert), 1 => Just(Step::Compact)]),
        (a, span, n) in (0..1200_i64, 1..500_i64, any::<u64>()),
        partitions in 1..4_usize,
    ) {
        let mut bench = Bench::new();
        let mut views = Vec::new();
        // Half of the histories end at rest, where statistics are exact and queries are answered from them.
        for step in history.iter().chain(&rest) {
            match step {
                Step::Put { .. } | Step::Delete { .. } => {
                    let changes = changes(&bench, step);
                    if !changes.is_empty() {
                        bench.commit(&changes);
                    }
                }
                Step::Flush => bench.db.flush(Some(TABLE)).unwrap(),
                Step::Convert => bench.db.convert(TABLE).unwrap(),
                Step::Compact => bench.db.compact(TABLE).unwrap(),
                Step::Snapshot => {
                    let snapshot = bench.db.snapshot();
                    let rows = bench.rows_at(snapshot.seqno());
                    views.push((view(snapshot), rows));
                }
            }
        }
        let snapshot = bench.db.snapshot();
        let rows = bench.rows_at(snapshot.seqno());
        let mut own_changes = changes(&bench, &own[0]);
        own_changes.extend(changes(&bench, &own[1]));
        if !own_changes.is_empty() {
            let (snapshot, overlay) = bench.overlay(&own_changes);
            let mut visible: BTreeMap<i64, Row> = rows.iter().map(|row| (row.id, row.clone())).collect();
            for (id, change) in &own_changes {
                match change {
                    Some(row) => visible.insert(*id, row.clone()),
                    None => visible.remove(id),
                };
            }
            views.push((view(snapshot).with_overlay(TABLE, overlay), visible.into_values().collect()));
        }
        views.push((view(snapshot), rows));

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (bound, rows) in views {
            let (real, oracle) = (bench.real(Arc::new(bound), partitions), support::oracle(&rows));
            for (sql, kind) in support::queries(a, a + span, n) {
                runtime.block_on(support::compare(&real, &oracle, &sql, kind));
            }
        }
    }
}
