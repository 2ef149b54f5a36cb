//! The result of a query for a list.

use crate::cursor::TimeCursor;

/// A page of a list sorted by time.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows on the page.
    pub rows: Vec<T>,
    /// The position before the next page, or `None` on the last page. The next page may be empty.
    pub next: Option<TimeCursor>,
}

impl<T> Page<T> {
    /// Creates a page from the result of a query for `limit + 1` rows. If the query has found the extra row, the next
    /// page continues after the last row of the page; otherwise at the end of the examined window, `scan_end`.
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
