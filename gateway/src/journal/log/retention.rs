//! Letting go: segments whose events the broker has, and has had for long enough.

use std::time::Instant;

use super::{Log, SealedSegment};

impl Log {
    /// The broker has everything below this.
    pub(in crate::journal) fn release_below(&mut self, number: u64) {
        self.released_below = self.released_below.max(number);
    }

    /// Lets go of segments that the broker has had for long enough.
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
        // Who is open must be on the disk elsewhere before it can be forgotten here.
        let is_synced = self.sealed.front().is_some_and(|sealed| sealed.number < self.newest_synced_segment);
        if !is_released || !is_synced {
            return false;
        }
        let Some(sealed) = self.sealed.pop_front() else { return false };
        if let Err(error) = self.directory.remove_segment(sealed.number) {
            tracing::error!(%error, segment = sealed.number, "a segment of the journal could not be removed");
        }
        true
    }

    /// The kept segments are to be kept for as long again.
    pub(in crate::journal) fn restart_retention(&mut self) {
        self.sealed.iter_mut().for_each(|sealed| sealed.released_at = None);
    }
}
