//! RocksDB 7.8 through its C interface, loaded when asked for, with the settings that `db_bench` has.
//!
//! For work that `db_bench` does not know, or whose every operation is to be timed as ours are. A commit that is not
//! durable is handed to the operating system.

#![expect(unsafe_code, reason = "the engine is in C++")]

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use libloading::Library;

use super::{Peer, Session, Store, Tuning};
use crate::data::Key;
use crate::works::Work;

const LIBRARIES: [&str; 3] = ["librocksdb.so.7.8", "librocksdb.so", "librocksdb.so.7"];
const LZ4: c_int = 4;

type Pointer = *mut c_void;

/// Declares the functions used and how to find them.
macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Api { $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Api {
            fn load(library: &Library) -> Result<Api, libloading::Error> {
                // SAFETY: the types are those of rocksdb/c.h, which has kept them since its first version.
                unsafe { Ok(Api { $($name: *library.get(concat!("rocksdb_", stringify!($name), "\0").as_bytes())?,)* }) }
            }
        }
    };
}

functions! {
    options_create() -> Pointer;
    options_set_create_if_missing(Pointer, c_uchar);
    options_set_compression(Pointer, c_int);
    options_set_write_buffer_size(Pointer, usize);
    options_set_enable_pipelined_write(Pointer, c_uchar);
    options_set_max_background_jobs(Pointer, c_int);
    options_set_block_based_table_factory(Pointer, Pointer);
    block_based_options_create() -> Pointer;
    block_based_options_set_block_cache(Pointer, Pointer);
    block_based_options_set_filter_policy(Pointer, Pointer);
    cache_create_lru(usize) -> Pointer;
    filterpolicy_create_bloom_full(f64) -> Pointer;
    open(Pointer, *const c_char, *mut *mut c_char) -> Pointer;
    close(Pointer);
    writeoptions_create() -> Pointer;
    writeoptions_set_sync(Pointer, c_uchar);
    writeoptions_destroy(Pointer);
    readoptions_create() -> Pointer;
    readoptions_destroy(Pointer);
    put(Pointer, Pointer, *const u8, usize, *const u8, usize, *mut *mut c_char);
    get_pinned(Pointer, Pointer, *const u8, usize, *mut *mut c_char) -> Pointer;
    pinnableslice_value(Pointer, *mut usize) -> *const u8;
    pinnableslice_destroy(Pointer);
    create_iterator(Pointer, Pointer) -> Pointer;
    iter_destroy(Pointer);
    iter_seek(Pointer, *const u8, usize);
    iter_valid(Pointer) -> c_uchar;
    iter_next(Pointer);
    iter_key(Pointer, *mut usize) -> *const u8;
    iter_value(Pointer, *mut usize) -> *const u8;
    flushoptions_create() -> Pointer;
    flush(Pointer, Pointer, *mut *mut c_char);
    compact_range(Pointer, *const u8, usize, *const u8, usize);
    property_value(Pointer, *const c_char) -> *mut c_char;
    free(Pointer);
}

fn api() -> Option<&'static Api> {
    static API: OnceLock<Option<Api>> = OnceLock::new();
    API.get_or_init(|| {
        // SAFETY: loading it runs its initialisers and nothing else.
        let library = LIBRARIES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
        let api = Api::load(&library).ok()?;
        // Its threads may outlive everything we hold.
        std::mem::forget(library);
        Some(api)
    })
    .as_ref()
}

fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T> {
    let mut error: *mut c_char = std::ptr::null_mut();
    let result = call(&mut error);
    if error.is_null() {
        return Ok(result);
    }
    // SAFETY: the library reports an error as a string that the caller owns; leaked, as it ends the run.
    bail!("rocksdb: {}", unsafe { CStr::from_ptr(error) }.to_string_lossy())
}

pub struct RocksDb;

struct Open {
    api: &'static Api,
    db: Pointer,
}

// SAFETY: a RocksDB database may be used by any number of threads.
unsafe impl Sync for Open {}

impl Peer for RocksDb {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn missing(&self) -> Option<String> {
        api().is_none().then(|| "no librocksdb (Debian: librocksdb7.8)".to_owned())
    }

    fn does(&self, _: Work) -> bool {
        true
    }

    fn open(&self, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>> {
        let api = api().context("librocksdb is not there")?;
        let path = CString::new(dir.to_string_lossy().as_bytes())?;
        // SAFETY: every pointer comes from the call that makes it, and the database takes what it needs of them.
        let db = unsafe {
            let table = (api.block_based_options_create)();
            (api.block_based_options_set_block_cache)(table, (api.cache_create_lru)(tuning.cache_bytes as usize));
            (api.block_based_options_set_filter_policy)(table, (api.filterpolicy_create_bloom_full)(10.0));
            let options = (api.options_create)();
            (api.options_set_create_if_missing)(options, 1);
            (api.options_set_compression)(options, LZ4);
            (api.options_set_write_buffer_size)(options, tuning.memtable_bytes as usize);
            (api.options_set_enable_pipelined_write)(options, 1);
            (api.options_set_max_background_jobs)(options, 2);
            (api.options_set_block_based_table_factory)(options, table);
            checked(|error| (api.open)(options, path.as_ptr(), error))?
        };
        Ok(Box::new(Open { api, db }))
    }

    fn is_log(&self, name: &str) -> bool {
        name.ends_with(".log")
    }
}

impl Open {
    fn property(&self, name: &CStr) -> Result<u64> {
        // SAFETY: an unknown property yields a null pointer, a known one a string that we own.
        unsafe {
            let value = (self.api.property_value)(self.db, name.as_ptr());
            if value.is_null() {
                return Err(anyhow!("rocksdb has no property {name:?}"));
            }
            let number = CStr::from_ptr(value).to_str()?.parse();
            (self.api.free)(value.cast());
            Ok(number?)
        }
    }
}

impl Store for Open {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        // SAFETY: as in `open`; destroyed with the session.
        let (write, read) = unsafe { ((self.api.writeoptions_create)(), (self.api.readoptions_create)()) };
        unsafe { (self.api.writeoptions_set_sync)(write, c_uchar::from(durable)) };
        Ok(Box::new(Access { open: self, write, read }))
    }

    fn load(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        let mut session = self.session(false)?;
        for (key, value) in rows {
            session.put(&key, &value)?;
        }
        Ok(())
    }

    fn settle(&self, whole: bool) -> Result<()> {
        // SAFETY: the database is open; null keys mean everything.
        unsafe {
            checked(|error| (self.api.flush)(self.db, (self.api.flushoptions_create)(), error))?;
            if whole {
                (self.api.compact_range)(self.db, std::ptr::null(), 0, std::ptr::null(), 0);
            }
        }
        while self.property(c"rocksdb.compaction-pending")? > 0
            || self.property(c"rocksdb.num-running-compactions")? > 0
            || self.property(c"rocksdb.num-running-flushes")? > 0
        {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { (self.api.close)(self.db) }
    }
}

struct Access<'a> {
    open: &'a Open,
    write: Pointer,
    read: Pointer,
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        // SAFETY: made by the session and used by it alone.
        unsafe {
            (self.open.api.writeoptions_destroy)(self.write);
            (self.open.api.readoptions_destroy)(self.read);
        }
    }
}

impl Session for Access<'_> {
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let (api, db) = (self.open.api, self.open.db);
        // SAFETY: key and value are copied before the call returns.
        checked(|error| unsafe {
            (api.put)(db, self.write, key.as_ptr(), key.len(), value.as_ptr(), value.len(), error);
        })
    }

    fn get(&mut self, key: &Key) -> Result<bool> {
        let (api, db) = (self.open.api, self.open.db);
        // SAFETY: a value that was found is pinned until it is destroyed.
        unsafe {
            let value = checked(|error| (api.get_pinned)(db, self.read, key.as_ptr(), key.len(), error))?;
            if value.is_null() {
                return Ok(false);
            }
            let mut bytes = 0;
            std::hint::black_box(((api.pinnableslice_value)(value, &mut bytes), bytes));
            (api.pinnableslice_destroy)(value);
        }
        Ok(true)
    }

    fn scan(&mut self, key: &Key, count: usize) -> Result<usize> {
        let api = self.open.api;
        let (mut found, mut bytes) = (0, 0);
        // SAFETY: key and value are valid while the iterator stands on them.
        unsafe {
            let iterator = (api.create_iterator)(self.open.db, self.read);
            (api.iter_seek)(iterator, key.as_ptr(), key.len());
            while found < count && (api.iter_valid)(iterator) != 0 {
                std::hint::black_box((api.iter_key)(iterator, &mut bytes));
                std::hint::black_box((api.iter_value)(iterator, &mut bytes));
                (api.iter_next)(iterator);
                found += 1;
            }
            (api.iter_destroy)(iterator);
        }
        Ok(found)
    }
}
