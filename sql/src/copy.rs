//! COPY: files → rows and rows → files.
//!
//! FROM reads a piece of the file at a time, converts it and writes it as INSERT does, so that defaults, checks, keys and
//! indexes hold as ever; nothing but the transaction's writes stays in memory. A failure names the line and column and
//! leaves nothing of the statement. TO writes a query's rows to a new file beside the one that is meant, and renames it
//! at the end, so that a COPY that fails leaves what was there.
//!
//! Text of values is what our own input and output functions read and write: a CSV file of a table, read again, gives the
//! same rows, NULL and empty text kept apart. As in PostgreSQL, values for columns that are GENERATED ALWAYS are taken.
//!
//! | format | columns by | left to |
//! |---|---|---|
//! | csv, text | place | [`delimited`] and [`records`]: no library tells a quoted field from a bare one, which is what NULL depends on |
//! | json | name | [`objects`]: one object a line, or an array of them |
//! | parquet, arrow | name | [`columnar`]: the formats' own libraries |

mod columnar;
mod delimited;
mod files;
mod load;
mod objects;
mod options;
mod records;
mod unload;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use datafusion::sql::sqlparser::ast;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::statement::copy::{CopyPlace, CopyStatement, CopyWhat};
use crate::statement::parse_own;

pub(crate) use load::load;
pub(crate) use options::Options;
pub(crate) use unload::unload;

pub use files::FileAccess;

/// What is read.
pub(crate) enum Input {
    File(PathBuf),
    /// Bytes as they come; can be read once.
    Stream(Mutex<Option<Box<dyn Read + Send>>>),
}

impl Input {
    /// What `place` means to the engine; `client` stands behind STDIN.
    ///
    /// # Errors
    /// 42501 for a file that may not be read, 0A000 without a client.
    pub(crate) fn new(engine: &Engine, place: &CopyPlace, client: Option<Box<dyn Read + Send>>) -> Result<Input> {
        match (place, client) {
            (CopyPlace::File(path), _) => Ok(Input::File(engine.options().copy_files.permit(path)?)),
            (CopyPlace::Client, Some(stream)) => Ok(Input::Stream(Mutex::new(Some(stream)))),
            (CopyPlace::Client, None) => Err(no_client("STDIN")),
        }
    }

    /// The stream, the first time.
    fn take(&self) -> Option<Box<dyn Read + Send>> {
        match self {
            Input::File(_) => None,
            Input::Stream(stream) => stream.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

/// What is written to.
pub(crate) enum Output<'a> {
    File(PathBuf),
    Stream(&'a mut (dyn Write + Send)),
}

impl<'a> Output<'a> {
    /// As [`Input::new`].
    pub(crate) fn new(
        engine: &Engine,
        place: &CopyPlace,
        client: Option<&'a mut (dyn Write + Send)>,
    ) -> Result<Output<'a>> {
        match (place, client) {
            (CopyPlace::File(path), _) => Ok(Output::File(engine.options().copy_files.permit(path)?)),
            (CopyPlace::Client, Some(stream)) => Ok(Output::Stream(stream)),
            (CopyPlace::Client, None) => Err(no_client("STDOUT")),
        }
    }
}

fn no_client(name: &str) -> Error {
    Error::unsupported(format!("COPY with {name} as a plain statement"))
        .with_hint("give the name of a file; programs call Session::copy_in and Session::copy_out")
}

/// The query whose rows COPY … TO writes.
///
/// # Errors
/// None: the names are looked up later.
pub(crate) fn source_query(copy: &CopyStatement) -> Result<ast::Statement> {
    let (name, columns) = match &copy.what {
        CopyWhat::Query(query) => return Ok(query.as_ref().clone()),
        CopyWhat::Table { name, columns } => (name, columns),
    };
    let quoted = |part: &String| format!("\"{}\"", part.replace('"', "\"\""));
    let columns: Vec<String> = columns.iter().map(quoted).collect();
    let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
    let name: Vec<String> = name.iter().map(quoted).collect();
    parse_own(&format!("SELECT {columns} FROM {}", name.join(".")))
}
