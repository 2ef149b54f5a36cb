//! Retention: removal of segments whose events the broker acknowledged long enough ago.

use std::time::Instant;

use super::{Log, SealedSegment};

impl Log {
    /// Raises the number below which the broker has acknowledged every event.
    pub(in crate::journal) fn release_below(&mut self, number: u64) {
        self.released_below = self.released_below.max(number);
    }

    /// Removes the oldest segments, as far as their retention has expired.
    pub(in crate::journal) fn remove_expired_segments(&mut self, now: Instant) {
        let released = self.sealed.iter_mut().take_while(|sealed| sealed.last_number < self.released_below);
        for sealed in released {
            sealed.released_at.get_or_insert(now);
        }
        let retention = self.retention;
        let is_expired =
            |sealed: &SealedSegment| sealed.released_at.is_some_and(|at| now.duration_since(at) >= retention);
        while !self.is_retention_paused
            && self.sealed.front().is_some_and(is_expired)
            && self.remove_oldest_released_segment()
        {}
    }

    pub(super) fn remove_oldest_released_segment(&mut self) -> bool {
        let is_released = self.sealed.front().is_some_and(|sealed| sealed.last_number < self.released_below);
        // The unended chats in the segment must be on the disk in a newer segment before the segment can be removed.
        let is_synced = self.sealed.front().is_some_and(|sealed| sealed.number < self.newest_synced_segment);
        if !is_released || !(is_synced || self.is_finished()) {
            return false;
        }
        let Some(sealed) = self.sealed.pop_front() else { return false };
        if let Err(error) = self.directory.remove_segment(sealed.number) {
            tracing::error!(%error, segment = sealed.number, "a segment of the journal could not be removed");
        }
        true
    }

    /// Returns true if the log has stopped writing and nothing in the log is needed any more: each event is acknowledged,
    /// and each chat has ended. Then a segment can be removed although no newer segment exists, as on a full disk.
    fn is_finished(&self) -> bool {
        let mut sealed = self.sealed.iter();
        self.active.is_none()
            && self.unended_chats.len() == 0
            && self.unwritten.is_empty()
            && sealed.all(|sealed| sealed.last_number < self.released_below)
    }

    /// Starts the retention of all kept segments anew.
    pub(in crate::journal) fn restart_retention(&mut self) {
        self.sealed.iter_mut().for_each(|sealed| sealed.released_at = None);
    }
}
