//! Judges a history of transactions over lists that are only appended to: which anomalies does it show?
//!
//! A list tells the order of the versions of its key, because each appended value is appended once. So the graph of Adya's
//! dependencies follows from what was read: a writer before the next writer of a key (ww), before those who read its
//! version (wr), a reader before the writer of the next version (rw). A range read is a read of every key in the range, of
//! absent ones too, so that a phantom is an rw edge as well. Anomalies are circles in the graph, by the kinds of their
//! edges, and reads that no graph can have.
//!
//! Sources: "Generalized Isolation Level Definitions" (Adya, Liskov and O'Neil, 2000); "Elle: Inferring Isolation Anomalies
//! from Experimental Observations" (Kingsbury and Alvaro, 2020); for what snapshot isolation forbids beyond G-single,
//! "Making Snapshot Isolation Serializable" (Fekete et al., 2005): each of its circles has two neighbouring rw edges.

use std::collections::{BTreeMap, BTreeSet};

/// What a transaction did, in order.
#[derive(Clone, Debug)]
pub enum Op {
    Append {
        key: u64,
        value: u64,
    },
    /// What the list of a key was; `by_range` if a range was asked for.
    Read {
        key: u64,
        list: Vec<u64>,
        by_range: bool,
    },
}

/// How a transaction ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Acknowledged at this moment of the clients' clock.
    Committed(u64),
    Aborted,
    /// The machine died meanwhile.
    Unknown,
}

/// A transaction as its client saw it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Moment of the clients' clock before it began.
    pub begun: u64,
    pub ops: Vec<Op>,
    pub end: End,
}

/// Transactions, and the lists in the end.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub transactions: Vec<Observed>,
    pub lists: BTreeMap<u64, Vec<u64>>,
}

/// Anomalies by name, each with one example.
pub type Anomalies = BTreeMap<&'static str, String>;

/// Names that no level may show.
pub const G2_ITEM: &str = "G2-item";
pub const G2: &str = "G2";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Ww,
    Wr,
    /// By key, or by range.
    Rw {
        by_range: bool,
    },
}

struct Graph<'a> {
    history: &'a History,
    /// Of each value: its key, and the transaction that appended it.
    writers: BTreeMap<u64, (u64, usize)>,
    edges: Vec<Vec<(usize, Edge)>>,
    found: Anomalies,
}

/// All anomalies of a history.
pub fn check(history: &History) -> Anomalies {
    let edges = vec![Vec::new(); history.transactions.len()];
    let mut graph = Graph { history, writers: BTreeMap::new(), edges, found: Anomalies::new() };
    graph.note_writers();
    graph.check_lists();
    for at in 0..history.transactions.len() {
        // What an aborted transaction read binds nobody: its client was told to forget it.
        if graph.has_committed(at) {
            graph.note_reads(at);
        }
    }
    graph.check_circles();
    graph.found
}

impl<'a> Graph<'a> {
    fn report(&mut self, name: &'static str, example: impl FnOnce() -> String) {
        self.found.entry(name).or_insert_with(example);
    }

    fn list(&self, key: u64) -> &'a [u64] {
        self.history.lists.get(&key).map_or(&[], Vec::as_slice)
    }

    fn end_of(&self, value: u64) -> Option<End> {
        self.writers.get(&value).map(|(_, at)| self.history.transactions[*at].end)
    }

    fn appends(&self, at: usize) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.history.transactions[at].ops.iter().filter_map(|op| match op {
            Op::Append { key, value } => Some((*key, *value)),
            Op::Read { .. } => None,
        })
    }

    /// One in doubt has, if what it wrote is there.
    fn has_committed(&self, at: usize) -> bool {
        match self.history.transactions[at].end {
            End::Committed(_) => true,
            End::Aborted => false,
            End::Unknown => self.appends(at).any(|(key, value)| self.list(key).contains(&value)),
        }
    }

    fn note_writers(&mut self) {
        for at in 0..self.history.transactions.len() {
            for (key, value) in self.appends(at) {
                let before = self.writers.insert(value, (key, at));
                assert!(before.is_none(), "value {value} is appended twice by the workload");
            }
        }
    }

    /// The lists in the end: whole transactions, each once, all that were acknowledged; and the order of their writers.
    fn check_lists(&mut self) {
        for (key, list) in &self.history.lists {
            let unique: BTreeSet<&u64> = list.iter().collect();
            if unique.len() < list.len() {
                self.report("duplicate", || format!("key {key} is {list:?}"));
            }
            for value in list {
                match self.end_of(*value) {
                    Some(End::Aborted) => self.report("G1a", || format!("aborted {value} in key {key}: {list:?}")),
                    None => self.report("garbage", || format!("nobody wrote {value} of key {key}")),
                    Some(_) => {}
                }
            }
            let writers: Vec<usize> =
                list.iter().filter_map(|value| self.writers.get(value).map(|(_, at)| *at)).collect();
            for pair in writers.windows(2).filter(|pair| pair[0] != pair[1]) {
                self.edges[pair[0]].push((pair[1], Edge::Ww));
            }
        }
        for at in 0..self.history.transactions.len() {
            let there: Vec<bool> = self.appends(at).map(|(key, value)| self.list(key).contains(&value)).collect();
            let (all, none) = (there.iter().all(|there| *there), there.iter().all(|there| !there));
            match self.history.transactions[at].end {
                End::Committed(_) if !all => self.report("lost write", || format!("T{at} was acknowledged")),
                End::Unknown if !all && !none => self.report("torn transaction", || format!("T{at} is there in part")),
                _ => {}
            }
        }
    }

    /// Reads of a transaction: each a version of its key, the same one each time, and none that is too old.
    fn note_reads(&mut self, at: usize) {
        let transaction = &self.history.transactions[at];
        let mut own: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        for op in &transaction.ops {
            match op {
                Op::Append { key, value } => own.entry(*key).or_default().push(*value),
                Op::Read { key, list, by_range } => {
                    let mine = own.get(key).map_or(&[][..], Vec::as_slice);
                    let Some(others) = list.strip_suffix(mine) else {
                        self.report("own writes", || format!("T{at} wrote {mine:?} and read key {key} as {list:?}"));
                        continue;
                    };
                    if let Some(known) = seen.insert(*key, others.len())
                        && known != others.len()
                    {
                        self.report("fuzzy read", || format!("T{at} read key {key} twice, then as {list:?}"));
                    }
                    self.note_version(at, *key, others, *by_range);
                }
            }
        }
    }

    /// Edges of having read `version` of a key.
    fn note_version(&mut self, at: usize, key: u64, version: &[u64], by_range: bool) {
        let list = self.list(key);
        if let Some(value) = version.iter().find(|value| self.end_of(**value) == Some(End::Aborted)) {
            return self.report("G1a", || format!("T{at} read aborted {value} in key {key}"));
        }
        if !list.starts_with(version) {
            return self
                .report("incompatible order", || format!("T{at} read key {key} as {version:?}, it is {list:?}"));
        }
        let (rest, begun) = (&list[version.len()..], self.history.transactions[at].begun);
        // P4: what was acknowledged before the transaction began is in its snapshot.
        let missed = rest.iter().find(|value| matches!(self.end_of(**value), Some(End::Committed(ack)) if ack < begun));
        if let Some(missed) = missed {
            self.report("stale read", || {
                format!("T{at} read key {key} without {missed}, acknowledged before it began")
            });
        }
        let writer_of =
            |value: Option<&u64>| value.and_then(|value| self.writers.get(value)).map(|(_, writer)| *writer);
        let (last, next) = (writer_of(version.last()), writer_of(rest.first()));
        if let Some(writer) = last.filter(|writer| *writer != at) {
            if next == Some(writer) {
                self.report("G1b", || format!("T{at} read key {key} in the middle of T{writer}: {version:?}"));
            }
            self.edges[writer].push((at, Edge::Wr));
        }
        if let Some(writer) = next.filter(|writer| *writer != at) {
            self.edges[at].push((writer, Edge::Rw { by_range }));
        }
    }

    fn check_circles(&mut self) {
        self.edges.iter_mut().for_each(|edges| {
            edges.sort_unstable();
            edges.dedup();
        });
        if let Some(circle) = self.circle(|edge| edge == Edge::Ww) {
            self.report("G0", || circle);
        }
        let is_flow = |edge: Edge| !matches!(edge, Edge::Rw { .. });
        if !self.found.contains_key("G0")
            && let Some(circle) = self.circle(is_flow)
        {
            self.report("G1c", || circle);
        }
        let components = components(&self.targets(|_| true));
        for component in components.iter().filter(|component| component.len() > 1) {
            self.check_component(component);
        }
    }

    /// A part of the graph where everything is reached from everything.
    fn check_component(&mut self, component: &[usize]) {
        if self.found.contains_key("G0") || self.found.contains_key("G1c") {
            return;
        }
        let within: BTreeSet<usize> = component.iter().copied().collect();
        let single = component.iter().find_map(|from| {
            let back = |to: usize| self.reaches(to, *from, &within);
            let mut against = self.edges[*from].iter().filter(|(_, edge)| matches!(edge, Edge::Rw { .. }));
            against.find(|(to, _)| within.contains(to) && back(*to)).map(|(to, _)| (*from, *to))
        });
        if let Some((from, to)) = single {
            return self.report("G-single", || format!("T{from} did not see T{to}, yet comes after it"));
        }
        if self.has_circle_without_neighbouring_rw(component) {
            return self.report("G-nonadjacent", || format!("among {}", names(component)));
        }
        let by_key = components(&self.targets(|edge| edge != Edge::Rw { by_range: true }));
        let item = by_key.iter().find(|found| found.len() > 1 && found.iter().all(|at| within.contains(at)));
        match item {
            Some(circle) => self.report(G2_ITEM, || format!("among {}", names(circle))),
            None => self.report(G2, || format!("among {}", names(component))),
        }
    }

    fn targets(&self, wanted: impl Fn(Edge) -> bool) -> Vec<Vec<usize>> {
        let chosen = |edges: &Vec<(usize, Edge)>| {
            edges.iter().filter(|(_, edge)| wanted(*edge)).map(|(to, _)| *to).collect::<Vec<_>>()
        };
        self.edges.iter().map(chosen).collect()
    }

    /// Some circle of edges of this kind.
    fn circle(&self, wanted: impl Fn(Edge) -> bool) -> Option<String> {
        let found = components(&self.targets(wanted));
        found.iter().find(|component| component.len() > 1).map(|component| format!("among {}", names(component)))
    }

    /// Whether `to` follows from `from` through ww and wr alone.
    fn reaches(&self, from: usize, to: usize, within: &BTreeSet<usize>) -> bool {
        let (mut open, mut visited) = (vec![from], BTreeSet::from([from]));
        while let Some(at) = open.pop() {
            if at == to {
                return true;
            }
            for (next, edge) in &self.edges[at] {
                if !matches!(edge, Edge::Rw { .. }) && within.contains(next) && visited.insert(*next) {
                    open.push(*next);
                }
            }
        }
        false
    }

    /// In a graph of twice the nodes, where a node reached by rw is another than the one reached otherwise and has no rw
    /// edge of its own, such circles are the only ones.
    fn has_circle_without_neighbouring_rw(&self, component: &[usize]) -> bool {
        let place: BTreeMap<usize, usize> = component.iter().enumerate().map(|(place, at)| (*at, place)).collect();
        let mut targets = vec![Vec::new(); component.len() * 2];
        for (at, from) in &place {
            for (to, edge) in &self.edges[*at] {
                let Some(to) = place.get(to) else { continue };
                if matches!(edge, Edge::Rw { .. }) {
                    targets[from * 2].push(to * 2 + 1);
                } else {
                    targets[from * 2].push(to * 2);
                    targets[from * 2 + 1].push(to * 2);
                }
            }
        }
        components(&targets).iter().any(|component| component.len() > 1)
    }
}

fn names(transactions: &[usize]) -> String {
    transactions.iter().take(8).map(|at| format!("T{at}")).collect::<Vec<_>>().join(", ")
}

/// The strongly connected components. Source: "Depth-First Search and Linear Graph Algorithms" (Tarjan, 1972), with its
/// recursion unrolled.
fn components(targets: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let (mut index, mut low) = (vec![NEW; targets.len()], vec![NEW; targets.len()]);
    let (mut is_open, mut open, mut found) = (vec![false; targets.len()], Vec::new(), Vec::new());
    let mut count = 0;
    for root in 0..targets.len() {
        if index[root] != NEW {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((at, next)) = path.pop() {
            if next == 0 {
                (index[at], low[at]) = (count, count);
                count += 1;
                open.push(at);
                is_open[at] = true;
            }
            if let Some(to) = targets[at].get(next) {
                path.push((at, next + 1));
                if index[*to] == NEW {
                    path.push((*to, 0));
                } else if is_open[*to] {
                    low[at] = low[at].min(index[*to]);
                }
                continue;
            }
            if low[at] == index[at] {
                let start = open.iter().rposition(|other| *other == at).unwrap_or(0);
                let component = open.split_off(start);
                component.iter().for_each(|member| is_open[*member] = false);
                found.push(component);
            }
            if let Some((parent, _)) = path.last() {
                low[*parent] = low[*parent].min(low[at]);
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
