//! Reading the tables for people: one file for each thing that is read. Every query is served by an index, reads a bounded
//! number of rows, and says whose rows it wants.
//!
//! Where a filter may pass many rows over, a page looks through a window of so many and says where it stopped: a list then
//! has a next page although this one is not full.

pub mod chats;
pub mod conversations;
pub mod live;
pub mod messages;
pub mod usage;

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
    fn of(mut rows: Vec<T>, limit: i64, stopped: Option<TimeCursor>, key: impl Fn(&T) -> TimeCursor) -> Self {
        let limit = usize::try_from(limit).unwrap_or(0);
        if rows.len() > limit {
            rows.truncate(limit);
            let next = rows.last().map(key);
            return Self { rows, next };
        }
        Self { rows, next: stopped }
    }
}
