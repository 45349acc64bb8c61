//! Errors of the column side: the row store's own [`Error`], because the reactions of a caller are the same.
//!
//! Parquet and Arrow report damage as text. Here it gets back its file: a failure to decode a stored file is
//! [`Error::Corrupt`] (P6), whatever layer noticed it, and one of our errors that travelled through Parquet code comes
//! out unchanged.

use std::path::Path;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use strata_oltp::FileKind;

pub use strata_oltp::{Error, Result};

/// What a failure while reading the segment `file` means: our own error if one is inside, otherwise corruption.
#[must_use]
pub fn reading(file: &Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::corrupt(FileKind::Segment, file, 0, other.to_string()),
        },
        other => Error::corrupt(FileKind::Segment, file, 0, other.to_string()),
    }
}

/// [`reading`] for errors that Arrow passed on.
#[must_use]
pub fn reading_arrow(file: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast::<ParquetError>() {
            Ok(parquet) => reading(file, *parquet),
            Err(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Error::corrupt(FileKind::Segment, file, 0, other.to_string()),
            },
        },
        other => Error::corrupt(FileKind::Segment, file, 0, other.to_string()),
    }
}

/// What a failure while writing the segment `file` means.
#[must_use]
pub fn writing(file: &Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(inner) => match inner.downcast::<std::io::Error>() {
                Ok(io) => Error::io("write", file, *io),
                Err(other) => Error::Invalid(format!("cannot encode columns: {other}")),
            },
        },
        other => Error::Invalid(format!("cannot encode columns: {other}")),
    }
}

/// Wraps one of our errors so that it can travel through Parquet code.
#[must_use]
pub fn to_parquet(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// An Arrow failure that is a bug or a bad request, not damage.
#[must_use]
pub fn invalid(error: &ArrowError) -> Error {
    Error::Invalid(format!("cannot build columns: {error}"))
}
