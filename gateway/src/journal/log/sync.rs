//! Syncing of the log, and the reaction to failed syncs.

use super::Log;
use super::unsynced::SyncBatch;
use crate::journal::record::JournalEntry;
use crate::journal::segment::Segment;

/// The number of failed syncs in a row that the log tolerates. The next failure stops writing until a retry succeeds.
const MAX_CONSECUTIVE_FAILED_SYNCS: u32 = 2;

impl Log {
    /// Returns the segments to sync, or `None` if everything written is on the disk.
    pub(in crate::journal) fn sync_batch(&self) -> Option<SyncBatch> {
        self.has_unsynced().then(|| SyncBatch {
            segments: self.unsynced.segments.clone(),
            last_number: self.next_number - 1,
            active_segment: self.active.as_ref().map(|active| active.segment.number),
        })
    }

    /// Returns false if everything written is on the disk.
    pub(super) fn has_unsynced(&self) -> bool {
        let active_segment = self.active.as_ref().map(|active| active.segment.number);
        let is_active_synced = active_segment.is_none_or(|active_segment| active_segment <= self.newest_synced_segment);
        !self.unsynced.entries.is_empty() || !is_active_synced
    }

    /// Notes that a batch has been synced successfully.
    pub(in crate::journal) fn mark_synced(&mut self, batch: &SyncBatch) {
        self.unsynced.remove_up_to(batch.last_number);
        let first_unwritten = self.unwritten.iter().map(|entry| entry.number).min().unwrap_or(u64::MAX);
        self.synced_below = self.synced_below.max((batch.last_number + 1).min(first_unwritten));
        self.consecutive_failed_syncs = 0;
        self.newest_synced_segment =
            batch.segments.iter().map(|segment| segment.number).fold(self.newest_synced_segment, u64::max);
        let is_synced = |segment: &Segment| batch.segments.iter().any(|other| other.number == segment.number);
        self.unsynced.segments.retain(|segment| Some(segment.number) == batch.active_segment || !is_synced(segment));
    }

    /// Handles a failed sync. The kernel may have dropped unsynced data although the data can still be read, so the
    /// affected files are not trusted any more: all entries since the last successful sync are written again, to a new
    /// segment.
    pub(in crate::journal) fn handle_failed_sync(&mut self) {
        if !self.is_writable() {
            // A write has failed in the meantime. All unsynced entries are in memory, and the sync thread will write
            // them again.
            return;
        }
        self.consecutive_failed_syncs += 1;
        if self.consecutive_failed_syncs > MAX_CONSECUTIVE_FAILED_SYNCS {
            tracing::error!("the journal's disk cannot be synced; new chats are refused");
            return self.stop_writing();
        }
        let entries = std::mem::take(&mut self.unsynced).entries;
        let rewritten = self.rotate(0).and_then(|()| entries.iter().try_for_each(|entry| self.write(entry)));
        if let Err(error) = rewritten {
            tracing::error!(%error, "the journal can neither be synced nor written; new chats are refused");
            self.stop_writing();
            let is_unwritten =
                |entry: &JournalEntry| self.unwritten.iter().any(|unwritten| unwritten.number == entry.number);
            let missing: Vec<JournalEntry> = entries.into_iter().filter(|entry| !is_unwritten(entry)).collect();
            self.unwritten_bytes += missing.iter().map(JournalEntry::len).sum::<usize>();
            self.unwritten.extend(missing);
        }
    }
}
