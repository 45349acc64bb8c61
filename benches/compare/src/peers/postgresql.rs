//! PostgreSQL: a cluster of its own per folder, a Unix socket, prepared statements through libpq, as `pgbench -M prepared`.
//!
//! Durable means `synchronous_commit = on`; otherwise it is `off`, where a commit may be lost for about a fifth of a
//! second. `fsync` and `full_page_writes` are on, checkpoints far apart. The server runs as another user if we are root,
//! which it refuses to be, and inherits our scheduling class.

#![expect(unsafe_code, reason = "its client library is in C")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use libloading::Library;

use super::{Peer, Session, Store, Tuning};
use crate::data::Key;
use crate::machine;
use crate::works::{Place, Work};

const PUT: &str = "INSERT INTO rows VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value";
const GET: &str = "SELECT value FROM rows WHERE key = $1";
const SCAN: &str = "SELECT key, value FROM rows WHERE key >= $1 ORDER BY key LIMIT $2";
const BYTEA: u32 = 17;
const BIGINT: u32 = 20;
const COMMAND_OK: c_int = 1;
const TUPLES_OK: c_int = 2;
const BINARY: c_int = 1;

type Pointer = *mut c_void;

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[expect(non_snake_case, reason = "names of the library")]
        struct Api { $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Api {
            fn load(library: &Library) -> Result<Api, libloading::Error> {
                // SAFETY: the types are those of libpq-fe.h.
                unsafe { Ok(Api { $($name: *library.get(concat!(stringify!($name), "\0").as_bytes())?,)* }) }
            }
        }
    };
}

functions! {
    PQconnectdb(*const c_char) -> Pointer;
    PQstatus(Pointer) -> c_int;
    PQerrorMessage(Pointer) -> *const c_char;
    PQexec(Pointer, *const c_char) -> Pointer;
    PQprepare(Pointer, *const c_char, *const c_char, c_int, *const u32) -> Pointer;
    PQexecPrepared(Pointer, *const c_char, c_int, *const *const u8, *const c_int, *const c_int, c_int) -> Pointer;
    PQresultStatus(Pointer) -> c_int;
    PQntuples(Pointer) -> c_int;
    PQgetvalue(Pointer, c_int, c_int) -> *const c_char;
    PQputCopyData(Pointer, *const u8, c_int) -> c_int;
    PQputCopyEnd(Pointer, *const c_char) -> c_int;
    PQgetResult(Pointer) -> Pointer;
    PQclear(Pointer);
    PQfinish(Pointer);
}

fn api() -> Option<&'static Api> {
    static API: OnceLock<Option<Api>> = OnceLock::new();
    API.get_or_init(|| {
        // SAFETY: loading it runs its initialisers and nothing else.
        let library = unsafe { Library::new("libpq.so.5") }.ok()?;
        let api = Api::load(&library).ok()?;
        std::mem::forget(library);
        Some(api)
    })
    .as_ref()
}

/// The newest server's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(version)?;
    Some(newest.join("bin")).filter(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists())
}

pub struct PostgreSql;

impl Peer for PostgreSql {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn missing(&self) -> Option<String> {
        if programs().is_none() {
            return Some("no server (Debian: postgresql)".to_owned());
        }
        api().is_none().then(|| "no libpq.so.5 (Debian: libpq5)".to_owned())
    }

    fn does(&self, work: Work) -> bool {
        !matches!(work, Work::PointReads(Place::Memtable))
    }

    fn open(&self, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>> {
        let dir = std::path::absolute(dir)?;
        let server = Server { bin: programs().context("no server")?, data: dir.join("data"), socket: socket_dir(&dir) };
        let is_new = !server.data.exists();
        if is_new {
            server.create(&dir)?;
        }
        server.start(tuning)?;
        let store = Open { server };
        if is_new {
            store.connect()?.run("CREATE TABLE rows (key bytea PRIMARY KEY, value bytea NOT NULL)")?;
        }
        Ok(Box::new(store))
    }

    fn is_log(&self, name: &str) -> bool {
        name.starts_with("data/pg_wal/")
    }
}

/// Socket names are short; folders of databases need not be.
fn socket_dir(dir: &Path) -> PathBuf {
    let name = dir.to_string_lossy().bytes().fold(7u64, |hash, byte| crate::data::mix(hash ^ u64::from(byte)));
    std::env::temp_dir().join(format!("strata-compare-{name:x}"))
}

struct Server {
    bin: PathBuf,
    data: PathBuf,
    socket: PathBuf,
}

impl Server {
    /// A program of the server's, as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-D").arg(&self.data).current_dir("/");
        if let Some((uid, gid)) = machine::plain_user() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn run(mut command: Command) -> Result<()> {
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
        Ok(())
    }

    fn create(&self, dir: &Path) -> Result<()> {
        machine::give_to_plain_user(dir)?;
        let mut command = self.command("initdb");
        command.args(["--username=strata", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        Server::run(command)
    }

    fn start(&self, tuning: Tuning) -> Result<()> {
        std::fs::create_dir_all(&self.socket)?;
        machine::give_to_plain_user(&self.socket)?;
        let max_wal_gib = if tuning.checkpoints { 4 } else { 64 };
        let settings = [
            format!("shared_buffers = {}MB", (tuning.cache_bytes >> 20).max(1)),
            format!("unix_socket_directories = '{}'", self.socket.display()),
            format!("max_wal_size = {max_wal_gib}GB"),
            "listen_addresses = ''".to_owned(),
            "max_connections = 100".to_owned(),
            "fsync = on".to_owned(),
            "synchronous_commit = on".to_owned(),
            "full_page_writes = on".to_owned(),
            "wal_buffers = 16MB".to_owned(),
            "min_wal_size = 1GB".to_owned(),
            "checkpoint_timeout = 1h".to_owned(),
            "max_wal_senders = 0".to_owned(),
            "wal_level = minimal".to_owned(),
            "jit = off".to_owned(),
            "client_min_messages = warning".to_owned(),
            "plan_cache_mode = force_generic_plan".to_owned(),
        ];
        std::fs::write(self.data.join("postgresql.auto.conf"), settings.join("\n") + "\n")?;
        let log = self.socket.join("log");
        let mut command = self.command("pg_ctl");
        command.args(["start", "--wait", "--timeout=600", "--silent"]).arg("-l").arg(&log);
        Server::run(command).with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
    }

    fn pid(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid"))?;
        Ok(text.lines().next().context("an empty postmaster.pid")?.trim().parse()?)
    }
}

struct Open {
    server: Server,
}

impl Open {
    fn connect(&self) -> Result<Connection> {
        let api = api().context("no libpq")?;
        let text = format!("host={} dbname=postgres user=strata", self.server.socket.display());
        let text = CString::new(text)?;
        // SAFETY: the string outlives the call; the connection is owned by the value.
        let connection = Connection { api, handle: unsafe { (api.PQconnectdb)(text.as_ptr()) } };
        // SAFETY: the handle is valid even if connecting failed.
        ensure!(unsafe { (api.PQstatus)(connection.handle) } == 0, "{}", connection.error());
        Ok(connection)
    }
}

impl Store for Open {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        let connection = self.connect()?;
        connection.run(&format!("SET synchronous_commit = {}", if durable { "on" } else { "off" }))?;
        connection.prepare(c"put", PUT, &[BYTEA, BYTEA])?;
        connection.prepare(c"get", GET, &[BYTEA])?;
        connection.prepare(c"scan", SCAN, &[BYTEA, BIGINT])?;
        Ok(Box::new(connection))
    }

    fn load(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        let connection = self.connect()?;
        connection.copy_in(rows)
    }

    fn warm(&self, _: u64) -> Result<()> {
        self.connect()?.run("SELECT pg_prewarm('rows'), pg_prewarm('rows_pkey')")
    }

    fn settle(&self, whole: bool) -> Result<()> {
        let connection = self.connect()?;
        if whole {
            connection.run("VACUUM ANALYZE rows")?;
        }
        connection.run("CHECKPOINT")?;
        connection.run("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
    }

    fn written_bytes(&self) -> Result<u64> {
        machine::written_bytes_of_tree(self.server.pid()?)
    }

    fn kill(&self) {
        if let Ok(pid) = self.server.pid() {
            machine::kill_tree(pid);
            // Where nobody reaps what we have killed it still counts as running; all of it is dead.
            drop(std::fs::remove_file(self.server.data.join("postmaster.pid")));
        }
    }

    fn log_bytes(&self) -> Result<Option<u64>> {
        let query =
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::bigint::text FROM pg_control_checkpoint()";
        self.connect()?.number(query).map(Some)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut command = self.server.command("pg_ctl");
        command.args(["stop", "--mode=fast", "--wait", "--silent"]);
        if let Err(error) = Server::run(command) {
            eprintln!("postgresql: stopping failed: {error:#}");
        }
        drop(std::fs::remove_dir_all(&self.server.socket));
    }
}

struct Connection {
    api: &'static Api,
    handle: Pointer,
}

/// A result, cleared when dropped.
struct Answer<'a> {
    connection: &'a Connection,
    handle: Pointer,
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // SAFETY: ours alone.
        unsafe { (self.connection.api.PQclear)(self.handle) }
    }
}

impl Answer<'_> {
    fn check(self) -> Result<Self> {
        // SAFETY: the handle is valid or null, which counts as a failure.
        let status = unsafe { (self.connection.api.PQresultStatus)(self.handle) };
        ensure!(status == COMMAND_OK || status == TUPLES_OK, "{}", self.connection.error());
        Ok(self)
    }

    fn rows(&self) -> usize {
        // SAFETY: the handle is valid.
        unsafe { (self.connection.api.PQntuples)(self.handle) as usize }
    }
}

impl Connection {
    fn error(&self) -> String {
        // SAFETY: the message is valid until the next call.
        unsafe { CStr::from_ptr((self.api.PQerrorMessage)(self.handle)) }.to_string_lossy().into_owned()
    }

    fn answer(&self, handle: Pointer) -> Result<Answer<'_>> {
        Answer { connection: self, handle }.check()
    }

    fn run(&self, statement: &str) -> Result<()> {
        let statement = CString::new(statement)?;
        // SAFETY: the string outlives the call.
        self.answer(unsafe { (self.api.PQexec)(self.handle, statement.as_ptr()) }).map(drop)
    }

    fn number(&self, query: &str) -> Result<u64> {
        let query = CString::new(query)?;
        // SAFETY: as in `run`; the value is valid as long as the answer.
        unsafe {
            let answer = self.answer((self.api.PQexec)(self.handle, query.as_ptr()))?;
            ensure!(answer.rows() == 1, "one row expected");
            Ok(CStr::from_ptr((self.api.PQgetvalue)(answer.handle, 0, 0)).to_str()?.parse()?)
        }
    }

    fn prepare(&self, name: &CStr, statement: &str, types: &[u32]) -> Result<()> {
        let statement = CString::new(statement)?;
        let count = types.len() as c_int;
        // SAFETY: all of it outlives the call.
        let handle =
            unsafe { (self.api.PQprepare)(self.handle, name.as_ptr(), statement.as_ptr(), count, types.as_ptr()) };
        self.answer(handle).map(drop)
    }

    fn execute<const N: usize>(&self, name: &CStr, values: [&[u8]; N]) -> Result<Answer<'_>> {
        let pointers = values.map(<[u8]>::as_ptr);
        let (lengths, formats) = (values.map(|value| value.len() as c_int), [BINARY; N]);
        // SAFETY: all of it outlives the call.
        self.answer(unsafe {
            (self.api.PQexecPrepared)(
                self.handle,
                name.as_ptr(),
                N as c_int,
                pointers.as_ptr(),
                lengths.as_ptr(),
                formats.as_ptr(),
                BINARY,
            )
        })
    }

    /// `COPY … (FORMAT binary)`: a signature, per row a count of fields and each with its length, an end mark.
    fn copy_in(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        let copy = CString::new("COPY rows FROM STDIN (FORMAT binary)")?;
        // SAFETY: the string outlives the call; the answer says that data is awaited, or an error shows at the end.
        drop(Answer { connection: self, handle: unsafe { (self.api.PQexec)(self.handle, copy.as_ptr()) } });
        let mut buffer = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for (key, value) in rows {
            buffer.extend_from_slice(&2u16.to_be_bytes());
            for field in [&key[..], &value[..]] {
                buffer.extend_from_slice(&(field.len() as u32).to_be_bytes());
                buffer.extend_from_slice(field);
            }
            if buffer.len() > 1 << 20 {
                self.copy_data(&mut buffer)?;
            }
        }
        buffer.extend_from_slice(&u16::MAX.to_be_bytes());
        self.copy_data(&mut buffer)?;
        // SAFETY: ends what `COPY` began.
        unsafe {
            ensure!((self.api.PQputCopyEnd)(self.handle, std::ptr::null()) == 1, "{}", self.error());
            self.answer((self.api.PQgetResult)(self.handle)).map(drop)?;
            let end = (self.api.PQgetResult)(self.handle);
            if !end.is_null() {
                bail!("COPY did not end");
            }
        }
        Ok(())
    }

    fn copy_data(&self, buffer: &mut Vec<u8>) -> Result<()> {
        // SAFETY: the bytes are copied.
        let taken = unsafe { (self.api.PQputCopyData)(self.handle, buffer.as_ptr(), buffer.len() as c_int) };
        ensure!(taken == 1, "{}", self.error());
        buffer.clear();
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: ours alone.
        unsafe { (self.api.PQfinish)(self.handle) }
    }
}

impl Session for Connection {
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.execute(c"put", [&key[..], value]).map(drop)
    }

    fn get(&mut self, key: &Key) -> Result<bool> {
        Ok(self.execute(c"get", [&key[..]])?.rows() == 1)
    }

    fn scan(&mut self, key: &Key, count: usize) -> Result<usize> {
        Ok(self.execute(c"scan", [&key[..], &(count as u64).to_be_bytes()])?.rows())
    }
}
