//! Catching up: while the relay is behind, it publishes what it reads from the disk.

use std::time::Duration;

use tokio::time::Instant;

use super::Relay;
use super::disk_read::{DiskRead, ReadPosition, ReadResult};
use super::in_flight::PublishReason;
use crate::journal::JournalConsumer;

/// The delay after a read that could read nothing, for lack of file descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(100);

impl Relay {
    /// Starts to read the next entries from the disk, unless a read is in progress.
    pub(super) fn start_read(&mut self) {
        let cursor = match std::mem::replace(&mut self.position, ReadPosition::CaughtUp) {
            ReadPosition::CaughtUp => self.consumer.cursor_from(self.taken_below),
            ReadPosition::At(cursor, at) if at <= Instant::now() => cursor,
            waiting => {
                self.position = waiting;
                return;
            }
        };
        self.position = ReadPosition::Reading(DiskRead::start(&self.consumer, cursor, JournalConsumer::read));
    }

    /// Publishes the entries that a read has brought.
    pub(super) async fn publish_read(&mut self, read: ReadResult) {
        self.position = ReadPosition::CaughtUp;
        // A failed read begins again at the first entry that was not taken.
        let Some((cursor, Some(batch))) = read else { return };
        let retry_at = Instant::now() + if batch.entries.is_empty() { RETRY_DELAY } else { Duration::ZERO };
        self.position = ReadPosition::At(cursor, retry_at);
        self.mark_taken(&batch.entries);
        for entry in batch.entries {
            self.publish_and_track(entry, PublishReason::New).await;
        }
    }
}
