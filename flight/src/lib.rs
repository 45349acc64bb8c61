//! Arrow Flight SQL over the sessions of `strata-sql`. The protocol is not served yet; this crate only holds its place.
