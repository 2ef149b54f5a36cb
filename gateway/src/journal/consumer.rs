//! The journal's other end: what the relay takes from it, and how far it says the broker has come.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::Checkpoint;
use super::log::AppendOutcome;
use super::reader::{Cursor, EntryBatch};
use super::record::JournalEntry;
use super::store::{Store, StoreState};
use super::tail::{Priority, TailRead};

/// The journal as the relay sees it.
#[derive(Clone, Debug)]
pub struct JournalConsumer(pub(super) Arc<Store>);

/// How much is waiting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// Events that the broker has not acknowledged.
    pub events: u64,
    /// The size of the log on disk.
    pub bytes: u64,
    /// Whether the log can be written.
    pub is_writable: bool,
}

impl JournalConsumer {
    /// Resolves when there is something new to take. Wakes once for any number of events.
    pub async fn wait_for_entries(&self) {
        self.0.entry_arrived.notified().await;
    }

    /// The next events, at most so many.
    pub fn take(&self, max_entries: usize) -> TailRead {
        self.0.lock().tail.take(max_entries)
    }

    /// A cursor for all events of this number and higher ones.
    pub fn cursor_from(&self, number: u64) -> Cursor {
        Cursor::new(self.0.lock().log.segment_containing(number).unwrap_or_default(), number)
    }

    /// The lowest number of an event that this cursor may not have come to yet.
    pub fn lowest_unread_number(&self, cursor: &Cursor) -> Option<u64> {
        self.0.lock().log.lowest_number_from(cursor.segment())
    }

    /// A cursor at the first event that is kept. Nothing is let go of until [`Self::finish_republication`].
    pub fn start_republication(&self) -> Option<Cursor> {
        let mut state = self.0.lock();
        state.log.is_retention_paused = true;
        state.log.oldest_segment().map(|segment| Cursor::new(segment, 0))
    }

    /// What was kept has been published again, and is kept anew.
    pub fn finish_republication(&self) {
        let mut state = self.0.lock();
        state.log.is_retention_paused = false;
        state.log.restart_retention();
    }

    /// Reads on from the disk. `None` when everything has been read, and newer events are in memory. Blocks on the disk.
    pub fn read(&self, cursor: &mut Cursor, max_entries: usize, max_bytes: usize) -> Option<EntryBatch> {
        self.read_next(cursor, max_entries, max_bytes, |state| state.tail.mark_caught_up())
    }

    /// The same for a reading beside the main one.
    pub fn read_for_republication(
        &self,
        cursor: &mut Cursor,
        max_entries: usize,
        max_bytes: usize,
    ) -> Option<EntryBatch> {
        self.read_next(cursor, max_entries, max_bytes, |_| {})
    }

    fn read_next(
        &self,
        cursor: &mut Cursor,
        max_entries: usize,
        max_bytes: usize,
        at_end: impl Fn(&mut StoreState),
    ) -> Option<EntryBatch> {
        loop {
            let (end, next) = {
                let mut state = self.0.lock();
                let extent = state.log.extent(cursor.segment());
                if extent == (0, None) {
                    at_end(&mut state);
                    return None;
                }
                extent
            };
            if end == 0 {
                // It was let go of in the meantime.
                cursor.go_to(next);
                continue;
            }
            let read = cursor.read(&self.0.directory, end, max_entries, max_bytes);
            let mut state = self.0.lock();
            let is_at_end = match read {
                Ok(batch) => {
                    self.0.metrics.journal_damaged.inc_by(batch.damaged);
                    if !batch.entries.is_empty() {
                        return Some(batch);
                    }
                    !cursor.advance(&state.log)
                }
                Err(error) => {
                    tracing::error!(%error, segment = cursor.segment(), "a segment of the journal cannot be read");
                    self.0.metrics.journal_damaged.inc();
                    !cursor.skip_segment(&state.log)
                }
            };
            if is_at_end {
                at_end(&mut state);
                return None;
            }
        }
    }

    /// The broker has these events.
    pub fn mark_acknowledged(&self, numbers: &[u64]) {
        let mut state = self.0.lock();
        for &number in numbers {
            state.waiters.resolve_acknowledged(number);
            state.log.drop_acknowledged(number);
        }
    }

    /// How far the broker had come when the journal was opened, or was last said to have come.
    pub fn checkpoint(&self) -> Checkpoint {
        self.0.lock().checkpoint
    }

    /// The broker has come this far: what is below is released, but for what has not been taken. To be called now and then;
    /// returns how much is waiting.
    pub fn advance_checkpoint(&self, mut checkpoint: Checkpoint) -> Backlog {
        let mut state = self.0.lock();
        checkpoint.released_below = checkpoint.released_below.min(state.tail.lowest_number().unwrap_or(u64::MAX));
        let now = Instant::now();
        self.0.metrics.journal_late.inc_by(state.waiters.resolve_late(now));
        state.log.release_below(checkpoint.released_below);
        if state.checkpoint != checkpoint {
            state.checkpoint = checkpoint;
            let state = &mut *state;
            if let Err(error) = state.checkpoint_file.write(&checkpoint) {
                tracing::warn!(%error, "how far the broker has come could not be written down");
            }
        }
        state.log.remove_expired_segments(now);
        Backlog {
            events: state.log.next_number().saturating_sub(state.log.released_below()),
            bytes: state.log.disk_bytes(),
            is_writable: state.log.is_writable(),
        }
    }

    /// Puts an event that cannot be published yet behind all others, so that those before it can be released. False if it
    /// has to stay where it is.
    pub fn append_again(&self, entry: &JournalEntry) -> bool {
        let mut state = self.0.lock();
        let Some(appended) = state.log.append_again(entry) else { return false };
        state.tail.push(&appended, AppendOutcome::Written, Priority::Deferred);
        true
    }

    /// Whether no event will come any more, and none is left to take.
    pub fn is_drained(&self) -> bool {
        let state = self.0.lock();
        state.is_closed && state.tail.is_empty()
    }

    /// The number that the next event will have.
    pub fn next_number(&self) -> u64 {
        self.0.lock().log.next_number()
    }

    /// The directory, for logs.
    pub fn directory(&self) -> &Path {
        &self.0.settings.directory
    }
}
