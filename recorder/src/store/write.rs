//! From rows to columns: statements take one array a column, and PostgreSQL makes rows of them again (`UNNEST`).
//!
//! The statements unnest in a SELECT list, never in FROM: there PostgreSQL would put every array into a store of its own first,
//! which for the 39 columns of a chat takes 29 µs a row instead of 9.

/// One column of these rows.
pub(crate) fn column<'a, R, T>(rows: &[&'a R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}
