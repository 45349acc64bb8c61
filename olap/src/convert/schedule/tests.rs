//! Golden plans: one line of shapes in, one plan out.
