//! Entries that are written, and may not be on the disk yet.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::journal::record::JournalEntry;
use crate::journal::segment::Segment;

/// The maximum size of the unsynced entries that are remembered in case a sync fails, in bytes. The oldest entries beyond
/// the bound are forgotten, and stay in their segment.
const MAX_UNSYNCED_BYTES: usize = 32 << 20;

/// Entries that are written, and may not be on the disk yet.
#[derive(Debug, Default)]
pub(super) struct UnsyncedEntries {
    pub(super) entries: VecDeque<JournalEntry>,
    pub(super) bytes: usize,
    /// The segments of the entries, the active segment included.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// The segments to sync together, and the events that the sync covers.
#[derive(Debug)]
pub(in crate::journal) struct SyncBatch {
    pub(in crate::journal) segments: Vec<Arc<Segment>>,
    /// The highest event number in the segments.
    pub(in crate::journal) last_number: u64,
    /// The active segment, which may contain more events by the time of the sync.
    pub(super) active_segment: Option<u64>,
}

impl UnsyncedEntries {
    pub(super) fn push(&mut self, entry: &JournalEntry) {
        self.bytes += entry.len();
        self.entries.push_back(entry.clone());
        while self.bytes > MAX_UNSYNCED_BYTES {
            // More memory does not help a disk that falls this far behind.
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
