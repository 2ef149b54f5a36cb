//! The relay's side of the journal: entries to publish, and the checkpoint of the broker's progress.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::checkpoint::Checkpoint;
use super::descriptors::is_exhausted;
use super::queue::{QueuedEvent, QueuedKind, RoomNeed};
use super::reader::{Cursor, EntryBatch};
use super::record::JournalEntry;
use super::store::{Lifecycle, Store, StoreState};
use super::tail::{Priority, TailRead};
use super::unended_chats::ChatChange;

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
    /// True if the log can be written, and the disk answers.
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
        Cursor::new(self.0.lock().view.segment_containing(number).unwrap_or_default(), number)
    }

    /// Returns the lowest event number in the given segment and all later segments, which a cursor in the segment may not have
    /// reached yet.
    pub fn lowest_number_from(&self, segment: u64) -> Option<u64> {
        self.0.lock().view.lowest_number_from(segment)
    }

    /// Returns a cursor at the oldest event on disk, and keeps all segments until [`Self::finish_republication`].
    pub fn start_republication(&self) -> Option<Cursor> {
        let mut state = self.0.lock();
        state.housekeeping.is_retention_paused = true;
        state.view.oldest_segment().map(|segment| Cursor::new(segment, 0))
    }

    /// Ends a republication: the retention of all kept segments starts anew.
    pub fn finish_republication(&self) {
        let mut state = self.0.lock();
        state.housekeeping.is_retention_paused = false;
        state.housekeeping.must_restart_retention = true;
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
                let extent = state.view.extent(cursor.segment());
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
            if read.is_err() {
                // A segment that is being removed is shown as removed before the disk is free again.
                drop(self.0.lock_disk());
            }
            let mut state = self.0.lock();
            let is_at_end = match read {
                Ok(batch) => {
                    let segment = cursor.segment();
                    let places = state.count_damage(segment, cursor.damaged());
                    if places > 0 {
                        self.0.metrics.journal_damaged.inc_by(places);
                        tracing::error!(segment, places, "damaged records of the journal were skipped");
                    }
                    if !batch.entries.is_empty() {
                        return Some(batch);
                    }
                    !cursor.advance(&state.view)
                }
                // The segment is intact, and is read when a descriptor is free again.
                Err(error) if is_exhausted(&error) => return Some(EntryBatch::default()),
                Err(_) if state.view.extent(cursor.segment()).0 == 0 => !cursor.skip_segment(&state.view),
                Err(error) => {
                    let segment = cursor.segment();
                    let places = state.count_damage(segment, cursor.damaged() + 1);
                    if places > 0 {
                        self.0.metrics.journal_damaged.inc_by(places);
                        tracing::error!(
                            %error, segment, "a segment of the journal cannot be read; the segment is skipped"
                        );
                    }
                    !cursor.skip_segment(&state.view)
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
            state.queue.drop_acknowledged(number);
        }
        if state.view.has_unwritten {
            state.housekeeping.acknowledged.extend(numbers);
        }
    }

    /// Returns the checkpoint that was read when the journal was opened, or the checkpoint that was last written.
    pub fn checkpoint(&self) -> Checkpoint {
        self.0.lock().checkpoint
    }

    /// Hands a new checkpoint to the writer thread, lowered to the first entry that the relay has not taken. Also hands
    /// events to the relay for which the disk takes too long, releases events, resolves waiters that have waited too long,
    /// and has expired segments removed. The relay calls this function every 100 ms. Returns the backlog.
    pub fn advance_checkpoint(&self, mut checkpoint: Checkpoint) -> Backlog {
        let mut state = self.0.lock();
        let now = Instant::now();
        if self.0.broker_health.is_connected() {
            state.publish_overdue(now);
        }
        let unread = state.tail.lowest_number().into_iter().chain(state.queue.lowest_unpublished());
        checkpoint.released_below = unread.fold(checkpoint.released_below, u64::min);
        let queued_from = state.queue.first_number();
        self.0.metrics.journal_late.inc_by(state.waiters.resolve_late(now, queued_from));
        let is_changed = std::mem::replace(&mut state.checkpoint, checkpoint) != checkpoint;
        let backlog = Backlog {
            events: state.recorded_below().saturating_sub(state.released_below()),
            bytes: state.view.disk_bytes,
            is_writable: state.is_writable(now),
        };
        if is_changed || state.shortage.is_some() || state.view.has_sealed_segments() || state.view.has_unwritten {
            state.housekeeping.is_due = true;
            if std::mem::take(&mut state.is_writer_waiting) {
                self.0.writer_wake.notify_one();
            }
        }
        backlog
    }

    /// Has a copy of an event that cannot be published yet appended to the end of the log, so that earlier events can be
    /// released. The receiver gets false if the copy cannot be written, or is dropped without a value.
    pub fn append_again(&self, entry: &JournalEntry) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.lock();
        if state.queue.check_room(entry.len()).is_err() {
            return receiver;
        }
        let number = state.next_number;
        state.next_number += 1;
        state.queue.push(QueuedEvent {
            number,
            entry: Some(entry.clone()),
            change: ChatChange::None,
            kind: QueuedKind::Copy(sender),
            room: RoomNeed::Reserved,
            priority: Priority::Deferred,
            since: Instant::now(),
            written: None,
            is_published: false,
        });
        if std::mem::take(&mut state.is_writer_waiting) {
            self.0.writer_wake.notify_one();
        }
        receiver
    }

    /// Returns true if the journal is closed and every entry has been taken.
    pub fn is_drained(&self) -> bool {
        let state = self.0.lock();
        state.lifecycle >= Lifecycle::Closed && state.queue.is_empty() && state.tail.is_empty()
    }

    /// Returns the number that the next event will get.
    pub fn next_number(&self) -> u64 {
        self.0.lock().next_number
    }

    /// Returns the journal's directory, for logs.
    pub fn directory(&self) -> &Path {
        &self.0.settings.directory
    }
}
