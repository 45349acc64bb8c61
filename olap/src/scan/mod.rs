//! The scan that unites segments with the row part; the only folder of this crate that names DataFusion.
