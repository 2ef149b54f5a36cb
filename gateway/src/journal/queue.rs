//! The queue of events on their way to the disk, in the order of their numbers. Pure: time is passed in.
//!
//! Callers put events into the queue and the writer thread takes them out, so a disk that hangs keeps the writer thread
//! waiting and no thread of the runtime. An event stays in the queue until the event is written.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::record::JournalEntry;
use super::tail::Priority;
use super::unended_chats::ChatChange;

/// The maximum size of the queued events, in bytes. Ends beyond the bound are lost; other events are refused from half of
/// the bound on.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// The time for which an event waits for the disk before new chats are refused.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// The time for which an event waits for the disk before the relay publishes the event from memory.
const PUBLISH_AFTER: Duration = Duration::from_millis(250);

/// The queued events.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    events: VecDeque<QueuedEvent>,
    bytes: usize,
    /// The room on the disk that the queued events need, in bytes.
    claimed_room: u64,
}

/// An event that waits for the disk.
#[derive(Debug)]
pub(super) struct QueuedEvent {
    pub(super) number: u64,
    /// `None` if the broker has acknowledged the event while the disk took too long.
    pub(super) entry: Option<JournalEntry>,
    pub(super) change: ChatChange,
    pub(super) kind: QueuedKind,
    pub(super) room: RoomNeed,
    pub(super) priority: Priority,
    /// The time of recording.
    pub(super) since: Instant,
    /// Receives a value when the event is in the log. Dropped without a value if the event never is.
    pub(super) written: Option<oneshot::Sender<()>>,
    /// True if the relay has got the event from the queue already.
    pub(super) is_published: bool,
}

/// The kind of a queued event.
#[derive(Debug)]
pub(super) enum QueuedKind {
    New,
    /// A copy of an event that is in the log under another number. The sender receives true when the copy is in the log.
    Copy(oneshot::Sender<bool>),
}

/// The room that an event needs on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoomNeed {
    /// The room was reserved before the chat began.
    Reserved,
    /// The reserved segments have this many bytes for the event and for one more end.
    Found(u64),
    /// This many bytes have to be reserved. The writer thread refuses the event if it finds no room.
    Unknown(u64),
}

/// The part of a queued event that the writer thread needs.
#[derive(Debug)]
pub(super) struct WriteJob {
    pub(super) number: u64,
    pub(super) entry: Option<JournalEntry>,
    pub(super) change: ChatChange,
    pub(super) is_copy: bool,
    pub(super) room: RoomNeed,
}

/// The queue has no room for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

impl QueuedEvent {
    fn len(&self) -> usize {
        self.entry.as_ref().map_or(0, JournalEntry::len)
    }
}

impl RoomNeed {
    fn bytes(self) -> u64 {
        match self {
            Self::Reserved => 0,
            Self::Found(bytes) | Self::Unknown(bytes) => bytes,
        }
    }
}

impl WriteQueue {
    /// Fails if the queue has no room for an event of `len` bytes. An empty queue takes an event of any size.
    pub(super) fn check_room(&self, len: usize) -> Result<(), QueueFull> {
        if self.bytes > 0 && self.bytes + len > MAX_QUEUED_BYTES { Err(QueueFull) } else { Ok(()) }
    }

    /// Returns true if events wait for so long, or so many, that new chats must be refused.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.waits_for(now) >= STUCK_AFTER || self.bytes > MAX_QUEUED_BYTES / 2
    }

    pub(super) fn push(&mut self, event: QueuedEvent) {
        self.bytes += event.len();
        self.claimed_room += event.room.bytes();
        self.events.push_back(event);
    }

    /// Returns the first events for writing. They stay in the queue until [`Self::pop`].
    pub(super) fn jobs(&mut self, most: usize) -> Vec<WriteJob> {
        let job = |event: &mut QueuedEvent| WriteJob {
            number: event.number,
            entry: event.entry.clone(),
            change: std::mem::take(&mut event.change),
            is_copy: matches!(event.kind, QueuedKind::Copy(_)),
            room: event.room,
        };
        self.events.iter_mut().take(most).map(job).collect()
    }

    /// Takes the first event out of the queue.
    pub(super) fn pop(&mut self) -> Option<QueuedEvent> {
        let event = self.events.pop_front()?;
        self.bytes -= event.len();
        self.claimed_room -= event.room.bytes();
        Some(event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the room on the disk that the queued events need, in bytes.
    pub(super) fn claimed_room(&self) -> u64 {
        self.claimed_room
    }

    /// Returns the lowest number in the queue, or the highest possible number if the queue is empty. The log has each event
    /// below, on the disk or in memory.
    pub(super) fn first_number(&self) -> u64 {
        self.events.front().map_or(u64::MAX, |event| event.number)
    }

    /// Returns the lowest number that the relay has not got, neither from the queue nor from the log.
    pub(super) fn lowest_unpublished(&self) -> Option<u64> {
        self.events.iter().find(|event| !event.is_published).map(|event| event.number)
    }

    fn waits_for(&self, now: Instant) -> Duration {
        self.events.front().map_or(Duration::ZERO, |event| now.saturating_duration_since(event.since))
    }

    /// Returns the events that the relay has to publish from memory, once each: as soon as the first event waits for too
    /// long, all that are not refused any more.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<(JournalEntry, Priority)> {
        if self.waits_for(now) < PUBLISH_AFTER {
            return Vec::new();
        }
        let overdue = |event: &mut QueuedEvent| {
            let is_due = !event.is_published
                && matches!(event.kind, QueuedKind::New)
                && !matches!(event.room, RoomNeed::Unknown(_));
            event.is_published |= is_due;
            event.entry.clone().filter(|_| is_due).map(|entry| (entry, event.priority))
        };
        self.events.iter_mut().filter_map(overdue).collect()
    }

    /// Drops the text of an event that the broker has acknowledged before the event was written.
    pub(super) fn drop_acknowledged(&mut self, number: u64) {
        let at = self.events.partition_point(|event| event.number < number);
        if let Some(event) = self.events.get_mut(at).filter(|event| event.number == number) {
            self.bytes -= event.len();
            event.entry = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{RecordKind, UnnumberedRecord};

    fn event(number: u64, len: usize, room: RoomNeed, since: Instant) -> QueuedEvent {
        let record = UnnumberedRecord::from_bytes(RecordKind::Event, &vec![0; len]).unwrap();
        QueuedEvent {
            number,
            entry: Some(record.assign_number(number, 0)),
            change: ChatChange::None,
            kind: QueuedKind::New,
            room,
            priority: Priority::Immediate,
            since,
            written: None,
            is_published: false,
        }
    }

    fn numbers(entries: &[(JournalEntry, Priority)]) -> Vec<u64> {
        entries.iter().map(|(entry, _)| entry.number).collect()
    }

    #[test]
    fn new_chats_are_refused_after_two_seconds_or_from_half_of_the_bound_on() {
        let now = Instant::now();
        let mut queue = WriteQueue::default();
        assert!(!queue.is_stuck(now));
        queue.push(event(1, 10, RoomNeed::Reserved, now));
        assert!(!queue.is_stuck(now + Duration::from_millis(1999)));
        assert!(queue.is_stuck(now + Duration::from_secs(2)));
        for number in 2..=9 {
            assert_eq!((number, queue.is_stuck(now)), (number, number > 6));
            assert_eq!(queue.check_room(7 << 20), Ok(()));
            queue.push(event(number, 7 << 20, RoomNeed::Reserved, now));
        }
        assert_eq!(queue.check_room(9 << 20), Err(QueueFull));
        queue.drop_acknowledged(4);
        assert_eq!(queue.check_room(9 << 20), Ok(()), "an acknowledged event needs no memory");
        assert_eq!(
            queue.jobs(9).iter().filter(|job| job.entry.is_none()).map(|job| job.number).collect::<Vec<_>>(),
            [4]
        );
        while queue.pop().is_some() {}
        assert_eq!((queue.bytes, queue.claimed_room(), queue.first_number()), (0, 0, u64::MAX));
    }

    #[test]
    fn an_event_is_published_from_memory_once_and_never_if_the_event_may_be_refused() {
        let (now, late) = (Instant::now(), Instant::now() + PUBLISH_AFTER);
        let mut queue = WriteQueue::default();
        queue.push(event(1, 10, RoomNeed::Reserved, now));
        queue.push(event(2, 10, RoomNeed::Unknown(100), now));
        queue.push(event(3, 10, RoomNeed::Found(100), now));
        assert_eq!(queue.claimed_room(), 200);
        assert!(queue.take_overdue(now).is_empty());
        assert_eq!(numbers(&queue.take_overdue(late)), [1, 3]);
        queue.push(event(4, 10, RoomNeed::Reserved, late));
        assert_eq!(numbers(&queue.take_overdue(late)), [4], "events behind an overdue event do not wait");
        assert_eq!(queue.lowest_unpublished(), Some(2));
    }
}
