//! `Error`: what a statement's failure looks like to a client: SQLSTATE, message, detail, hint.
//!
//! The message says what and where, the hint what to do. Errors of the stores and of DataFusion are translated here and
//! nowhere else; the original stays reachable as the source.
//!
//! Deliberately not here: words for a single statement's rule, which stand beside the rule.

mod datafusion;
pub(crate) mod near;

use std::fmt;
use std::sync::Arc;

use strata_oltp::Error as StoreError;

pub(crate) use self::datafusion::{parser_message, several_rows};

/// Result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of failure: the SQLSTATE codes of PostgreSQL that Strata uses, one per distinct reaction of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlState {
    /// `22000`: a value cannot be processed.
    DataException,
    /// `22001`: text longer than its column allows.
    StringTooLong,
    /// `21000`: a statement would change one row twice, or a subquery gave several rows.
    CardinalityViolation,
    /// `22003`: a number does not fit its type.
    NumericOutOfRange,
    /// `22007`: text that does not read as a date, time or interval.
    InvalidDatetime,
    /// `22008`: a date or time that does not exist, or that its type cannot hold.
    DatetimeOutOfRange,
    /// `22011`: a negative length of a substring.
    InvalidSubstring,
    /// `22012`: division by zero.
    DivisionByZero,
    /// `2201E`: the logarithm of a number that has none.
    InvalidLogarithm,
    /// `2201F`: a power or root that has no value.
    InvalidPower,
    /// `22021`: bytes that are no text in UTF-8.
    InvalidEncoding,
    /// `22023`: a parameter or option has a value that is not allowed.
    InvalidParameter,
    /// `22025`: a pattern with an escape character where none may be.
    InvalidEscape,
    /// `26000`: no prepared statement of this name.
    UndefinedPrepared,
    /// `2200H`: a sequence has no numbers left.
    SequenceLimit,
    /// `22P02`: text that does not read as the wanted type.
    InvalidText,
    /// `22P04`: a file of COPY that is not in the format it should have.
    BadCopyFormat,
    /// `23502`: NULL in a key or NOT NULL column.
    NotNullViolation,
    /// `23503`: a row would refer to one that does not exist.
    ForeignKeyViolation,
    /// `23505`: a row with this key exists.
    UniqueViolation,
    /// `23514`: a row that a CHECK constraint refuses.
    CheckViolation,
    /// `25001`: not allowed while a transaction is open.
    ActiveTransaction,
    /// `25006`: the transaction may only read.
    ReadOnlyTransaction,
    /// `25P01`: needs an open transaction.
    NoActiveTransaction,
    /// `25P02`: the transaction failed earlier and only waits for its end.
    FailedTransaction,
    /// `25P03`: a transaction waited too long for its next statement.
    IdleInTransaction,
    /// `2BP01`: other objects still depend on this one.
    DependentObjects,
    /// `3B001`: no such savepoint.
    InvalidSavepoint,
    /// `3F000`: no such schema.
    UndefinedSchema,
    /// `40001`: a concurrent transaction won; retry.
    SerializationFailure,
    /// `40P01`: a circle of waiting transactions; retry.
    DeadlockDetected,
    /// `42000`: the statement makes no sense, for a reason without its own code.
    InvalidStatement,
    /// `42501`: the server was not given the right to do so.
    InsufficientPrivilege,
    /// `42601`: syntax.
    Syntax,
    /// `42602`: a name that users may not give.
    InvalidName,
    /// `42701`: a column named twice.
    DuplicateColumn,
    /// `42702`: a name that could mean several columns.
    AmbiguousColumn,
    /// `42703`: no such column.
    UndefinedColumn,
    /// `42704`: no such type or other object.
    UndefinedObject,
    /// `42710`: a constraint or other object of this name exists already.
    DuplicateObject,
    /// `42803`: a column outside of aggregates that is not grouped by.
    GroupingError,
    /// `42804`: types do not fit.
    DatatypeMismatch,
    /// `42809`: the name means something of another kind.
    WrongObjectType,
    /// `42883`: no such function or procedure.
    UndefinedFunction,
    /// `42P01`: no such table.
    UndefinedTable,
    /// `42P06`: the schema exists already.
    DuplicateSchema,
    /// `42P05`: a prepared statement of this name exists already.
    DuplicatePrepared,
    /// `42P07`: the table exists already.
    DuplicateTable,
    /// `42P16`: a table definition that cannot be.
    InvalidTableDefinition,
    /// `42P10`: columns that no unique constraint has, or that cannot be meant here.
    InvalidColumnReference,
    /// `428C9`: a value for a column whose values are always generated.
    GeneratedAlways,
    /// `42830`: a foreign key whose columns do not fit those it refers to.
    InvalidForeignKey,
    /// `0A000`: known, but not built.
    FeatureNotSupported,
    /// `08P01`: a message that does not fit the one before, as too few parameters.
    ProtocolViolation,
    /// `53100`: the disk is full.
    DiskFull,
    /// `53200`: a memory budget is exhausted.
    OutOfMemory,
    /// `54001`: the statement is nested too deeply.
    StatementTooComplex,
    /// `55000`: the directory or object is not in the needed state.
    NotInPrerequisiteState,
    /// `55006`: in use by another process.
    ObjectInUse,
    /// `55P03`: a row is locked by another transaction.
    LockNotAvailable,
    /// `57014`: cancelled, by the client or by `statement_timeout`.
    QueryCanceled,
    /// `57P03`: closed.
    CannotConnectNow,
    /// `58P01`: no such file.
    UndefinedFile,
    /// `58030`: the operating system refused a file operation.
    IoError,
    /// `XX000`: our own mistake.
    Internal,
    /// `XX001`: stored bytes are damaged.
    DataCorrupted,
}

impl SqlState {
    /// The five-character code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            SqlState::DataException => "22000",
            SqlState::StringTooLong => "22001",
            SqlState::CardinalityViolation => "21000",
            SqlState::NumericOutOfRange => "22003",
            SqlState::InvalidDatetime => "22007",
            SqlState::DatetimeOutOfRange => "22008",
            SqlState::InvalidSubstring => "22011",
            SqlState::InvalidLogarithm => "2201E",
            SqlState::InvalidPower => "2201F",
            SqlState::InvalidEscape => "22025",
            SqlState::DivisionByZero => "22012",
            SqlState::InvalidEncoding => "22021",
            SqlState::InvalidParameter => "22023",
            SqlState::UndefinedPrepared => "26000",
            SqlState::SequenceLimit => "2200H",
            SqlState::InvalidText => "22P02",
            SqlState::BadCopyFormat => "22P04",
            SqlState::NotNullViolation => "23502",
            SqlState::ForeignKeyViolation => "23503",
            SqlState::UniqueViolation => "23505",
            SqlState::CheckViolation => "23514",
            SqlState::ActiveTransaction => "25001",
            SqlState::ReadOnlyTransaction => "25006",
            SqlState::NoActiveTransaction => "25P01",
            SqlState::FailedTransaction => "25P02",
            SqlState::IdleInTransaction => "25P03",
            SqlState::DependentObjects => "2BP01",
            SqlState::InvalidSavepoint => "3B001",
            SqlState::UndefinedSchema => "3F000",
            SqlState::SerializationFailure => "40001",
            SqlState::DeadlockDetected => "40P01",
            SqlState::InvalidStatement => "42000",
            SqlState::InsufficientPrivilege => "42501",
            SqlState::Syntax => "42601",
            SqlState::InvalidName => "42602",
            SqlState::DuplicateColumn => "42701",
            SqlState::AmbiguousColumn => "42702",
            SqlState::UndefinedColumn => "42703",
            SqlState::UndefinedObject => "42704",
            SqlState::DuplicateObject => "42710",
            SqlState::GroupingError => "42803",
            SqlState::DatatypeMismatch => "42804",
            SqlState::WrongObjectType => "42809",
            SqlState::UndefinedFunction => "42883",
            SqlState::UndefinedTable => "42P01",
            SqlState::DuplicateSchema => "42P06",
            SqlState::DuplicatePrepared => "42P05",
            SqlState::DuplicateTable => "42P07",
            SqlState::InvalidTableDefinition => "42P16",
            SqlState::InvalidColumnReference => "42P10",
            SqlState::GeneratedAlways => "428C9",
            SqlState::InvalidForeignKey => "42830",
            SqlState::FeatureNotSupported => "0A000",
            SqlState::ProtocolViolation => "08P01",
            SqlState::DiskFull => "53100",
            SqlState::OutOfMemory => "53200",
            SqlState::StatementTooComplex => "54001",
            SqlState::NotInPrerequisiteState => "55000",
            SqlState::ObjectInUse => "55006",
            SqlState::LockNotAvailable => "55P03",
            SqlState::QueryCanceled => "57014",
            SqlState::CannotConnectNow => "57P03",
            SqlState::UndefinedFile => "58P01",
            SqlState::IoError => "58030",
            SqlState::Internal => "XX000",
            SqlState::DataCorrupted => "XX001",
        }
    }
}

/// A failed statement. Cheap to clone; `Display` is the message alone, [`Error::report`] everything.
#[derive(Clone)]
pub struct Error(Box<Fields>);

#[derive(Clone)]
struct Fields {
    state: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with its kind and message; lower-case, without a full stop.
    #[must_use]
    pub fn new(state: SqlState, message: impl Into<String>) -> Error {
        Error(Box::new(Fields {
            state,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            source: None,
        }))
    }

    /// Adds facts that help to find the place.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Error {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds what the user could do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds what the user could do, if there is anything to say.
    #[must_use]
    pub fn with_hint_opt(mut self, hint: Option<String>) -> Error {
        self.0.hint = hint.or(self.0.hint.take());
        self
    }

    /// Adds where in the statement's input it happened.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Error {
        self.0.context = Some(context.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Kind of failure.
    #[must_use]
    pub fn state(&self) -> SqlState {
        self.0.state
    }

    /// Five-character code of [`Error::state`].
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        self.0.state.code()
    }

    /// What went wrong and where.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Facts that help to find the place.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// What the user could do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Where in the statement's input it happened, such as the line of a file.
    #[must_use]
    pub fn context(&self) -> Option<&str> {
        self.0.context.as_deref()
    }

    /// Code, message, detail, hint and context, one line each, as PostgreSQL's shell prints them.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("ERROR {}: {}", self.sqlstate(), self.message());
        for (label, part) in [("DETAIL", self.detail()), ("HINT", self.hint()), ("CONTEXT", self.context())] {
            if let Some(part) = part {
                text.push_str(&format!("\n{label}: {part}"));
            }
        }
        text
    }

    /// Known to SQL, not built here.
    #[must_use]
    pub fn unsupported(what: impl fmt::Display) -> Error {
        Error::new(SqlState::FeatureNotSupported, format!("{what} is not supported"))
    }

    /// Something that only our own mistake can cause.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(SqlState::Internal, message)
    }

    /// No table of this name; `known` are the names it could have meant.
    #[must_use]
    pub fn undefined_table<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        let bare = name.rsplit('.').next().unwrap_or(name);
        let hint = near::nearest(bare, known).map(|near| format!("did you mean {near}?"));
        Error::new(SqlState::UndefinedTable, format!("table {name} does not exist")).with_hint_opt(hint)
    }

    /// No column of this name in `place`; `known` are the names it could have meant.
    #[must_use]
    pub fn undefined_column<'a>(name: &str, place: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
        let known: Vec<&str> = known.into_iter().collect();
        let near = near::nearest(name, known.iter().copied()).map(|near| format!("did you mean {near}?"));
        let listed = || (!known.is_empty()).then(|| format!("its columns are {}", known.join(", ")));
        let place = if place.is_empty() { String::new() } else { format!(" of {place}") };
        Error::new(SqlState::UndefinedColumn, format!("column {name}{place} does not exist"))
            .with_hint_opt(near.or_else(listed))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// Translates a store's error without taking it, because it may sit inside a shared DataFusion error.
pub(crate) fn from_store(error: &StoreError) -> Error {
    let (state, hint) = match error {
        StoreError::Corrupt { .. } => {
            (SqlState::DataCorrupted, "restore the file from a checkpoint or backup; `strata verify` lists all damage")
        }
        StoreError::Conflict { .. } => (SqlState::SerializationFailure, "run the transaction again"),
        StoreError::Deadlock { .. } => (SqlState::DeadlockDetected, "roll back, then run the transaction again"),
        StoreError::LockTimeout { .. } => {
            (SqlState::LockNotAvailable, "wait for the other transaction, then try again")
        }
        StoreError::Reshaped { .. } => (SqlState::SerializationFailure, "run the transaction again"),
        StoreError::HistoryGone { .. } => (SqlState::InvalidParameter, "ask for a later commit"),
        StoreError::Unreachable { .. } => (SqlState::InvalidParameter, "ask for an earlier point"),
        StoreError::LimitExceeded { .. } => (
            SqlState::OutOfMemory,
            "split the work into smaller transactions, wait for other work to finish, or raise the memory budget",
        ),
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            (SqlState::DiskFull, "free space on the disk; reopen the database if it still refuses writes")
        }
        StoreError::Io { .. } => (SqlState::IoError, "see the cause; nothing acknowledged is lost"),
        StoreError::Invalid(_) => return Error::new(SqlState::InvalidParameter, error.to_string()),
        StoreError::NewerFormat { .. } => (SqlState::NotInPrerequisiteState, "upgrade Strata"),
        StoreError::Locked { .. } => (SqlState::ObjectInUse, "close the other process, or connect to its server"),
        StoreError::Poisoned { .. } => (SqlState::IoError, "repair the cause, then reopen the database"),
        StoreError::Malformed { .. } => (SqlState::DataCorrupted, "run `strata verify` on the directory"),
        StoreError::Closed => (SqlState::CannotConnectNow, "open the database again"),
    };
    let message = match error {
        StoreError::Io { source, .. } => format!("{error}: {source}"),
        StoreError::Poisoned { reason } if is_disk_full(reason) => {
            return Error::new(SqlState::DiskFull, error.to_string())
                .with_hint("free space on the disk; reopen the database if it still refuses writes");
        }
        _ => error.to_string(),
    };
    Error::new(state, message).with_hint(hint)
}

/// A log that failed keeps its reason only as text: the operating system's, or the standard library's.
fn is_disk_full(reason: &str) -> bool {
    reason.contains("No space left") || reason.contains("no storage space")
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        from_store(&error).with_source(error)
    }
}
