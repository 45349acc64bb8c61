//! Compiles the row store's sources with the scheduler's locks: see `oltp/src/sync.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=shuttle");
}
