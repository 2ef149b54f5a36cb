//! From rows to columns: statements take one array a column, and PostgreSQL makes rows of them again (`UNNEST`).

/// One column of these rows.
pub(super) fn column<'a, R, T>(rows: &[&'a R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}
