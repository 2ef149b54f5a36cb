//! The relay's side of the journal: entries to publish, and the checkpoint of the broker's progress.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::Checkpoint;
use super::descriptors::is_exhausted;
use super::log::AppendOutcome;
use super::reader::{Cursor, EntryBatch};
use super::record::JournalEntry;
use super::store::{Store, StoreState};
use super::tail::{Priority, TailRead};

/// The relay's handle to the journal.
#[derive(Clone, Debug)]
pub struct JournalConsumer(pub(super) Arc<Store>);

/// The amount of data that waits in the journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// The number of events that the broker has not acknowledged.
    pub events: u64,
    /// The size of the log on disk, in bytes.
    pub bytes: u64,
    /// True if the log can be written.
    pub is_writable: bool,
}

impl JournalConsumer {
    /// Waits until an entry with immediate priority is recorded, or the journal is closed. Wakes once for any number of
    /// entries.
    pub async fn wait_for_entries(&self) {
        self.0.entry_arrived.notified().await;
    }

    /// Takes at most `max_entries` entries from the tail.
    pub fn take(&self, max_entries: usize) -> TailRead {
        self.0.lock().tail.take(max_entries)
    }

    /// Returns a cursor over all events numbered `number` or higher.
    pub fn cursor_from(&self, number: u64) -> Cursor {
        Cursor::new(self.0.lock().log.segment_containing(number).unwrap_or_default(), number)
    }

    /// Returns the lowest number of an event that the cursor may not have reached yet.
    pub fn lowest_unread_number(&self, cursor: &Cursor) -> Option<u64> {
        self.0.lock().log.lowest_number_from(cursor.segment())
    }

    /// Returns a cursor at the oldest event on disk, and keeps all segments until [`Self::finish_republication`].
    pub fn start_republication(&self) -> Option<Cursor> {
        let mut state = self.0.lock();
        state.log.is_retention_paused = true;
        state.log.oldest_segment().map(|segment| Cursor::new(segment, 0))
    }

    /// Ends a republication: the retention of all kept segments starts anew.
    pub fn finish_republication(&self) {
        let mut state = self.0.lock();
        state.log.is_retention_paused = false;
        state.log.restart_retention();
    }

    /// Reads the next entries from the disk, which blocks. Returns `None` at the end of the log; from then on, new
    /// entries are in the tail.
    pub fn read(&self, cursor: &mut Cursor, max_entries: usize, max_bytes: usize) -> Option<EntryBatch> {
        self.read_next(cursor, max_entries, max_bytes, |state| state.tail.mark_caught_up())
    }

    /// Reads like [`Self::read`], for a republication beside the main reading: the end of the log does not affect the
    /// tail.
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
                // The segment has been removed in the meantime.
                cursor.go_to(next);
                continue;
            }
            let read = cursor.read(&self.0.directory, end, max_entries, max_bytes);
            let mut state = self.0.lock();
            let is_at_end = match read {
                Ok(batch) => {
                    let segment = cursor.segment();
                    let places = state.log.count_damage(segment, cursor.damaged());
                    if places > 0 {
                        self.0.metrics.journal_damaged.inc_by(places);
                        tracing::error!(segment, places, "damaged records of the journal were skipped");
                    }
                    if !batch.entries.is_empty() {
                        return Some(batch);
                    }
                    !cursor.advance(&state.log)
                }
                // The segment is intact, and is read when a descriptor is free again.
                Err(error) if is_exhausted(&error) => return Some(EntryBatch::default()),
                Err(error) => {
                    let segment = cursor.segment();
                    let places = state.log.count_damage(segment, cursor.damaged() + 1);
                    if places > 0 {
                        self.0.metrics.journal_damaged.inc_by(places);
                        tracing::error!(
                            %error, segment, "a segment of the journal cannot be read; the segment is skipped"
                        );
                    }
                    !cursor.skip_segment(&state.log)
                }
            };
            if is_at_end {
                at_end(&mut state);
                return None;
            }
        }
    }

    /// Resolves the waiters of events that the broker has acknowledged, and drops the events from memory.
    pub fn mark_acknowledged(&self, numbers: &[u64]) {
        let mut state = self.0.lock();
        for &number in numbers {
            state.waiters.resolve_acknowledged(number);
            state.log.drop_acknowledged(number);
        }
    }

    /// Returns the checkpoint that was read when the journal was opened, or the checkpoint that was last written.
    pub fn checkpoint(&self) -> Checkpoint {
        self.0.lock().checkpoint
    }

    /// Writes a new checkpoint, lowered to the first entry in the tail that the relay has not taken. Also releases
    /// events, resolves waiters that have waited too long, and removes expired segments. The relay calls this function
    /// every 100 ms. Returns the backlog.
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
                tracing::warn!(%error, "the checkpoint of the journal could not be written");
            }
        }
        state.log.remove_expired_segments(now);
        Backlog {
            events: state.log.next_number().saturating_sub(state.log.released_below()),
            bytes: state.log.disk_bytes(),
            is_writable: state.log.is_writable(),
        }
    }

    /// Appends a copy of an event that cannot be published yet to the end of the log, so that earlier events can be
    /// released. Returns false if the copy cannot be written.
    pub fn append_again(&self, entry: &JournalEntry) -> bool {
        let mut state = self.0.lock();
        let Some(appended) = state.log.append_again(entry) else { return false };
        state.tail.push(&appended, AppendOutcome::Written, Priority::Deferred);
        true
    }

    /// Returns true if the journal is closed and every entry has been taken.
    pub fn is_drained(&self) -> bool {
        let state = self.0.lock();
        state.is_closed && state.tail.is_empty()
    }

    /// Returns the number that the next event will get.
    pub fn next_number(&self) -> u64 {
        self.0.lock().log.next_number()
    }

    /// Returns the journal's directory, for logs.
    pub fn directory(&self) -> &Path {
        &self.0.settings.directory
    }
}
