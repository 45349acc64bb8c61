//! What survives which kind of end, and that every environment obeys the same rules while it lives.

use proptest::prelude::*;

use super::disk::InodeId;
use super::*;
use crate::env::mem::MemEnv;
use crate::env::os::OsEnv;
use crate::env::{Env, File, OpenMode};

const DROP: PowerLoss = PowerLoss::DropUnsynced;
const KEEP: PowerLoss = PowerLoss::KeepAll;

fn path(name: &str) -> PathBuf {
    Path::new("/db").join(name)
}

/// A machine with the folder `/db`.
fn machine(seed: u64) -> SimEnv {
    let env = SimEnv::new(seed);
    env.create_dir_all(Path::new("/db")).unwrap();
    env
}

fn create(env: &dyn Env, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = env.open(&path(name), OpenMode::CreateNew).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

fn create_durably(env: &dyn Env, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = create(env, name, bytes);
    file.sync().unwrap();
    env.sync_dir(Path::new("/db")).unwrap();
    file
}

fn names(env: &dyn Env) -> Vec<String> {
    env.list(Path::new("/db")).unwrap()
}

#[test]
fn unsynced_bytes_are_lost_and_synced_ones_kept() {
    let env = machine(1);
    let file = create_durably(&env, "a", b"first");
    file.write_at(0, b"other and longer").unwrap();
    assert_eq!(env.reboot(DROP).read_file(&path("a")).unwrap(), b"first");
    assert_eq!(env.reboot(KEEP).read_file(&path("a")).unwrap(), b"other and longer");
    assert!(file.sync().is_err(), "the machine is dead");
}

#[test]
fn lengths_are_lost_like_bytes() {
    let env = machine(1);
    let content: Vec<u8> = (0..2000_u32).map(|i| i as u8).collect();
    let file = create_durably(&env, "a", &content);
    file.set_len(700).unwrap();
    file.set_len(1500).unwrap();
    assert_eq!(env.reboot(DROP).read_file(&path("a")).unwrap(), content);
    let mut cut = content[..700].to_vec();
    cut.resize(1500, 0);
    assert_eq!(env.reboot(KEEP).read_file(&path("a")).unwrap(), cut);
}

#[test]
fn a_name_needs_its_folder_synced() {
    let env = machine(1);
    create(&env, "a", b"a").sync().unwrap();
    assert!(names(&env.reboot(DROP)).is_empty());
    assert_eq!(names(&env.reboot(KEEP)), ["a"]);

    let env = machine(1);
    create_durably(&env, "a", b"a");
    create_durably(&env, "b", b"b");
    env.rename(&path("a"), &path("b")).unwrap();
    env.hard_link(&path("b"), &path("c")).unwrap();
    let lost = env.reboot(DROP);
    assert_eq!(names(&lost), ["a", "b"]);
    assert_eq!(lost.read_file(&path("b")).unwrap(), b"b");
    let kept = env.reboot(KEEP);
    assert_eq!(names(&kept), ["b", "c"]);
    assert_eq!(kept.read_file(&path("c")).unwrap(), b"a");
}

#[test]
fn a_rename_across_folders_does_not_come_back() {
    let env = machine(1);
    env.create_dir_all(Path::new("/db/wal")).unwrap();
    create(&env, "a", b"a").sync().unwrap();
    env.rename(&path("a"), &path("wal/a")).unwrap();
    env.sync_dir(Path::new("/db/wal")).unwrap();
    env.sync_dir(Path::new("/db")).unwrap();
    let after = env.reboot(DROP);
    assert!(names(&after).is_empty());
    assert_eq!(after.read_file(&path("wal/a")).unwrap(), b"a");
}

#[test]
fn a_killed_process_loses_nothing_but_power_may_still_fail_later() {
    let env = machine(1);
    let file = create_durably(&env, "a", b"synced");
    file.write_at(0, b"cached").unwrap();
    let _lock = env.lock(&path("LOCK")).unwrap();
    let next = env.kill();
    assert!(env.crashed());
    assert_eq!(next.read_file(&path("a")).unwrap(), b"cached");
    assert!(next.lock(&path("LOCK")).is_ok(), "the lock died with its process");
    assert_eq!(next.reboot(DROP).read_file(&path("a")).unwrap(), b"synced");
}

#[test]
fn a_crash_stops_everything_and_a_dying_sync_syncs_nothing() {
    let env = machine(1);
    let file = create_durably(&env, "a", b"old");
    let base = env.ops();
    env.crash_at(base + 1);
    file.write_at(0, b"new").unwrap();
    assert!(file.sync().is_err());
    assert!(env.crashed());
    let mut buffer = [0; 3];
    assert!(file.read_at(0, &mut buffer).is_err());
    assert!(env.list(Path::new("/db")).is_err());
    assert_eq!(env.ops(), base + 2, "calls on a dead machine do not count");
    assert_eq!(env.op_log().last(), Some(&Op::Sync(path("a"))));
    assert_eq!(env.reboot(DROP).read_file(&path("a")).unwrap(), b"old");
    let next = env.reboot(KEEP);
    assert_eq!(next.ops(), 0);
    assert_eq!(next.open(&path("a"), OpenMode::Read).unwrap().len().unwrap(), 3);
}

#[test]
fn a_dying_write_may_arrive() {
    let env = machine(1);
    let file = create_durably(&env, "a", b"old");
    env.crash_at(env.ops());
    assert!(file.write_at(0, b"new").is_err());
    assert_eq!(env.reboot(DROP).read_file(&path("a")).unwrap(), b"old");
    assert_eq!(env.reboot(KEEP).read_file(&path("a")).unwrap(), b"new");
}

#[test]
fn faults_hit_once_or_for_ever() {
    let env = machine(1);
    let file = create(&env, "a", b"....");
    env.fail_op(env.ops(), io::ErrorKind::StorageFull, Repeat::Once);
    assert_eq!(file.write_at(0, b"abcd").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(env.read_file(&path("a")).unwrap(), b"ab..", "a failing write may leave a part");
    file.write_at(0, b"abcd").unwrap();
    env.fail_op(env.ops(), io::ErrorKind::Other, Repeat::Forever);
    assert!(env.remove(&path("a")).is_err());
    assert!(file.set_len(0).is_err());
    assert_eq!(file.len().unwrap(), 4, "reads go on");
    env.clear_faults();
    env.remove(&path("a")).unwrap();
}

#[test]
fn bytes_under_a_failed_sync_stay_lost_until_written_again() {
    let env = machine(1);
    let file = create_durably(&env, "a", &[0; 1024]);
    file.write_at(0, &[1; 1024]).unwrap();
    env.fail_op(env.ops(), io::ErrorKind::Other, Repeat::Once);
    assert!(file.sync().is_err());
    file.write_at(600, &[2]).unwrap();
    file.sync().unwrap();
    let after = env.reboot(DROP).read_file(&path("a")).unwrap();
    assert_eq!((after[0], after[599], after[600]), (0, 1, 2), "first sector lost, second written anew and synced");
}

#[test]
fn a_full_disk_refuses_growth_only() {
    let env = machine(1);
    let file = create(&env, "a", &[0; 600]);
    env.set_capacity_bytes(Some(1000));
    let error = create_err(&env, "b", 401);
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.set_len(1001).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_at(0, &[1; 600]).unwrap();
    env.remove(&path("a")).unwrap();
    env.open(&path("b"), OpenMode::ReadWrite).unwrap().set_len(1000).unwrap();
}

fn create_err(env: &SimEnv, name: &str, bytes: usize) -> io::Error {
    env.open(&path(name), OpenMode::CreateNew).unwrap().write_at(0, &vec![0; bytes]).unwrap_err()
}

#[test]
fn tests_may_corrupt_and_replace_files() {
    let env = machine(1);
    create(&env, "a", b"abc");
    env.corrupt(&path("a"), 1, 0xFF).unwrap();
    assert_eq!(env.read_file(&path("a")).unwrap(), [b'a', b'b' ^ 0xFF, b'c']);
    assert!(env.corrupt(&path("a"), 3, 1).is_err());
    env.write_file(&path("b"), b"whole").unwrap();
    let ops = env.ops();
    assert_eq!(env.reboot(DROP).read_file(&path("b")).unwrap(), b"whole");
    assert_eq!(env.ops(), ops);
    assert_eq!(env.files(), [(path("a"), 3), (path("b"), 5)]);
}

#[test]
fn time_moves_only_when_told() {
    let env = SimEnv::new(7);
    let (before, wall) = (env.monotonic(), env.wall_clock());
    env.advance(Duration::from_millis(5));
    assert_eq!(env.monotonic() - before, Duration::from_millis(5));
    assert_eq!(env.wall_clock() - wall, Duration::from_millis(5));
    let draws = |env: &SimEnv| [env.random_u64(), env.random_u64()];
    assert_eq!(draws(&SimEnv::new(7)), draws(&SimEnv::new(7)));
    assert_ne!(draws(&SimEnv::new(7)), draws(&SimEnv::new(8)));
}

#[test]
fn freed_files_leave_no_bytes_behind() {
    let env = machine(1);
    let file = create_durably(&env, "a", b"abc");
    env.remove(&path("a")).unwrap();
    env.sync_dir(Path::new("/db")).unwrap();
    let mut buffer = [0; 3];
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"abc", "an open handle keeps the bytes");
    drop(file);
    assert_eq!(env.machine().disk.inode_count(), 0);
}

/// Rules that hold for every environment while nothing fails.
fn check_rules(env: &dyn Env, dir: &Path) {
    let at = |name: &str| dir.join(name);
    let kind = |result: io::Result<Arc<dyn File>>| result.unwrap_err().kind();
    env.create_dir_all(&at("x/y")).unwrap();
    env.create_dir_all(&at("x/y")).unwrap();
    assert_eq!(kind(env.open(&at("a"), OpenMode::Read)), io::ErrorKind::NotFound);
    assert_eq!(kind(env.open(&at("missing/a"), OpenMode::CreateNew)), io::ErrorKind::NotFound);
    assert_eq!(env.list(&at("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);

    let file = env.open(&at("a"), OpenMode::CreateNew).unwrap();
    assert_eq!(kind(env.open(&at("a"), OpenMode::CreateNew)), io::ErrorKind::AlreadyExists);
    assert!(file.is_empty().unwrap());
    file.write_at(3, b"xyz").unwrap();
    assert_eq!(file.len().unwrap(), 6);
    let mut buffer = [9; 4];
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"\0\0\0x");
    assert_eq!(file.read_at(3, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    file.read_at(6, &mut []).unwrap();
    file.set_len(4).unwrap();
    file.set_len(5).unwrap();
    file.sync().unwrap();
    let reader = env.open(&at("a"), OpenMode::Read).unwrap();
    reader.read_at(1, &mut buffer).unwrap();
    assert_eq!(&buffer, b"\0\0x\0");

    let more = ["x/z", "x/m", "x/aa", "x/b"];
    more.iter().for_each(|name| drop(env.open(&at(name), OpenMode::CreateNew).unwrap()));
    assert_eq!(env.list(&at("x")).unwrap(), ["aa", "b", "m", "z"], "sorted");
    more.iter().for_each(|name| env.remove(&at(name)).unwrap());

    env.hard_link(&at("a"), &at("b")).unwrap();
    assert_eq!(env.hard_link(&at("a"), &at("b")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    env.rename(&at("b"), &at("x/c")).unwrap();
    file.write_at(0, b"!").unwrap();
    let mut first = [0; 1];
    env.open(&at("x/c"), OpenMode::ReadWrite).unwrap().read_at(0, &mut first).unwrap();
    assert_eq!(&first, b"!", "both names share the bytes");
    assert_eq!(env.rename(&at("b"), &at("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
    env.sync_dir(dir).unwrap();

    env.remove(&at("a")).unwrap();
    assert_eq!(env.remove(&at("a")).unwrap_err().kind(), io::ErrorKind::NotFound);
    file.read_at(0, &mut first).unwrap();
    assert_eq!(env.list(dir).unwrap(), Vec::<String>::new(), "folders are left out");
    assert_eq!(env.list(&at("x")).unwrap(), ["c"]);

    let lock = env.lock(&at("LOCK")).unwrap();
    assert_eq!(env.lock(&at("LOCK")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    drop(env.lock(&at("LOCK")).unwrap());
    env.remove(&at("LOCK")).unwrap();
    env.remove(&at("x/c")).unwrap();
    assert!(env.monotonic() <= env.monotonic());
}

#[test]
fn every_environment_obeys_the_same_rules() {
    let sim = SimEnv::new(1);
    check_rules(&sim, Path::new("/db"));
    let mem = MemEnv::new();
    check_rules(&mem, Path::new("/db"));
    let os = OsEnv::new();
    let dir = std::env::temp_dir().join(format!("strata-env-{:016x}", os.random_u64()));
    check_rules(&os, &dir);
    #[expect(clippy::disallowed_methods, reason = "removes the test's own folder")]
    std::fs::remove_dir_all(&dir).unwrap();
    assert_ne!(os.random_u64(), os.random_u64());
    assert!(os.wall_clock() > Duration::from_secs(1_600_000_000));
}

/// One step of a workload on three files.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, usize),
    SetLen(usize, u64),
    Sync(usize),
    Rename(usize, usize),
    Remove(usize),
    SyncDir,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..3000_u64, 1..2000_usize).prop_map(|(file, offset, bytes)| Step::Write(file, offset, bytes)),
        1 => (0..3_usize, 0..3000_u64).prop_map(|(file, bytes)| Step::SetLen(file, bytes)),
        2 => (0..3_usize).prop_map(Step::Sync),
        1 => (0..3_usize, 0..3_usize).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (0..3_usize).prop_map(Step::Remove),
        1 => Just(Step::SyncDir),
    ]
}

fn run(env: &SimEnv, step: &Step, fill: u8) {
    let at = |file: usize| path(&file.to_string());
    let open = |file: usize| {
        env.open(&at(file), OpenMode::ReadWrite).or_else(|_| env.open(&at(file), OpenMode::CreateNew)).unwrap()
    };
    match *step {
        Step::Write(file, offset, bytes) => open(file).write_at(offset, &vec![fill; bytes]).unwrap(),
        Step::SetLen(file, bytes) => open(file).set_len(bytes).unwrap(),
        Step::Sync(file) => open(file).sync().unwrap(),
        Step::Rename(from, to) => drop(env.rename(&at(from), &at(to))),
        Step::Remove(file) => drop(env.remove(&at(file))),
        Step::SyncDir => env.sync_dir(Path::new("/db")).unwrap(),
    }
}

fn snapshot(env: &SimEnv) -> Vec<(PathBuf, Vec<u8>)> {
    env.files().into_iter().map(|(path, _)| (path.clone(), env.read_file(&path).unwrap())).collect()
}

proptest! {
    /// The dropped state is what the last syncs saw, kept apart here by an independent and simpler account: whole
    /// copies of files at their syncs. The kept state is the live one, and random losses repeat from their number.
    #[test]
    fn power_loss_leaves_what_was_synced(steps in prop::collection::vec(step(), 1..40), choice: u64) {
        let env = machine(3);
        let mut synced_bytes = std::collections::HashMap::new();
        let mut durable_names: Vec<(PathBuf, InodeId)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            run(&env, step, number as u8 + 1);
            let machine = env.machine();
            let inode_of = |path: &Path| machine.disk.lookup(path).unwrap();
            match step {
                Step::Sync(file) => {
                    let inode = inode_of(&path(&file.to_string()));
                    synced_bytes.insert(inode, machine.disk.content(inode).to_vec());
                }
                Step::SyncDir => {
                    let files = machine.disk.files().into_iter();
                    durable_names = files.map(|(path, _)| (path.clone(), inode_of(&path))).collect();
                }
                _ => {}
            }
        }
        let live = snapshot(&env);
        let synced = durable_names.iter().map(|(path, inode)| {
            (path.clone(), synced_bytes.get(inode).cloned().unwrap_or_default())
        });
        prop_assert_eq!(snapshot(&env.reboot(DROP)), synced.collect::<Vec<_>>());
        prop_assert_eq!(snapshot(&env.reboot(KEEP)), live.clone());
        prop_assert_eq!(snapshot(&env.kill()), live);
        let torn = env.reboot(PowerLoss::Random(choice));
        prop_assert_eq!(snapshot(&torn), snapshot(&env.reboot(PowerLoss::Random(choice))));
        prop_assert_eq!(snapshot(&torn), snapshot(&torn.reboot(DROP)), "what survived is durable");
    }

    /// Synced bytes that were not written again survive every random loss.
    #[test]
    fn random_loss_never_touches_synced_sectors(choice: u64) {
        let env = machine(5);
        let file = create_durably(&env, "a", &[1; 2048]);
        file.write_at(512, &[2; 512]).unwrap();
        file.write_at(512, &[3; 512]).unwrap();
        file.write_at(2048, &[4; 700]).unwrap();
        let after = env.reboot(PowerLoss::Random(choice)).read_file(&path("a")).unwrap();
        prop_assert!((2048..=2748).contains(&after.len()));
        prop_assert!(after[..512].iter().chain(&after[1024..2048]).all(|&byte| byte == 1));
        prop_assert!([[1; 512], [2; 512], [3; 512]].iter().any(|version| after[512..1024] == version[..]));
        prop_assert!(after[2048..].iter().all(|&byte| byte == 0 || byte == 4));
    }
}

#[test]
fn random_loss_is_varied() {
    let env = machine(5);
    let file = create_durably(&env, "a", &[1; 4096]);
    file.write_at(0, &[2; 4096]).unwrap();
    file.write_at(4096, &[3; 300]).unwrap();
    create(&env, "b", b"b");
    create(&env, "c", b"c");
    let outcomes: Vec<_> = (0..200).map(|choice| snapshot(&env.reboot(PowerLoss::Random(choice)))).collect();
    let torn = |content: &[u8]| content.contains(&1) && content.contains(&2);
    assert!(outcomes.iter().any(|files| torn(&files[0].1)));
    let lost_within = |content: &[u8]| content.len() > 4096 && content[4096..].iter().all(|&byte| byte == 0);
    assert!(outcomes.iter().any(|files| lost_within(&files[0].1)), "the length may arrive without the bytes");
    for names in [&["a"][..], &["a", "b"], &["a", "c"], &["a", "b", "c"]] {
        let wanted: Vec<PathBuf> = names.iter().map(|name| path(name)).collect();
        let seen = |files: &Vec<(PathBuf, Vec<u8>)>| files.iter().map(|(path, _)| path).eq(&wanted);
        assert!(outcomes.iter().any(seen), "never saw {names:?}");
    }
}

/// One run with images gives the disks that a run per crash gives: a machine that dies in a sync has done all before it
/// and nothing else.
#[test]
fn an_image_is_the_disk_of_a_crash() {
    let workload = |env: &SimEnv| {
        env.create_dir_all(Path::new("/db"))?;
        let file = env.open(&path("a"), OpenMode::CreateNew)?;
        for at in 0..6u64 {
            file.write_at(at * 700, &[at as u8 + 1; 900])?;
            if at % 2 == 1 {
                file.sync()?;
            }
        }
        env.sync_dir(Path::new("/db"))?;
        env.rename(&path("a"), &path("b"))
    };
    let whole = SimEnv::new(5);
    whole.keep_images();
    workload(&whole).unwrap();
    let mut synced = 0;
    for (ops, op) in whole.op_log().iter().enumerate() {
        if !matches!(op, Op::Sync(_) | Op::SyncDir(_)) {
            continue;
        }
        let crashed = SimEnv::new(5);
        crashed.crash_at(ops as u64);
        workload(&crashed).unwrap_err();
        for loss in [DROP, KEEP, PowerLoss::Random(1), PowerLoss::Random(2)] {
            let (image, machine) = (whole.reboot_after(ops as u64, loss), crashed.reboot(loss));
            assert_eq!(image.files(), machine.files(), "{loss:?} in {op:?}");
            for (file, _) in image.files() {
                assert_eq!(image.read_file(&file).unwrap(), machine.read_file(&file).unwrap(), "{loss:?} in {op:?}");
            }
        }
        synced += 1;
    }
    assert_eq!(synced, 4);
    let settled: Vec<u64> = (0..=whole.ops()).filter(|ops| whole.settled_after(*ops)).collect();
    assert_eq!(settled, [0, 1, 12], "an empty disk, its folder, and when the last name was synced");
}

#[test]
fn reads_fail_as_calls() {
    let env = SimEnv::new(1);
    env.create_dir_all(Path::new("/db")).unwrap();
    let file = env.open(&path("a"), OpenMode::CreateNew).unwrap();
    file.write_at(0, b"0123").unwrap();
    let ops = env.ops();
    env.fail_call(env.calls(), io::ErrorKind::UnexpectedEof, Repeat::Once);
    let mut buffer = *b"----";
    assert_eq!(file.read_at(0, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(&buffer, b"01--", "a short read");
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"0123", "once");
    env.fail_call(env.calls(), io::ErrorKind::Other, Repeat::Forever);
    assert!(env.list(Path::new("/db")).is_err() && file.len().is_err() && file.sync().is_err());
    assert!(env.open(&path("a"), OpenMode::Read).is_err());
    env.clear_faults();
    assert_eq!(env.list(Path::new("/db")).unwrap(), ["a"]);
    assert_eq!(env.ops(), ops + 1, "of these the sync alone is an operation");
}
