//! `SkipList`: versions sorted by (key ascending, SeqNo descending), in an arena. Any number of threads insert and read
//! at once; nothing is ever removed or changed.
//!
//! ```text
//!   tower[height-1] … tower[1] tower[0] | SeqNo, lengths, kind | key, at least 16 bytes | value
//!                                       ^ a node's address
//! ```
//!
//! Always true:
//! * a node is complete before the first pointer to it is published, and never changes but for its tower;
//! * level 0 links every node; a higher level links some of them, in the same order, and may lag behind. So a search
//!   that misses a node above finds it on level 0;
//! * a pointer, once read, stays valid as long as the list: readers need no lock, no reference count and no epoch.
//!
//! After Pugh, "Skip lists: a probabilistic alternative to balanced trees" (1990); towers in front of the node as in
//! RocksDB's `InlineSkipList`, and the remembered position of the last insert as in Pebble's `arenaskl`.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use super::arena::Arena;
use crate::iter::VersionKind;
use crate::seqno::SeqNo;

/// With one node in four a level higher, enough for 4^12 = 16 million versions; more only make searches longer.
const HEIGHT_MAX: usize = 12;
/// Bytes of a key compared at once: table, index, and all of a key that is one number. A key occupies at least this
/// much, zero-filled, so that its prefix can be read without looking at its length.
const PREFIX_BYTES: usize = 16;

/// An atomic pointer to a node. A parameter of the list, so that model checkers can bring their own.
pub(super) trait Link: Send + Sync + 'static {
    fn null() -> Self;
    fn load(&self) -> *mut Header;
    /// Not published yet: ordered by the publication of the node that holds the link.
    fn set(&self, to: *mut Header);
    /// Publishes `to` if the link still leads to `from`.
    fn replace(&self, from: *mut Header, to: *mut Header) -> bool;
}

impl Link for AtomicPtr<Header> {
    fn null() -> Self {
        AtomicPtr::new(ptr::null_mut())
    }

    #[inline]
    fn load(&self) -> *mut Header {
        AtomicPtr::load(self, Acquire)
    }

    #[inline]
    fn set(&self, to: *mut Header) {
        self.store(to, Relaxed);
    }

    #[inline]
    fn replace(&self, from: *mut Header, to: *mut Header) -> bool {
        crate::sync::point();
        self.compare_exchange(from, to, Release, Relaxed).is_ok()
    }
}

/// The fixed part of a node. Its tower lies in front of it, key and value behind it.
#[repr(C, align(8))]
pub(super) struct Header {
    seqno: u64,
    key_bytes: u32,
    value_bytes: u32,
    kind: VersionKind,
}

/// A node's address, valid as long as its list.
struct Node<L: Link>(NonNull<Header>, PhantomData<L>);

impl<L: Link> Clone for Node<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Link> Copy for Node<L> {}

// SAFETY: a node is immutable but for its tower, which is atomic.
unsafe impl<L: Link> Send for Node<L> {}
// SAFETY: as above.
unsafe impl<L: Link> Sync for Node<L> {}

/// Every function below needs the node's list to be alive, which is why nodes do not leave this file.
impl<L: Link> Node<L> {
    #[inline]
    fn of(header: *mut Header) -> Option<Node<L>> {
        NonNull::new(header).map(|header| Node(header, PhantomData))
    }

    #[inline]
    fn header(self) -> &'static Header {
        // SAFETY: nodes are complete before they can be reached, and live as long as the list; the caller holds the list.
        unsafe { &*self.0.as_ptr() }
    }

    /// Link of `level`, which must be below the node's height.
    #[inline]
    fn link(self, level: usize) -> &'static L {
        // SAFETY: the tower lies in front of the node, level 0 last; it was initialised before the node was reachable.
        unsafe { &*self.0.as_ptr().cast::<L>().sub(1 + level) }
    }

    #[inline]
    fn next(self, level: usize) -> Option<Node<L>> {
        Node::of(self.link(level).load())
    }

    #[inline]
    fn key_start(self) -> *const u8 {
        // SAFETY: the key lies behind the header, in the same allocation.
        unsafe { self.0.as_ptr().cast::<u8>().add(size_of::<Header>()) }
    }

    #[inline]
    fn key<'a>(self) -> &'a [u8] {
        // SAFETY: initialised with this length before the node was reachable.
        unsafe { std::slice::from_raw_parts(self.key_start(), self.header().key_bytes as usize) }
    }

    #[inline]
    fn value<'a>(self) -> &'a [u8] {
        let header = self.header();
        let at = (header.key_bytes as usize).max(PREFIX_BYTES);
        // SAFETY: the value lies behind the key and its padding, initialised with this length.
        unsafe { std::slice::from_raw_parts(self.key_start().add(at), header.value_bytes as usize) }
    }

    #[inline]
    fn prefix(self) -> u128 {
        // SAFETY: a key area has at least `PREFIX_BYTES` initialised bytes.
        let bytes = unsafe { self.key_start().cast::<[u8; PREFIX_BYTES]>().read_unaligned() };
        u128::from_be_bytes(bytes)
    }

    /// How the node compares with the target.
    #[inline]
    fn compare(self, target: &Target<'_>) -> Ordering {
        match self.prefix().cmp(&target.prefix) {
            // Zero padding keeps the order of keys that differ within the prefix, and says nothing when they do not.
            Ordering::Equal => self.key().cmp(target.key).then_with(|| target.seqno.0.cmp(&self.header().seqno)),
            unequal => unequal,
        }
    }
}

/// A version in a list that is borrowed for `'l`.
pub(super) struct Entry<'l, L: Link = AtomicPtr<Header>> {
    node: Node<L>,
    list: PhantomData<&'l SkipList<L>>,
}

impl<L: Link> Clone for Entry<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Link> Copy for Entry<'_, L> {}

/// Where an entry lies; of use only with its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(NonNull<Header>);

// SAFETY: an address, which only `SkipList::at` makes use of.
unsafe impl Send for Position {}

impl<'l, L: Link> Entry<'l, L> {
    fn of(node: Option<Node<L>>) -> Option<Entry<'l, L>> {
        node.map(|node| Entry { node, list: PhantomData })
    }

    #[inline]
    pub(super) fn key(self) -> &'l [u8] {
        self.node.key()
    }

    #[inline]
    pub(super) fn value(self) -> &'l [u8] {
        self.node.value()
    }

    #[inline]
    pub(super) fn seqno(self) -> SeqNo {
        SeqNo(self.node.header().seqno)
    }

    #[inline]
    pub(super) fn kind(self) -> VersionKind {
        self.node.header().kind
    }

    /// The next version, as of now.
    #[inline]
    pub(super) fn next(self) -> Option<Entry<'l, L>> {
        Entry::of(self.node.next(0))
    }

    pub(super) fn position(self) -> Position {
        Position(self.node.0)
    }
}

/// What is searched for.
struct Target<'a> {
    key: &'a [u8],
    prefix: u128,
    seqno: SeqNo,
}

impl<'a> Target<'a> {
    #[inline]
    fn new(key: &'a [u8], seqno: SeqNo) -> Target<'a> {
        let mut prefix = [0; PREFIX_BYTES];
        let count = key.len().min(PREFIX_BYTES);
        prefix[..count].copy_from_slice(&key[..count]);
        Target { key, prefix: u128::from_be_bytes(prefix), seqno }
    }
}

/// The list.
pub(super) struct SkipList<L: Link = AtomicPtr<Header>> {
    arena: Arena,
    head: Node<L>,
    /// Levels in use. A search that starts too low is slower, not wrong.
    height: AtomicUsize,
    /// Where the sequence of heights stands.
    heights: AtomicU64,
}

/// Between which nodes a version goes, per level. Kept from one insert to the next, because a commit's versions come in
/// order.
pub(super) struct Splice<L: Link> {
    /// Levels that are filled, from 0; none for a fresh splice.
    filled: usize,
    before: [Node<L>; HEIGHT_MAX],
    after: [Option<Node<L>>; HEIGHT_MAX],
}

impl<L: Link> SkipList<L> {
    pub(super) fn new() -> SkipList<L> {
        let arena = Arena::new();
        // The head has the empty key, but is never compared.
        let (head, _) = new_node(&arena, HEIGHT_MAX, &[], SeqNo::ZERO, VersionKind::Delete, &[]);
        SkipList { arena, head, height: AtomicUsize::new(1), heights: AtomicU64::new(0) }
    }

    /// A splice that knows nothing.
    pub(super) fn splice(&self) -> Splice<L> {
        Splice { filled: 0, before: [self.head; HEIGHT_MAX], after: [None; HEIGHT_MAX] }
    }

    /// Adds a version, which must not be there yet, and returns the bytes that it takes. Visible to others when this
    /// returns.
    pub(super) fn insert(
        &self,
        splice: &mut Splice<L>,
        key: &[u8],
        seqno: SeqNo,
        kind: VersionKind,
        value: &[u8],
    ) -> usize {
        let height = self.next_height();
        self.insert_with_height(splice, height, key, seqno, kind, value)
    }

    fn insert_with_height(
        &self,
        splice: &mut Splice<L>,
        height: usize,
        key: &[u8],
        seqno: SeqNo,
        kind: VersionKind,
        value: &[u8],
    ) -> usize {
        let target = Target::new(key, seqno);
        let (node, bytes): (Node<L>, usize) = new_node(&self.arena, height, key, seqno, kind, value);
        // Looked at first, because it seldom grows and writing it would take the line from every reader.
        if height > self.height.load(Relaxed) {
            self.height.fetch_max(height, Relaxed);
        }
        self.find(&target, splice, height);
        for level in 0..height {
            loop {
                let after = address(splice.after[level]);
                node.link(level).set(after);
                if splice.before[level].link(level).replace(after, node.0.as_ptr()) {
                    break;
                }
                // Somebody was quicker here; what is before this node on this level still is.
                (splice.before[level], splice.after[level]) = self.walk(splice.before[level], level, &target);
            }
            splice.before[level] = node;
        }
        bytes
    }

    /// Fills the splice for `target` on at least `levels` levels, starting from what it knows.
    ///
    /// A splice that was filled for one target serves another if the neighbours of some level enclose that one too: what
    /// is before it on a level above is further before, but another thread may have put a node between it and the
    /// neighbour after it, so those are looked at again.
    fn find(&self, target: &Target<'_>, splice: &mut Splice<L>, levels: usize) {
        let is_after = |after: Option<Node<L>>| after.is_none_or(|after| after.compare(target).is_gt());
        let is_before = |before: Node<L>| before.0 == self.head.0 || before.compare(target).is_lt();
        let encloses = |level: &usize| is_before(splice.before[*level]) && is_after(splice.after[*level]);
        let known = (0..splice.filled).find(encloses);
        let (mut level, mut before) = match known {
            Some(known) => {
                for above in known + 1..levels {
                    if above >= splice.filled {
                        (splice.before[above], splice.after[above]) = self.walk(self.head, above, target);
                    } else if !is_after(splice.after[above]) {
                        (splice.before[above], splice.after[above]) = self.walk(splice.before[above], above, target);
                    }
                }
                splice.filled = splice.filled.max(levels);
                (known + 1, splice.before[known])
            }
            None => {
                splice.filled = self.height.load(Relaxed).max(levels);
                (splice.filled, self.head)
            }
        };
        while level > 0 {
            level -= 1;
            (splice.before[level], splice.after[level]) = self.walk(before, level, target);
            before = splice.before[level];
        }
    }

    /// From `before`, which is before the target, to its neighbours on one level.
    #[inline]
    fn walk(&self, mut before: Node<L>, level: usize, target: &Target<'_>) -> (Node<L>, Option<Node<L>>) {
        loop {
            match before.next(level) {
                Some(next) if next.compare(target).is_lt() => before = next,
                next => return (before, next),
            }
        }
    }

    /// The first version at or after (`key`, `seqno`).
    #[inline]
    pub(super) fn lower_bound(&self, key: &[u8], seqno: SeqNo) -> Option<Entry<'_, L>> {
        let target = Target::new(key, seqno);
        let mut before = self.head;
        let mut known_after = ptr::null_mut();
        for level in (0..self.height.load(Relaxed)).rev() {
            loop {
                match before.next(level) {
                    // Already compared one level higher.
                    Some(next) if next.0.as_ptr() == known_after => break,
                    Some(next) if next.compare(&target).is_lt() => before = next,
                    next => {
                        known_after = address(next);
                        break;
                    }
                }
            }
        }
        // The list may have grown since the search passed.
        Entry::of(self.walk(before, 0, &target).1)
    }

    /// The first version.
    pub(super) fn first(&self) -> Option<Entry<'_, L>> {
        Entry::of(self.head.next(0))
    }

    /// The entry at a position.
    ///
    /// # Safety
    /// The position must come from an entry of this very list.
    #[inline]
    pub(super) unsafe fn at(&self, position: Position) -> Entry<'_, L> {
        Entry { node: Node(position.0, PhantomData), list: PhantomData }
    }

    /// About `count` versions spread evenly, ascending: the nodes of the highest level that has so many.
    pub(super) fn sample(&self, count: usize) -> Vec<Entry<'_, L>> {
        for level in (0..self.height.load(Relaxed)).rev() {
            let nodes = std::iter::successors(self.head.next(level), |node| node.next(level));
            let entries: Vec<Entry<'_, L>> = nodes.filter_map(|node| Entry::of(Some(node))).collect();
            if entries.len() >= count || level == 0 {
                return entries;
            }
        }
        Vec::new()
    }

    /// Heights by a fixed sequence: how a list is built does not depend on the run.
    fn next_height(&self) -> usize {
        // SplitMix: Steele, Lea and Flood (2014).
        let mut mixed = self.heights.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (1 + mixed.trailing_zeros() as usize / 2).min(HEIGHT_MAX)
    }
}

fn address<L: Link>(node: Option<Node<L>>) -> *mut Header {
    node.map_or(ptr::null_mut(), |node| node.0.as_ptr())
}

/// A node with null links, not reachable yet, and its size.
fn new_node<L: Link>(
    arena: &Arena,
    height: usize,
    key: &[u8],
    seqno: SeqNo,
    kind: VersionKind,
    value: &[u8],
) -> (Node<L>, usize) {
    const { assert!(align_of::<L>() <= super::arena::ALIGN && size_of::<L>().is_multiple_of(align_of::<Header>())) };
    let (key_bytes, value_bytes) = (to_u32(key.len()), to_u32(value.len()));
    let key_area = key.len().max(PREFIX_BYTES);
    let tower_bytes = height * size_of::<L>();
    let bytes = tower_bytes + size_of::<Header>() + key_area + value.len();
    let memory = arena.allocate(bytes).as_ptr();
    // SAFETY: every write stays within the allocation just made, which nobody else knows; alignments were checked above.
    unsafe {
        let header = memory.add(tower_bytes).cast::<Header>();
        for level in 0..height {
            header.cast::<L>().sub(1 + level).write(L::null());
        }
        header.write(Header { seqno: seqno.0, key_bytes, value_bytes, kind });
        let key_at = header.add(1).cast::<u8>();
        ptr::copy_nonoverlapping(key.as_ptr(), key_at, key.len());
        key_at.add(key.len()).write_bytes(0, key_area - key.len());
        ptr::copy_nonoverlapping(value.as_ptr(), key_at.add(key_area), value.len());
        (Node(NonNull::new_unchecked(header), PhantomData), bytes)
    }
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or_else(|_| panic!("a commit, and so its parts, is below 4 GiB, not {length} bytes"))
}

#[cfg(test)]
mod tests;
