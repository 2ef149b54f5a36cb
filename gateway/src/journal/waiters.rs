//! Who waits for an event to be durable, and what it takes. Pure: time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::durability::{Durability, Level};

/// How long anyone waits. After that what is there has to do: a client does not wait for a disk that hangs.
pub(super) const LATE: Duration = Duration::from_secs(10);

/// How long a start waits at least for a sync that is not its own: nobody waits for it yet.
const START: Duration = Duration::from_millis(250);

/// Those who wait, by the number of their event.
#[derive(Debug, Default)]
pub(super) struct Waiters(BTreeMap<u64, Waiter>);

#[derive(Debug)]
struct Waiter {
    done: oneshot::Sender<Durability>,
    since: Instant,
    needs: Needs,
}

/// What an event is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// To be on the disk.
    Sync,
    /// To be acknowledged by the broker, or, from then on, to be on the disk.
    AcknowledgementOrSyncAt(Instant),
    /// To be acknowledged, or to be on the disk, whoever had it synced; from then on it asks for that itself.
    AcknowledgementOrAnySync(Instant),
    /// To be acknowledged: the log cannot be written.
    Acknowledgement,
}

impl Needs {
    /// What an event needs that is in the log. `patience` is how long the broker is waited for.
    pub(super) fn at(level: Level, now: Instant, patience: Duration) -> Option<Self> {
        match level {
            Level::Journal => None,
            Level::Synced => Some(Self::Sync),
            Level::Replicated => Some(Self::AcknowledgementOrSyncAt(now + patience)),
        }
    }

    /// What the start of a chat needs that is in the log, before its end may be seen. The sync that an end waits for has
    /// the start in it; only where the end was acknowledged, the start has to be, too.
    pub(super) fn of_start(level: Level, now: Instant, patience: Duration) -> Option<Self> {
        match level {
            Level::Journal | Level::Synced => None,
            Level::Replicated => Some(Self::AcknowledgementOrAnySync(now + patience.max(START))),
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
    fn is_content_with_sync(self, since: Instant, now: Instant) -> bool {
        matches!(self, Self::AcknowledgementOrAnySync(_)) || self.sync_at(since).is_some_and(|at| at <= now)
    }
}

impl Waiters {
    /// Somebody waits for this event.
    pub(super) fn add(&mut self, number: u64, needs: Needs, now: Instant) -> oneshot::Receiver<Durability> {
        let (done, recorded) = oneshot::channel();
        self.0.insert(number, Waiter { done, since: now, needs });
        recorded
    }

    /// The broker has this event.
    pub(super) fn acknowledged(&mut self, number: u64) {
        if self.0.get(&number).is_some_and(|waiter| waiter.needs != Needs::Sync) {
            self.resolve(number, Durability::Broker);
        }
    }

    /// What is in the log up to this number is on the disk. Returns whether the broker took too long for any of it.
    pub(super) fn synced(&mut self, up_to: u64, now: Instant) -> bool {
        let is_due = |waiter: &Waiter| waiter.needs.is_content_with_sync(waiter.since, now);
        let due: Vec<u64> =
            self.0.range(..=up_to).filter(|(_, waiter)| is_due(waiter)).map(|(number, _)| *number).collect();
        let mut was_late = false;
        for number in due {
            was_late |=
                self.0.get(&number).is_some_and(|waiter| matches!(waiter.needs, Needs::AcknowledgementOrSyncAt(_)));
            self.resolve(number, Durability::Synced);
        }
        was_late
    }

    /// What was in memory alone is in the log, but for these.
    pub(super) fn written(&mut self, still_held: &BTreeSet<u64>) {
        let written = self.0.iter_mut().filter(|(number, _)| !still_held.contains(number));
        let in_memory = written.filter(|(_, waiter)| waiter.needs == Needs::Acknowledgement);
        in_memory.for_each(|(_, waiter)| waiter.needs = Needs::Sync);
    }

    /// When the next event becomes worth syncing for.
    pub(super) fn sync_at(&self) -> Option<Instant> {
        self.0.values().filter_map(|waiter| waiter.needs.sync_at(waiter.since)).min()
    }

    /// Lets those go that have waited too long. Returns how many.
    pub(super) fn late(&mut self, now: Instant) -> u64 {
        let is_late = |waiter: &Waiter| now.duration_since(waiter.since) >= LATE;
        let late: Vec<u64> = self.0.iter().filter(|(_, waiter)| is_late(waiter)).map(|(number, _)| *number).collect();
        for number in &late {
            let in_memory = self.0.get(number).is_some_and(|waiter| waiter.needs == Needs::Acknowledgement);
            self.resolve(*number, if in_memory { Durability::Memory } else { Durability::Journal });
        }
        late.len() as u64
    }

    fn resolve(&mut self, number: u64, how: Durability) {
        if let Some(waiter) = self.0.remove(&number) {
            // Nobody may be waiting any longer. It is recorded all the same.
            let _ = waiter.done.send(how);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_waits_for_what_it_says() {
        let now = Instant::now();
        let patience = Duration::from_millis(250);
        let mut waiters = Waiters::default();
        assert_eq!(Needs::at(Level::Journal, now, patience), None);
        let mut synced = waiters.add(1, Needs::at(Level::Synced, now, patience).unwrap(), now);
        let mut replicated = waiters.add(2, Needs::at(Level::Replicated, now, patience).unwrap(), now);
        let mut patient = waiters.add(3, Needs::at(Level::Replicated, now, patience).unwrap(), now);
        let mut held = waiters.add(4, Needs::Acknowledgement, now);

        waiters.acknowledged(1);
        assert!(synced.try_recv().is_err(), "an acknowledgement is no sync");
        waiters.acknowledged(2);
        assert_eq!(replicated.try_recv(), Ok(Durability::Broker));
        assert!(!waiters.synced(4, now));
        assert_eq!(synced.try_recv(), Ok(Durability::Synced));
        assert!(patient.try_recv().is_err(), "the broker has time yet");
        assert_eq!(waiters.sync_at(), Some(now + patience));
        assert!(waiters.synced(4, now + patience));
        assert_eq!(patient.try_recv(), Ok(Durability::Synced));
        assert!(held.try_recv().is_err(), "it is not in the log");
        assert_eq!(waiters.late(now + LATE), 1);
        assert_eq!(held.try_recv(), Ok(Durability::Memory));
    }

    #[test]
    fn a_start_is_content_with_whatever_comes_first() {
        let now = Instant::now();
        let mut waiters = Waiters::default();
        let patience = Duration::ZERO;
        let needs = |level| Needs::of_start(level, now, patience);
        assert_eq!((needs(Level::Journal), needs(Level::Synced)), (None, None));
        let needs = needs(Level::Replicated).unwrap();
        let (mut first, mut second) = (waiters.add(1, needs, now), waiters.add(2, needs, now));
        assert_eq!(waiters.sync_at(), Some(now + START), "it is in no hurry");
        waiters.acknowledged(1);
        assert_eq!(first.try_recv(), Ok(Durability::Broker));
        assert!(!waiters.synced(2, now), "nobody was too slow");
        assert_eq!(second.try_recv(), Ok(Durability::Synced));
    }
}
