//! Marks against a row-at-a-time oracle, and their file against damage.
