//! What is written and may not be on the disk yet.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::journal::record::Entry;
use crate::journal::segment::Segment;

/// How much of what is not synced yet is remembered, in case syncing fails.
const MAX_UNSYNCED_BYTES: usize = 32 << 20;

/// What is written and may not be on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub(super) entries: VecDeque<Entry>,
    pub(super) bytes: usize,
    /// The segments that they are in, the one that is written to included.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// What is to be synced.
#[derive(Debug)]
pub(in crate::journal) struct ToSync {
    pub(in crate::journal) segments: Vec<Arc<Segment>>,
    /// The highest number of an event in them.
    pub(in crate::journal) up_to: u64,
    /// The segment that was being written to: there may be more in it by the time that it is synced.
    pub(super) writing: Option<u64>,
}

impl Unsynced {
    pub(super) fn push(&mut self, entry: &Entry) {
        self.bytes += entry.len();
        self.entries.push_back(entry.clone());
        while self.bytes > MAX_UNSYNCED_BYTES {
            // A disk that takes this long will not be helped by more memory.
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.len();
            }
        }
    }

    pub(super) fn forget(&mut self, up_to: u64) {
        while self.entries.front().is_some_and(|entry| entry.number <= up_to) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.len();
            }
        }
    }
}
