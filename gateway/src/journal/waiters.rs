//! Who waits for an event to be durable, and what it takes. Pure: time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::durability::{Durability, DurabilityLevel};

/// How long anyone waits. After that what is there has to do: a client does not wait for a disk that hangs.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(10);

/// How long a start waits at least for a sync that is not its own: nobody waits for it yet.
const MIN_START_WAIT: Duration = Duration::from_millis(250);

/// Those who wait, by the number of their event.
#[derive(Debug, Default)]
pub(super) struct Waiters(BTreeMap<u64, Waiter>);

#[derive(Debug)]
struct Waiter {
    sender: oneshot::Sender<Durability>,
    since: Instant,
    condition: WaitCondition,
}

/// What an event is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitCondition {
    /// To be on the disk.
    Sync,
    /// To be acknowledged by the broker, or, from then on, to be on the disk.
    AcknowledgementOrSyncAt(Instant),
    /// To be acknowledged, or to be on the disk, whoever had it synced; from then on it asks for that itself.
    AcknowledgementOrAnySync(Instant),
    /// To be acknowledged: the log cannot be written.
    Acknowledgement,
}

impl WaitCondition {
    /// What an event needs that is in the log. `acknowledgement_timeout` is how long the broker is waited for.
    pub(super) fn for_level(level: DurabilityLevel, now: Instant, acknowledgement_timeout: Duration) -> Option<Self> {
        match level {
            DurabilityLevel::Journal => None,
            DurabilityLevel::Synced => Some(Self::Sync),
            DurabilityLevel::Replicated => Some(Self::AcknowledgementOrSyncAt(now + acknowledgement_timeout)),
        }
    }

    /// What the start of a chat needs that is in the log, before its end may be seen. The sync that an end waits for has
    /// the start in it; only where the end was acknowledged, the start has to be, too.
    pub(super) fn for_start(level: DurabilityLevel, now: Instant, acknowledgement_timeout: Duration) -> Option<Self> {
        match level {
            DurabilityLevel::Journal | DurabilityLevel::Synced => None,
            DurabilityLevel::Replicated => {
                Some(Self::AcknowledgementOrAnySync(now + acknowledgement_timeout.max(MIN_START_WAIT)))
            }
        }
    }

    /// When it becomes worth syncing for, if it is asked for now.
    pub(super) fn sync_at(self, since: Instant) -> Option<Instant> {
        match self {
            Self::Sync => Some(since),
            Self::AcknowledgementOrSyncAt(at) | Self::AcknowledgementOrAnySync(at) => Some(at),
            Self::Acknowledgement => None,
        }
    }

    /// Whether a sync that ends now is enough for it.
    fn is_met_by_sync(self, since: Instant, now: Instant) -> bool {
        matches!(self, Self::AcknowledgementOrAnySync(_)) || self.sync_at(since).is_some_and(|at| at <= now)
    }
}

impl Waiters {
    /// Somebody waits for this event.
    pub(super) fn add(&mut self, number: u64, condition: WaitCondition, now: Instant) -> oneshot::Receiver<Durability> {
        let (sender, receiver) = oneshot::channel();
        self.0.insert(number, Waiter { sender, since: now, condition });
        receiver
    }

    /// The broker has this event.
    pub(super) fn resolve_acknowledged(&mut self, number: u64) {
        if self.0.get(&number).is_some_and(|waiter| waiter.condition != WaitCondition::Sync) {
            self.resolve(number, Durability::Broker);
        }
    }

    /// What is in the log up to this number is on the disk. Returns whether the broker took too long for any of it.
    pub(super) fn resolve_synced(&mut self, up_to: u64, now: Instant) -> bool {
        let is_due = |waiter: &Waiter| waiter.condition.is_met_by_sync(waiter.since, now);
        let due: Vec<u64> =
            self.0.range(..=up_to).filter(|(_, waiter)| is_due(waiter)).map(|(number, _)| *number).collect();
        let mut was_late = false;
        for number in due {
            was_late |= self
                .0
                .get(&number)
                .is_some_and(|waiter| matches!(waiter.condition, WaitCondition::AcknowledgementOrSyncAt(_)));
            self.resolve(number, Durability::Synced);
        }
        was_late
    }

    /// What was in memory alone is in the log, but for these.
    pub(super) fn mark_written(&mut self, unwritten: &BTreeSet<u64>) {
        let written = self.0.iter_mut().filter(|(number, _)| !unwritten.contains(number));
        let in_memory = written.filter(|(_, waiter)| waiter.condition == WaitCondition::Acknowledgement);
        in_memory.for_each(|(_, waiter)| waiter.condition = WaitCondition::Sync);
    }

    /// When the next event becomes worth syncing for.
    pub(super) fn sync_at(&self) -> Option<Instant> {
        self.0.values().filter_map(|waiter| waiter.condition.sync_at(waiter.since)).min()
    }

    /// Lets those go that have waited too long. Returns how many.
    pub(super) fn resolve_late(&mut self, now: Instant) -> u64 {
        let is_late = |waiter: &Waiter| now.duration_since(waiter.since) >= MAX_WAIT;
        let late: Vec<u64> = self.0.iter().filter(|(_, waiter)| is_late(waiter)).map(|(number, _)| *number).collect();
        for number in &late {
            let in_memory = self.0.get(number).is_some_and(|waiter| waiter.condition == WaitCondition::Acknowledgement);
            self.resolve(*number, if in_memory { Durability::Memory } else { Durability::Journal });
        }
        late.len() as u64
    }

    fn resolve(&mut self, number: u64, durability: Durability) {
        if let Some(waiter) = self.0.remove(&number) {
            // Nobody may be waiting any longer. It is recorded all the same.
            let _ = waiter.sender.send(durability);
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
        assert_eq!(WaitCondition::for_level(DurabilityLevel::Journal, now, acknowledgement_timeout), None);
        let mut synced = waiters.add(
            1,
            WaitCondition::for_level(DurabilityLevel::Synced, now, acknowledgement_timeout).unwrap(),
            now,
        );
        let mut replicated = waiters.add(
            2,
            WaitCondition::for_level(DurabilityLevel::Replicated, now, acknowledgement_timeout).unwrap(),
            now,
        );
        let mut unacknowledged = waiters.add(
            3,
            WaitCondition::for_level(DurabilityLevel::Replicated, now, acknowledgement_timeout).unwrap(),
            now,
        );
        let mut unwritten = waiters.add(4, WaitCondition::Acknowledgement, now);

        waiters.resolve_acknowledged(1);
        assert!(synced.try_recv().is_err(), "an acknowledgement is no sync");
        waiters.resolve_acknowledged(2);
        assert_eq!(replicated.try_recv(), Ok(Durability::Broker));
        assert!(!waiters.resolve_synced(4, now));
        assert_eq!(synced.try_recv(), Ok(Durability::Synced));
        assert!(unacknowledged.try_recv().is_err(), "the broker has time yet");
        assert_eq!(waiters.sync_at(), Some(now + acknowledgement_timeout));
        assert!(waiters.resolve_synced(4, now + acknowledgement_timeout));
        assert_eq!(unacknowledged.try_recv(), Ok(Durability::Synced));
        assert!(unwritten.try_recv().is_err(), "it is not in the log");
        assert_eq!(waiters.resolve_late(now + MAX_WAIT), 1);
        assert_eq!(unwritten.try_recv(), Ok(Durability::Memory));
    }

    #[test]
    fn a_start_resolves_at_the_first_acknowledgement_or_sync() {
        let now = Instant::now();
        let mut waiters = Waiters::default();
        let acknowledgement_timeout = Duration::ZERO;
        let condition = |level| WaitCondition::for_start(level, now, acknowledgement_timeout);
        assert_eq!((condition(DurabilityLevel::Journal), condition(DurabilityLevel::Synced)), (None, None));
        let condition = condition(DurabilityLevel::Replicated).unwrap();
        let (mut first, mut second) = (waiters.add(1, condition, now), waiters.add(2, condition, now));
        assert_eq!(waiters.sync_at(), Some(now + MIN_START_WAIT), "it is in no hurry");
        waiters.resolve_acknowledged(1);
        assert_eq!(first.try_recv(), Ok(Durability::Broker));
        assert!(!waiters.resolve_synced(2, now), "nobody was too slow");
        assert_eq!(second.try_recv(), Ok(Durability::Synced));
    }
}
