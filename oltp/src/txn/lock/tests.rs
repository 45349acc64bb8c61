//! Row locks by themselves: order, modes, circles, timeouts, and that nobody is left waiting.

use std::collections::BTreeMap;
use std::sync::mpsc;

use super::*;
use crate::env::mem::MemEnv;

struct Fixture {
    table: Arc<LockTable>,
    env: MemEnv,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { table: Arc::default(), env: MemEnv::new() }
    }

    fn owner(&self) -> HeldLocks {
        HeldLocks::new(&self.table)
    }

    fn now(&self, owner: &mut HeldLocks, key: &str, mode: LockMode) -> Result<bool, Refused> {
        owner.acquire(&Arc::from(key.as_bytes()), mode, Some(Duration::ZERO), &self.env)
    }

    fn wait(&self, owner: &mut HeldLocks, key: &str, mode: LockMode) -> Result<bool, Refused> {
        owner.acquire(&Arc::from(key.as_bytes()), mode, None, &self.env)
    }

    /// Until `count` transactions wait.
    fn await_waiting(&self, count: usize) {
        while self.waiting_count() < count {
            std::thread::yield_now();
        }
    }

    fn waiting_count(&self) -> usize {
        self.table.lock().waiting.len()
    }

    fn is_empty(&self) -> bool {
        let state = self.table.lock();
        state.keys.is_empty() && state.waiting.is_empty() && self.table.key_count.load(Ordering::Acquire) == 0
    }
}

use LockMode::{Exclusive, Shared};

#[test]
fn modes_exclude_as_they_should_and_everything_is_released() {
    let locks = Fixture::new();
    let (mut a, mut b) = (locks.owner(), locks.owner());
    assert_eq!(locks.now(&mut a, "k", Shared), Ok(true));
    assert_eq!(locks.now(&mut b, "k", Shared), Ok(true));
    assert_eq!(locks.now(&mut b, "k", Exclusive), Err(Refused::Timeout), "the other one shares it");
    assert_eq!(locks.now(&mut b, "k", Shared), Ok(false), "held already");
    drop(a);
    assert_eq!(locks.now(&mut b, "k", Exclusive), Ok(true));
    assert_eq!(locks.now(&mut b, "k", Shared), Ok(false), "more is held already");
    let mut c = locks.owner();
    assert_eq!(locks.now(&mut c, "k", Shared), Err(Refused::Timeout));
    assert_eq!(locks.now(&mut c, "other", Exclusive), Ok(true));
    // Back to the state before the upgrade, then before the lock.
    b.release_to(1);
    assert_eq!(locks.now(&mut c, "k", Shared), Ok(true));
    assert_eq!(locks.now(&mut c, "k", Exclusive), Err(Refused::Timeout));
    b.release_to(0);
    assert_eq!(locks.now(&mut c, "k", Exclusive), Ok(true));
    drop((b, c));
    assert!(locks.is_empty());
}

#[test]
fn those_who_wait_are_served_in_order() {
    let locks = Fixture::new();
    let mut first = locks.owner();
    locks.now(&mut first, "k", Exclusive).unwrap();
    let (sender, order) = mpsc::channel();
    std::thread::scope(|scope| {
        // A reader behind a writer does not overtake it, though it could share with the readers before.
        for (number, mode) in [(1, Shared), (2, Exclusive), (3, Shared)] {
            let (locks, sender) = (&locks, sender.clone());
            scope.spawn(move || {
                let mut owner = locks.owner();
                locks.wait(&mut owner, "k", mode).unwrap();
                sender.send(number).unwrap();
            });
            locks.await_waiting(number);
        }
        drop(first);
    });
    assert_eq!(order.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(locks.is_empty());
}

/// Each of `count` transactions holds a key and wants the next one's; the last to ask is refused, and the others get what
/// they want once it has let go.
fn circle_of(count: usize) {
    let locks = Fixture::new();
    let name = |at: usize| format!("key {}", at % count);
    let mut owners: Vec<HeldLocks> = (0..count).map(|_| locks.owner()).collect();
    for (at, owner) in owners.iter_mut().enumerate() {
        locks.now(owner, &name(at), Exclusive).unwrap();
    }
    let mut victim = owners.pop().unwrap();
    std::thread::scope(|scope| {
        for (at, mut owner) in owners.into_iter().enumerate() {
            let locks = &locks;
            scope.spawn(move || locks.wait(&mut owner, &name(at + 1), Exclusive).unwrap());
            locks.await_waiting(at + 1);
        }
        assert_eq!(
            locks.now(&mut victim, &name(0), Exclusive),
            Err(Refused::Timeout),
            "who does not wait closes nothing"
        );
        assert_eq!(locks.wait(&mut victim, &name(count), Exclusive), Err(Refused::Deadlock));
        assert_eq!(locks.wait(&mut victim, &name(count - 1), Exclusive), Ok(false), "what it holds it keeps");
        drop(victim);
    });
    assert!(locks.is_empty());
}

#[test]
fn a_circle_of_two_is_refused() {
    circle_of(2);
}

#[test]
fn a_circle_of_three_is_refused() {
    circle_of(3);
}

/// Two that share a key both want it for themselves: each waits for the other to let go.
#[test]
fn two_upgrades_are_a_circle() {
    let locks = Fixture::new();
    let (mut a, mut b) = (locks.owner(), locks.owner());
    locks.now(&mut a, "k", Shared).unwrap();
    locks.now(&mut b, "k", Shared).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| locks.wait(&mut a, "k", Exclusive));
        locks.await_waiting(1);
        assert_eq!(locks.wait(&mut b, "k", Exclusive), Err(Refused::Deadlock));
        drop(b);
        assert_eq!(waiting.join().unwrap(), Ok(true));
    });
}

/// A circle through the queue: one waits for another that only waits itself, but comes first.
#[test]
fn who_is_ahead_in_the_queue_counts() {
    let locks = Fixture::new();
    let (mut a, mut b, mut c) = (locks.owner(), locks.owner(), locks.owner());
    locks.now(&mut a, "k", Shared).unwrap();
    locks.now(&mut c, "other", Exclusive).unwrap();
    std::thread::scope(|scope| {
        // `b` waits for `a`; `c` could share with `a` but waits behind `b`; `a` now wants what `c` holds.
        let b = scope.spawn(|| locks.wait(&mut b, "k", Exclusive).map(|_| drop(b)));
        locks.await_waiting(1);
        let c = scope.spawn(|| locks.wait(&mut c, "k", Shared).map(|_| drop(c)));
        locks.await_waiting(2);
        assert_eq!(locks.wait(&mut a, "other", Exclusive), Err(Refused::Deadlock));
        drop(a);
        b.join().unwrap().unwrap();
        c.join().unwrap().unwrap();
    });
    assert!(locks.is_empty());
}

#[test]
fn who_gives_up_lets_those_behind_it_pass() {
    let locks = Fixture::new();
    let (mut a, mut b, mut c) = (locks.owner(), locks.owner(), locks.owner());
    locks.now(&mut a, "k", Shared).unwrap();
    std::thread::scope(|scope| {
        let key: Arc<[u8]> = Arc::from(&b"k"[..]);
        let (table, env) = (&locks, &locks.env);
        let impatient = scope.spawn(move || b.acquire(&key, Exclusive, Some(Duration::from_millis(20)), env));
        // On a busy machine it may have given up before anybody looks.
        while table.waiting_count() < 1 && !impatient.is_finished() {
            std::thread::yield_now();
        }
        // Waits behind the one that will give up; nobody releases anything.
        assert_eq!(locks.wait(&mut c, "k", Shared), Ok(true));
        assert_eq!(impatient.join().unwrap(), Err(Refused::Timeout));
    });
    drop((a, c));
    assert!(locks.is_empty());
}

/// Random locks from several threads: nobody waits for ever, and nobody shares what excludes others. A watchdog ends the
/// process if the threads do not, because a test that hangs says nothing.
#[test]
fn random_locks_never_hang() {
    const THREADS: usize = 6;
    let (done, watchdog) = mpsc::channel();
    std::thread::spawn(move || {
        if watchdog.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("random_locks_never_hang: threads still wait after a minute");
            std::process::abort();
        }
    });
    let locks = Fixture::new();
    // Readers and writers inside, by key: what the locks promise.
    let inside: Mutex<BTreeMap<u64, (i32, i32)>> = Mutex::default();
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (locks, inside, refused) = (&locks, &inside, &refused);
            scope.spawn(move || {
                let mut state = thread as u64;
                let mut random = |end: u64| {
                    // A linear congruential step: Knuth, TAOCP vol. 2, 3.3.4.
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) % end
                };
                for _ in 0..300 {
                    let mut owner = locks.owner();
                    let mut held: BTreeMap<u64, LockMode> = BTreeMap::new();
                    for _ in 0..random(5) {
                        let (key, mode) = (random(4), if random(2) == 0 { Shared } else { Exclusive });
                        let name: Arc<[u8]> = Arc::from(&key.to_be_bytes()[..]);
                        let timeout = (random(10) == 0).then_some(Duration::from_micros(50));
                        if owner.acquire(&name, mode, timeout, &locks.env).is_err() {
                            refused.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        enter(inside, key, held.get(&key).copied(), mode);
                        let strongest = held.get(&key).map_or(mode, |before| mode.max(*before));
                        held.insert(key, strongest);
                        std::thread::yield_now();
                    }
                    for (key, mode) in &held {
                        leave(inside, *key, *mode);
                    }
                }
            });
        }
    });
    assert!(locks.is_empty());
    assert!(refused.load(Ordering::Relaxed) > 0, "circles must have happened");
    done.send(()).unwrap();
}

fn enter(inside: &Mutex<BTreeMap<u64, (i32, i32)>>, key: u64, before: Option<LockMode>, mode: LockMode) {
    if before >= Some(mode) {
        return;
    }
    let mut inside = inside.lock().unwrap();
    let (readers, writers) = inside.entry(key).or_default();
    *readers -= i32::from(before == Some(Shared));
    match mode {
        Shared => *readers += 1,
        Exclusive => *writers += 1,
    }
    assert!(*writers == 0 || (*writers == 1 && *readers == 0), "{readers} readers beside {writers} writers");
}

fn leave(inside: &Mutex<BTreeMap<u64, (i32, i32)>>, key: u64, mode: LockMode) {
    let mut inside = inside.lock().unwrap();
    let (readers, writers) = inside.entry(key).or_default();
    match mode {
        Shared => *readers -= 1,
        Exclusive => *writers -= 1,
    }
}
