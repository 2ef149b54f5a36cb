//! Syncing, and what is done when the disk fails.

use super::Log;
use super::unsynced::ToSync;
use crate::journal::record::Entry;
use crate::journal::segment::Segment;

/// How often syncing may fail in a row before the disk is given up for a while.
const MAX_FAILED_SYNCS: u32 = 2;

impl Log {
    /// What has to be synced.
    pub(in crate::journal) fn to_sync(&self) -> Option<ToSync> {
        let writing = self.writer.as_ref().map(|writer| writer.segment.number);
        let is_begun = writing.is_none_or(|writing| writing <= self.begun);
        (!self.unsynced.entries.is_empty() || !is_begun).then(|| ToSync {
            segments: self.unsynced.segments.clone(),
            up_to: self.next_number - 1,
            writing,
        })
    }

    /// That has been synced.
    pub(in crate::journal) fn synced(&mut self, done: &ToSync) {
        self.unsynced.forget(done.up_to);
        let first_held = self.held.iter().map(|entry| entry.number).min().unwrap_or(u64::MAX);
        self.synced_below = self.synced_below.max((done.up_to + 1).min(first_held));
        self.failed_syncs = 0;
        self.begun = done.segments.iter().map(|segment| segment.number).fold(self.begun, u64::max);
        let is_done = |segment: &Segment| done.segments.iter().any(|other| other.number == segment.number);
        self.unsynced.segments.retain(|segment| Some(segment.number) == done.writing || !is_done(segment));
    }

    /// Syncing failed. What the kernel was to write may be gone although it can still be read, so these files are trusted no
    /// more: everything that was not synced before is written again, elsewhere.
    pub(in crate::journal) fn sync_failed(&mut self) {
        if !self.is_writable() {
            // Writing has failed since, so everything that was not synced is in memory, for the keeper to write again.
            return;
        }
        self.failed_syncs += 1;
        if self.failed_syncs > MAX_FAILED_SYNCS {
            tracing::error!("the journal's disk cannot be synced; new chats are refused");
            return self.stop_writing();
        }
        let entries = std::mem::take(&mut self.unsynced).entries;
        let rewritten = self.rotate(0).and_then(|()| entries.iter().try_for_each(|entry| self.write(entry)));
        if let Err(error) = rewritten {
            tracing::error!(%error, "the journal can neither be synced nor written; new chats are refused");
            self.stop_writing();
            let is_held = |entry: &Entry| self.held.iter().any(|held| held.number == entry.number);
            let missing: Vec<Entry> = entries.into_iter().filter(|entry| !is_held(entry)).collect();
            self.held_bytes += missing.iter().map(Entry::len).sum::<usize>();
            self.held.extend(missing);
        }
    }
}
