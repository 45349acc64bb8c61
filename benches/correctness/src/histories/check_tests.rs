//! The checker is worth what it finds: each anomaly planted by hand, and sound histories that show none.

use super::*;

fn append(key: u64, value: u64) -> Op {
    Op::Append { key, value }
}

fn read(key: u64, list: &[u64]) -> Op {
    Op::Read { key, list: list.to_vec(), by_range: false }
}

fn range(key: u64, list: &[u64]) -> Op {
    Op::Read { key, list: list.to_vec(), by_range: true }
}

/// Transactions that all ran at the same time.
fn history(transactions: &[&[Op]], lists: &[(u64, &[u64])]) -> History {
    let observed = |ops: &&[Op]| Observed { begun: 0, ops: ops.to_vec(), end: End::Committed(9) };
    History {
        transactions: transactions.iter().map(observed).collect(),
        lists: lists.iter().map(|(key, list)| (*key, list.to_vec())).collect(),
    }
}

fn anomalies(history: &History) -> Vec<&'static str> {
    check(history).into_keys().collect()
}

#[test]
fn sound_histories_show_nothing() {
    let one_by_one = history(
        &[
            &[append(1, 10), read(1, &[10])],
            &[read(1, &[10]), append(1, 11), append(2, 20)],
            &[range(2, &[20]), range(3, &[])],
        ],
        &[(1, &[10, 11]), (2, &[20])],
    );
    assert_eq!(anomalies(&one_by_one), Vec::<&str>::new());
    let skewed_but_ordered =
        history(&[&[read(1, &[]), append(2, 20)], &[read(2, &[20]), append(1, 10)]], &[(1, &[10]), (2, &[20])]);
    assert_eq!(anomalies(&skewed_but_ordered), Vec::<&str>::new());
}

#[test]
fn dirty_writes_are_g0() {
    let planted =
        history(&[&[append(1, 10), append(2, 20)], &[append(1, 11), append(2, 21)]], &[(1, &[10, 11]), (2, &[21, 20])]);
    assert!(anomalies(&planted).contains(&"G0"));
}

#[test]
fn reads_that_must_not_be_are_g1() {
    let mut aborted = history(&[&[append(1, 10)], &[read(1, &[10])]], &[]);
    aborted.transactions[0].end = End::Aborted;
    assert_eq!(anomalies(&aborted), ["G1a"]);
    let mut kept = history(&[&[append(1, 10)]], &[(1, &[10])]);
    kept.transactions[0].end = End::Aborted;
    assert_eq!(anomalies(&kept), ["G1a"]);
    let intermediate = history(&[&[append(1, 10), append(1, 11)], &[read(1, &[10])]], &[(1, &[10, 11])]);
    assert!(anomalies(&intermediate).contains(&"G1b"));
    let circular =
        history(&[&[append(1, 10), read(2, &[20])], &[append(2, 20), read(1, &[10])]], &[(1, &[10]), (2, &[20])]);
    assert_eq!(anomalies(&circular), ["G1c"]);
}

#[test]
fn a_snapshot_of_two_moments_is_g_single() {
    let skew = history(&[&[append(1, 10), append(2, 20)], &[read(1, &[10]), read(2, &[])]], &[(1, &[10]), (2, &[20])]);
    assert_eq!(anomalies(&skew), ["G-single"]);
    let phantom =
        history(&[&[append(1, 10), append(2, 20)], &[range(1, &[10]), range(2, &[])]], &[(1, &[10]), (2, &[20])]);
    assert_eq!(anomalies(&phantom), ["G-single"]);
    // Lost update: both read the empty list, both wrote.
    let lost = history(&[&[read(1, &[]), append(1, 10)], &[read(1, &[]), append(1, 11)]], &[(1, &[10, 11])]);
    assert_eq!(anomalies(&lost), ["G-single"]);
}

#[test]
fn two_observers_of_different_orders_are_nonadjacent() {
    let fork = history(
        &[&[append(1, 10)], &[append(2, 20)], &[read(1, &[10]), read(2, &[])], &[read(1, &[]), read(2, &[20])]],
        &[(1, &[10]), (2, &[20])],
    );
    assert_eq!(anomalies(&fork), ["G-nonadjacent"]);
}

#[test]
fn write_skew_is_g2() {
    let by_key = history(&[&[read(1, &[]), append(2, 20)], &[read(2, &[]), append(1, 10)]], &[(1, &[10]), (2, &[20])]);
    assert_eq!(anomalies(&by_key), [G2_ITEM]);
    let by_range =
        history(&[&[range(1, &[]), append(2, 20)], &[range(2, &[]), append(1, 10)]], &[(1, &[10]), (2, &[20])]);
    assert_eq!(anomalies(&by_range), [G2]);
}

#[test]
fn what_no_order_explains() {
    let lost = history(&[&[append(1, 10)]], &[]);
    assert_eq!(anomalies(&lost), ["lost write"]);
    let mut torn = history(&[&[append(1, 10), append(2, 20)]], &[(1, &[10])]);
    torn.transactions[0].end = End::Unknown;
    assert_eq!(anomalies(&torn), ["torn transaction"]);
    let mut in_doubt = history(&[&[append(1, 10), append(2, 20)]], &[]);
    in_doubt.transactions[0].end = End::Unknown;
    assert_eq!(anomalies(&in_doubt), Vec::<&str>::new());
    let own = history(&[&[append(1, 10), read(1, &[])]], &[(1, &[10])]);
    assert_eq!(anomalies(&own), ["own writes"]);
    let fuzzy = history(&[&[append(1, 10)], &[read(1, &[]), read(1, &[10])]], &[(1, &[10])]);
    assert!(anomalies(&fuzzy).contains(&"fuzzy read"));
    let order = history(&[&[append(1, 10)], &[append(1, 11)], &[read(1, &[11])]], &[(1, &[10, 11])]);
    assert_eq!(anomalies(&order), ["incompatible order"]);
    let twice = history(&[&[append(1, 10)]], &[(1, &[10, 10])]);
    assert_eq!(anomalies(&twice), ["duplicate"]);
    assert_eq!(anomalies(&history(&[], &[(1, &[7])])), ["garbage"]);
    let mut stale = history(&[&[append(1, 10)], &[read(1, &[])]], &[(1, &[10])]);
    stale.transactions[0].end = End::Committed(3);
    stale.transactions[1].begun = 4;
    assert_eq!(anomalies(&stale), ["stale read"]);
}

#[test]
fn components_of_a_deep_graph() {
    let chain: Vec<Vec<usize>> = (0..50_000).map(|at| vec![(at + 1) % 50_000]).collect();
    assert_eq!(components(&chain).len(), 1);
    assert_eq!(components(&[vec![1], vec![2], vec![1], vec![]]).len(), 3);
}
