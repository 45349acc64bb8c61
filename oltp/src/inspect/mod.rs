//! Looking at a database from outside, without opening it: text dumps, the log as it grows, and a full check.
//!
//! [`dump`] writes any file or folder as text; [`tail`] follows the log of a running or closed database; [`verify`]
//! checks everything that can be checked. [`log`], [`manifest`], [`run`] and [`values`] read one kind of file each, as far as it can
//! be read, and are what [`crate::repair`] salvages with. The column side's files come in through [`ColdFiles`].
//!
//! Always true:
//! * nothing is changed on disk;
//! * foreign and damaged bytes never panic: what cannot be read becomes a [`Fault`] with file and offset, and reading
//!   goes on behind it where the format allows;
//! * memory is one block, frame or row group, one line of text, and the faults.

pub mod dump;
pub mod fault;

pub mod log;
pub mod manifest;
pub mod run;
pub mod values;

pub mod cold;
pub(crate) mod merge;
pub(crate) mod patient;
pub mod tail;
pub mod verify;

pub use cold::{ColdFiles, OpenSegment, RepairedSegment, SegmentRepair, StoredRow};
pub use dump::{Dump, inspect};
pub use fault::Fault;
pub use tail::{TailEvent, WalTail};
pub use verify::{Verification, verify};
