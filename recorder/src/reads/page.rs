//! A page of a list.

use crate::cursor::TimeCursor;

/// A page of a list that is sorted by time.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins, if there may be one.
    pub next: Option<TimeCursor>,
}

impl<T> Page<T> {
    /// From one row more than was asked for, if there are so many; else from the window that was looked through.
    pub(super) fn from_rows(
        mut rows: Vec<T>,
        limit: i64,
        scan_end: Option<TimeCursor>,
        key: impl Fn(&T) -> TimeCursor,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        if rows.len() > limit {
            rows.truncate(limit);
            let next = rows.last().map(key);
            return Self { rows, next };
        }
        Self { rows, next: scan_end }
    }
}
