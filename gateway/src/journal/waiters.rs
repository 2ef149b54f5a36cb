//! The callers that wait for an event to become durable. Pure: time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::durability::{Durability, DurabilityLevel};
use super::error::JournalError;

/// The maximum time for which a caller waits. Afterwards the durability reached so far must suffice: a client does not
/// wait for a disk that hangs.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(10);

/// The minimum time for which a chat's start waits before asking for a sync of its own. No client waits for the start
/// yet.
const MIN_START_WAIT: Duration = Duration::from_millis(250);

/// The waiting callers by event number.
#[derive(Debug, Default)]
pub(super) struct Waiters(BTreeMap<u64, Waiter>);

#[derive(Debug)]
struct Waiter {
    sender: oneshot::Sender<Result<Durability, JournalError>>,
    since: Instant,
    condition: WaitCondition,
}

impl Waiter {
    /// Returns true if the event waited for the broker before a sync sufficed.
    fn gave_the_broker_time(&self) -> bool {
        matches!(self.condition, WaitCondition::AcknowledgementOrSyncAt(at) if at > self.since)
    }
}

/// The condition under which a caller stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitCondition {
    /// The event is in the log.
    Write,
    /// The event is synced to the disk.
    Sync,
    /// The broker acknowledges the event or, from the given time on, the event is on the disk.
    AcknowledgementOrSyncAt(Instant),
    /// The broker acknowledges the event, or any sync covers the event. From the given time on, the event asks for a
    /// sync itself.
    AcknowledgementOrAnySync(Instant),
    /// The broker acknowledges the event. No sync can help, because the log cannot be written.
    Acknowledgement,
}

impl WaitCondition {
    /// Returns the condition for an event. `acknowledgement_timeout` is the time to wait for the broker before a sync
    /// suffices.
    pub(super) fn for_level(level: DurabilityLevel, now: Instant, acknowledgement_timeout: Duration) -> Self {
        match level {
            DurabilityLevel::Journal => Self::Write,
            DurabilityLevel::Synced => Self::Sync,
            DurabilityLevel::Replicated => Self::AcknowledgementOrSyncAt(now + acknowledgement_timeout),
        }
    }

    /// Returns the condition that the start of a chat must meet before the chat's end may be seen. The log suffices if the
    /// end's condition covers the start: a sync of the end includes the start; an acknowledgement of the end does not.
    pub(super) fn for_start(level: DurabilityLevel, now: Instant, acknowledgement_timeout: Duration) -> Self {
        match level {
            DurabilityLevel::Journal | DurabilityLevel::Synced => Self::Write,
            DurabilityLevel::Replicated => {
                Self::AcknowledgementOrAnySync(now + acknowledgement_timeout.max(MIN_START_WAIT))
            }
        }
    }

    /// Returns the time from which the event needs a sync. `since` is the time of recording.
    pub(super) fn sync_at(self, since: Instant) -> Option<Instant> {
        match self {
            Self::Sync => Some(since),
            Self::AcknowledgementOrSyncAt(at) | Self::AcknowledgementOrAnySync(at) => Some(at),
            Self::Write | Self::Acknowledgement => None,
        }
    }

    /// Returns true if a sync that ends at `now` meets the condition.
    fn is_met_by_sync(self, since: Instant, now: Instant) -> bool {
        matches!(self, Self::AcknowledgementOrAnySync(_)) || self.sync_at(since).is_some_and(|at| at <= now)
    }
}

impl Waiters {
    /// Adds a waiter for an event. The receiver resolves when the condition is met.
    pub(super) fn add(
        &mut self,
        number: u64,
        condition: WaitCondition,
        now: Instant,
    ) -> oneshot::Receiver<Result<Durability, JournalError>> {
        let (sender, receiver) = oneshot::channel();
        self.0.insert(number, Waiter { sender, since: now, condition });
        receiver
    }

    /// Resolves the waiter of an acknowledged event, unless the waiter demands a sync.
    pub(super) fn resolve_acknowledged(&mut self, number: u64) {
        if self.0.get(&number).is_some_and(|waiter| waiter.condition != WaitCondition::Sync) {
            self.resolve(number, Ok(Durability::Broker));
        }
    }

    /// Resolves the waiter of an event that is in the log, if the log suffices. Returns the time from which the event needs
    /// a sync otherwise.
    pub(super) fn resolve_written(&mut self, number: u64) -> Option<Instant> {
        let waiter = self.0.get(&number)?;
        if waiter.condition == WaitCondition::Write {
            self.resolve(number, Ok(Durability::Journal));
            return None;
        }
        waiter.condition.sync_at(waiter.since)
    }

    /// Notes that an event is held only in memory, because the log cannot be written.
    pub(super) fn mark_unwritten(&mut self, number: u64) {
        if let Some(waiter) = self.0.get_mut(&number) {
            waiter.condition = WaitCondition::Acknowledgement;
        }
    }

    /// Resolves waiters of events up to `up_to`, which are on the disk. Returns true if the broker took too long for
    /// one of the events. An event that gave the broker no time says nothing about the broker.
    pub(super) fn resolve_synced(&mut self, up_to: u64, now: Instant) -> bool {
        let is_due = |waiter: &Waiter| waiter.condition.is_met_by_sync(waiter.since, now);
        let due: Vec<u64> =
            self.0.range(..=up_to).filter(|(_, waiter)| is_due(waiter)).map(|(number, _)| *number).collect();
        let mut was_late = false;
        for number in due {
            was_late |= self.0.get(&number).is_some_and(Waiter::gave_the_broker_time);
            self.resolve(number, Ok(Durability::Synced));
        }
        was_late
    }

    /// Turns waiters of newly written events into waiters for a sync. `unwritten` lists the events that are still held
    /// only in memory.
    pub(super) fn mark_written(&mut self, unwritten: &BTreeSet<u64>) {
        let written = self.0.iter_mut().filter(|(number, _)| !unwritten.contains(number));
        let in_memory = written.filter(|(_, waiter)| waiter.condition == WaitCondition::Acknowledgement);
        in_memory.for_each(|(_, waiter)| waiter.condition = WaitCondition::Sync);
    }

    /// Returns the earliest time at which an event numbered below `below` needs a sync.
    pub(super) fn sync_at(&self, below: u64) -> Option<Instant> {
        let waiters = self.0.range(..below).map(|(_, waiter)| waiter);
        waiters.filter_map(|waiter| waiter.condition.sync_at(waiter.since)).min()
    }

    /// Resolves all waiters that have waited for [`MAX_WAIT`], and returns their number. Events from `unwritten_from` on are
    /// not in the log.
    pub(super) fn resolve_late(&mut self, now: Instant, unwritten_from: u64) -> u64 {
        let is_late = |waiter: &Waiter| now.duration_since(waiter.since) >= MAX_WAIT;
        let late: Vec<u64> = self.0.iter().filter(|(_, waiter)| is_late(waiter)).map(|(number, _)| *number).collect();
        for number in &late {
            let in_memory = *number >= unwritten_from
                || self.0.get(number).is_some_and(|waiter| waiter.condition == WaitCondition::Acknowledgement);
            self.resolve(*number, Ok(if in_memory { Durability::Memory } else { Durability::Journal }));
        }
        late.len() as u64
    }

    /// Resolves the waiter of an event, if there is one.
    pub(super) fn resolve(&mut self, number: u64, outcome: Result<Durability, JournalError>) {
        if let Some(waiter) = self.0.remove(&number) {
            // The receiver may be gone. The event is recorded nevertheless.
            let _ = waiter.sender.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_durability_level_waits_for_its_own_condition() {
        let now = Instant::now();
        let acknowledgement_timeout = Duration::from_millis(250);
        let mut waiters = Waiters::default();
        let mut written =
            waiters.add(5, WaitCondition::for_level(DurabilityLevel::Journal, now, acknowledgement_timeout), now);
        let mut synced =
            waiters.add(1, WaitCondition::for_level(DurabilityLevel::Synced, now, acknowledgement_timeout), now);
        let mut replicated =
            waiters.add(2, WaitCondition::for_level(DurabilityLevel::Replicated, now, acknowledgement_timeout), now);
        let mut unacknowledged =
            waiters.add(3, WaitCondition::for_level(DurabilityLevel::Replicated, now, acknowledgement_timeout), now);
        let mut unwritten = waiters.add(4, WaitCondition::Acknowledgement, now);

        assert_eq!(waiters.resolve_written(5), None);
        assert_eq!(written.try_recv(), Ok(Ok(Durability::Journal)));
        assert_eq!(waiters.resolve_written(1), Some(now), "the log does not suffice");
        waiters.resolve_acknowledged(1);
        assert!(synced.try_recv().is_err(), "an acknowledgement must not count as a sync");
        waiters.resolve_acknowledged(2);
        assert_eq!(replicated.try_recv(), Ok(Ok(Durability::Broker)));
        assert!(!waiters.resolve_synced(4, now));
        assert_eq!(synced.try_recv(), Ok(Ok(Durability::Synced)));
        assert!(unacknowledged.try_recv().is_err(), "the acknowledgement timeout has not passed");
        assert_eq!(waiters.sync_at(u64::MAX), Some(now + acknowledgement_timeout));
        assert_eq!(waiters.sync_at(3), None, "an event that is not written needs no sync");
        assert!(waiters.resolve_synced(4, now + acknowledgement_timeout));
        assert_eq!(unacknowledged.try_recv(), Ok(Ok(Durability::Synced)));
        assert!(unwritten.try_recv().is_err(), "a sync covers no event that is not in the log");
        assert_eq!(waiters.resolve_late(now + MAX_WAIT, u64::MAX), 1);
        assert_eq!(unwritten.try_recv(), Ok(Ok(Durability::Memory)));
    }

    #[test]
    fn a_late_event_that_is_not_in_the_log_counts_as_held_in_memory() {
        let now = Instant::now();
        let mut waiters = Waiters::default();
        let (mut in_log, mut queued) =
            (waiters.add(1, WaitCondition::Sync, now), waiters.add(2, WaitCondition::Sync, now));
        assert_eq!(waiters.resolve_late(now + MAX_WAIT, 2), 2);
        assert_eq!((in_log.try_recv(), queued.try_recv()), (Ok(Ok(Durability::Journal)), Ok(Ok(Durability::Memory))));
    }

    #[test]
    fn an_event_that_gave_the_broker_no_time_does_not_count_as_a_late_acknowledgement() {
        let now = Instant::now();
        let mut waiters = Waiters::default();
        let condition = WaitCondition::for_level(DurabilityLevel::Replicated, now, Duration::ZERO);
        let mut behind = waiters.add(1, condition, now);
        assert!(!waiters.resolve_synced(1, now + Duration::from_secs(1)));
        assert_eq!(behind.try_recv(), Ok(Ok(Durability::Synced)));
    }

    #[test]
    fn a_start_resolves_at_the_first_acknowledgement_or_sync() {
        let now = Instant::now();
        let mut waiters = Waiters::default();
        let acknowledgement_timeout = Duration::ZERO;
        let condition = |level| WaitCondition::for_start(level, now, acknowledgement_timeout);
        let log = WaitCondition::Write;
        assert_eq!((condition(DurabilityLevel::Journal), condition(DurabilityLevel::Synced)), (log, log));
        let condition = condition(DurabilityLevel::Replicated);
        let (mut first, mut second) = (waiters.add(1, condition, now), waiters.add(2, condition, now));
        assert_eq!(waiters.sync_at(u64::MAX), Some(now + MIN_START_WAIT), "a start asks for a sync late");
        waiters.resolve_acknowledged(1);
        assert_eq!(first.try_recv(), Ok(Ok(Durability::Broker)));
        assert!(!waiters.resolve_synced(2, now), "the broker was not late");
        assert_eq!(second.try_recv(), Ok(Ok(Durability::Synced)));
    }
}
