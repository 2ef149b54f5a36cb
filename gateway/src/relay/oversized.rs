//! Events that the broker refuses for their size: each is moved to the end of the journal from time to time and tried again,
//! so that they hold up no other event.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;

use crate::journal::{JournalConsumer, JournalEntry};

/// The delay before an event that exceeds the broker's size limit is tried again.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(60);

/// The maximum number of events set aside because the broker refuses their size, and the maximum size of all such
/// events in bytes. Beyond either bound, publishing stops until the delay of the first event has passed.
const MAX_EVENTS: usize = 1000;
const MAX_BYTES: usize = 64 << 20;

/// Events that the broker refuses for their size, by event number.
#[derive(Debug, Default)]
pub(super) struct OversizedEvents {
    events: BTreeMap<u64, OversizedEvent>,
    bytes: usize,
}

#[derive(Debug)]
struct OversizedEvent {
    entry: JournalEntry,
    next: NextAttempt,
}

#[derive(Debug)]
enum NextAttempt {
    At(Instant),
    /// The journal is appending a copy. The receiver gets true when the copy is in the log.
    Copying(oneshot::Receiver<bool>),
}

impl OversizedEvents {
    /// Adds an event that was refused at `now`.
    pub(super) fn insert(&mut self, entry: JournalEntry, now: Instant) {
        self.bytes += entry.len();
        let next = NextAttempt::At(now + RETRY_DELAY);
        self.events.insert(entry.number, OversizedEvent { entry, next });
    }

    /// Returns true if more events can be set aside.
    pub(super) fn has_room(&self) -> bool {
        self.events.len() < MAX_EVENTS && self.bytes < MAX_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns the lowest number, and the time of recording.
    pub(super) fn oldest(&self) -> Option<(u64, u64)> {
        self.events.first_key_value().map(|(number, event)| (*number, event.entry.recorded_at_ms))
    }

    /// Has the events whose delay has passed appended to the end of the journal, and forgets those whose copies are in the
    /// log: the relay gets the copies like any other event.
    pub(super) fn copy_due(&mut self, consumer: &JournalConsumer, now: Instant) {
        let bytes = &mut self.bytes;
        self.events.retain(|_, event| {
            match &mut event.next {
                NextAttempt::At(at) if *at <= now => {
                    event.next = NextAttempt::Copying(consumer.append_again(&event.entry));
                }
                NextAttempt::At(_) => {}
                NextAttempt::Copying(copied) => match copied.try_recv() {
                    Ok(true) => {
                        // A copy at the end of the journal does not keep earlier events from being released.
                        *bytes -= event.entry.len();
                        return false;
                    }
                    Ok(false) | Err(TryRecvError::Closed) => event.next = NextAttempt::At(now + RETRY_DELAY),
                    Err(TryRecvError::Empty) => {}
                },
            }
            true
        });
    }
}
