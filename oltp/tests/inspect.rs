//! What `inspect` says about each kind of file, sound and damaged, in a goldenscript; and that no byte makes it panic.
//!
//! Refresh with `UPDATE_GOLDENFILES=1`, then read the difference as code.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goldenscript::{Command, Context, Runner};
use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, key, row};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::inspect::{Dump, inspect};
use strata_oltp::{Db, FileKind, Options, Result};

/// A database that a script writes, closes, damages and looks at.
struct Looker {
    env: SimEnv,
    db: Option<Db>,
}

impl Looker {
    fn new() -> Looker {
        Looker { env: SimEnv::new(7), db: None }
    }

    fn db(&mut self) -> &Db {
        let env: Arc<dyn Env> = Arc::new(self.env.clone());
        let options = Options { wal: harness::small_log(), ..Options::default() };
        self.db.get_or_insert_with(|| harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap())
    }

    fn write(&mut self, from: i32, amount: i64) {
        let mut transaction = self.db().begin().unwrap();
        for id in from..from + 3 {
            transaction.put(ROW, key(ROW, id), row(ROW, id, amount)).unwrap();
        }
        transaction.delete(HYBRID, key(HYBRID, from)).unwrap();
        transaction.commit(Durability::Durable).unwrap();
    }
}

/// The dump as text, and how many faults it found.
fn dump(env: &SimEnv, path: &Path) -> Result<(String, usize)> {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let mut dump = Dump::new(&mut line, false);
    inspect(&env, path, None, &mut dump)?;
    let faults = dump.faults().len();
    Ok((text, faults))
}

impl Runner for Looker {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut next = || args.next_pos().map(str::to_owned).ok_or("one more argument is needed");
        match command.name.as_str() {
            "write" => self.write(next()?.parse()?, next()?.parse()?),
            "flush" => self.db().flush(None)?,
            "close" => self.db.take().ok_or("not open")?.close()?,
            "damage" => self.env.corrupt(&Path::new(DIR).join(next()?), next()?.parse()?, 1)?,
            "remove" => self.env.remove(&Path::new(DIR).join(next()?))?,
            "rename" => self.env.rename(&Path::new(DIR).join(next()?), &Path::new(DIR).join(next()?))?,
            "inspect" => return Ok(dump(&self.env, &Path::new(DIR).join(next().unwrap_or_default()))?.0),
            name => return Err(format!("unknown command {name}").into()),
        }
        Ok(String::new())
    }
}

#[test]
fn dumps_of_files_and_folders() {
    goldenscript::run(&mut Looker::new(), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/inspect/dumps")).unwrap();
}

/// A database with a log, a manifest and runs of several blocks.
fn small_database() -> SimEnv {
    let mut looker = Looker::new();
    for from in 0..60 {
        looker.write(from * 3, i64::from(from));
    }
    looker.db().flush(None).unwrap();
    looker.write(0, 9);
    looker.db.take().unwrap().close().unwrap();
    looker.env
}

#[test]
fn any_flipped_byte_and_any_cut_is_dumped_without_a_panic_and_mostly_noticed() {
    let env = small_database();
    for (path, bytes) in env.files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some((kind, _)) = FileKind::parse(&name) else { continue };
        let original = env.read_file(&path).unwrap();
        assert_eq!(dump(&env, &path).unwrap().1, 0, "{name} is sound");
        let (mut noticed, mut count) = (0, 0);
        for offset in (0..bytes).step_by(7) {
            let offset = usize::try_from(offset).unwrap();
            let mut damaged = original.clone();
            damaged[offset] ^= 0x10;
            env.write_file(&path, &damaged).unwrap();
            // The watermark at the end of a manifest is a write that nothing proves.
            if kind == FileKind::Manifest && offset as u64 >= bytes - 40 {
                continue;
            }
            count += 1;
            noticed += usize::from(dump(&env, &path).unwrap().1 > 0);
            if offset % 3 == 0 {
                env.write_file(&path, &original[..offset]).unwrap();
                drop(dump(&env, &path));
            }
        }
        env.write_file(&path, &original).unwrap();
        // Zeros behind the last frame of a log are covered by nothing.
        if kind != FileKind::Wal {
            assert_eq!(noticed, count, "every byte of {name} is under a checksum");
        }
    }
}

#[test]
fn foreign_files_are_refused_and_foreign_bytes_under_our_names_are_faults() {
    let env = SimEnv::new(1);
    env.create_dir_all(Path::new(DIR)).unwrap();
    let text = b"Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor".repeat(200);
    for name in ["letter.txt", "1.run", "manifest-0000000001", "0000000001.wal", "0000000001.run"] {
        let path = PathBuf::from(DIR).join(name);
        env.write_file(&path, &text).unwrap();
        match dump(&env, &path) {
            Ok((dump, faults)) => assert!(faults > 0, "{dump}"),
            Err(error) => assert!(["letter.txt", "1.run"].contains(&name), "{error}"),
        }
    }
}
