//! The journal's other end: what the relay takes from it, and how far it says the broker has come.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::Released;
use super::log::Kept;
use super::reader::{Batch, Cursor};
use super::record::Entry;
use super::store::{State, Store};
use super::tail::{Haste, Source};

/// The journal as the relay sees it.
#[derive(Clone, Debug)]
pub struct Outlet(pub(super) Arc<Store>);

/// How much is waiting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Depth {
    /// Events that the broker has not acknowledged.
    pub events: u64,
    /// The size of the log on disk.
    pub bytes: u64,
    /// Whether the log can be written.
    pub is_writable: bool,
}

impl Outlet {
    /// Resolves when there is something new to take. Wakes once for any number of events.
    pub async fn arrived(&self) {
        self.0.arrived.notified().await;
    }

    /// The next events, at most so many.
    pub fn take(&self, most: usize) -> Source {
        self.0.lock().feed.take(most)
    }

    /// A cursor for all events of this number and higher ones.
    pub fn cursor_at(&self, number: u64) -> Cursor {
        Cursor::at(self.0.lock().log.segment_of(number).unwrap_or_default(), number)
    }

    /// The lowest number of an event that this cursor may not have come to yet.
    pub fn lowest_ahead(&self, cursor: &Cursor) -> Option<u64> {
        self.0.lock().log.lowest_from(cursor.segment())
    }

    /// A cursor at the first event that is kept. Nothing is let go of until [`Self::republished`].
    pub fn cursor_at_oldest(&self) -> Option<Cursor> {
        let mut state = self.0.lock();
        state.log.keeps_all = true;
        state.log.first_segment().map(|segment| Cursor::at(segment, 0))
    }

    /// What was kept has been published again, and is kept anew.
    pub fn republished(&self) {
        let mut state = self.0.lock();
        state.log.keeps_all = false;
        state.log.keep_anew();
    }

    /// Reads on from the disk. `None` when everything has been read, and newer events are in memory. Blocks on the disk.
    pub fn read(&self, cursor: &mut Cursor, most: usize, most_bytes: usize) -> Option<Batch> {
        self.read_on(cursor, most, most_bytes, |state| state.feed.caught_up())
    }

    /// The same for a reading beside the main one.
    pub fn read_beside(&self, cursor: &mut Cursor, most: usize, most_bytes: usize) -> Option<Batch> {
        self.read_on(cursor, most, most_bytes, |_| {})
    }

    fn read_on(
        &self,
        cursor: &mut Cursor,
        most: usize,
        most_bytes: usize,
        at_end: impl Fn(&mut State),
    ) -> Option<Batch> {
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
            let read = cursor.read(&self.0.directory, end, most, most_bytes);
            let mut state = self.0.lock();
            let is_over = match read {
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
            if is_over {
                at_end(&mut state);
                return None;
            }
        }
    }

    /// The broker has these events.
    pub fn acknowledged(&self, numbers: &[u64]) {
        let mut state = self.0.lock();
        for &number in numbers {
            state.waiters.acknowledged(number);
            state.log.acknowledged(number);
        }
    }

    /// How far the broker had come when the journal was opened, or was last said to have come.
    pub fn released(&self) -> Released {
        self.0.lock().released
    }

    /// The broker has come this far: what is below is released, but for what has not been taken. To be called now and then;
    /// returns how much is waiting.
    pub fn release(&self, mut released: Released) -> Depth {
        let mut state = self.0.lock();
        released.below = released.below.min(state.feed.lowest().unwrap_or(u64::MAX));
        let now = Instant::now();
        self.0.metrics.journal_late.inc_by(state.waiters.late(now));
        state.log.release_below(released.below);
        if state.released != released {
            state.released = released;
            let state = &mut *state;
            if let Err(error) = state.released_file.write(&released) {
                tracing::warn!(%error, "how far the broker has come could not be written down");
            }
        }
        state.log.forget_old(now);
        Depth {
            events: state.log.next_number().saturating_sub(state.log.released_below()),
            bytes: state.log.bytes(),
            is_writable: state.log.is_writable(),
        }
    }

    /// Puts an event that cannot be published yet behind all others, so that those before it can be released. False if it
    /// has to stay where it is.
    pub fn put_back(&self, entry: &Entry) -> bool {
        let mut state = self.0.lock();
        let Some(again) = state.log.append_again(entry) else { return false };
        state.feed.push(&again, Kept::Written, Haste::InPassing);
        true
    }

    /// Whether no event will come any more, and none is left to take.
    pub fn is_done(&self) -> bool {
        let state = self.0.lock();
        state.is_closed && state.feed.is_empty()
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
