//! The files of `olap/src/segment` that decode.

#[path = "../../src/segment/file.rs"]
pub mod file;
#[path = "../../src/segment/filter.rs"]
pub mod filter;
#[path = "../../src/segment/keys.rs"]
pub mod keys;
#[path = "../../src/segment/meta.rs"]
pub mod meta;
#[path = "../../src/segment/wire.rs"]
pub mod wire;
