//! What is written and may not be on the disk yet.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::journal::record::JournalEntry;
use crate::journal::segment::Segment;

/// How much of what is not synced yet is remembered, in case syncing fails.
const MAX_UNSYNCED_BYTES: usize = 32 << 20;

/// What is written and may not be on the disk yet.
#[derive(Debug, Default)]
pub(super) struct UnsyncedEntries {
    pub(super) entries: VecDeque<JournalEntry>,
    pub(super) bytes: usize,
    /// The segments that they are in, the one that is written to included.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// What is to be synced.
#[derive(Debug)]
pub(in crate::journal) struct SyncBatch {
    pub(in crate::journal) segments: Vec<Arc<Segment>>,
    /// The highest number of an event in them.
    pub(in crate::journal) last_number: u64,
    /// The segment that was being written to: there may be more in it by the time that it is synced.
    pub(super) active_segment: Option<u64>,
}

impl UnsyncedEntries {
    pub(super) fn push(&mut self, entry: &JournalEntry) {
        self.bytes += entry.len();
        self.entries.push_back(entry.clone());
        while self.bytes > MAX_UNSYNCED_BYTES {
            // A disk that takes this long will not be helped by more memory.
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.len();
            }
        }
    }

    pub(super) fn remove_up_to(&mut self, last_number: u64) {
        while self.entries.front().is_some_and(|entry| entry.number <= last_number) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.len();
            }
        }
    }
}
