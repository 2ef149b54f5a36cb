//! What the journal's users, the thread that syncs and the relay share.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::checkpoint::{Released, ReleasedFile};
use super::durability::{Durability, Level};
use super::lock::Lock;
use super::log::{Kept, Log};
use super::recorded::Recorded;
use super::segment::Directory;
use super::tail::Feed;
use super::waiters::{Needs, Waiters};
use crate::broker::BrokerHealth;
use crate::metrics::Metrics;

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory that it is in.
    pub directory: PathBuf,
    /// What is waited for.
    pub level: Level,
    /// How long the broker's acknowledgement is waited for before the disk has to do.
    pub patience: Duration,
    /// How large it may become.
    pub max_bytes: u64,
    /// For how long the broker may lose what it has acknowledged: released events are kept for that long.
    pub keep: Duration,
}

/// What the journal's users, its keeper and the relay share.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) state: Mutex<State>,
    /// Wakes the keeper.
    pub(super) work: Condvar,
    /// Wakes the relay.
    pub(super) arrived: Notify,
    pub(super) settings: Settings,
    pub(super) health: Arc<BrokerHealth>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) directory: Directory,
    pub(super) keeper: Mutex<Option<JoinHandle<()>>>,
    pub(super) _lock: Lock,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) feed: Feed,
    pub(super) waiters: Waiters,
    pub(super) keeper: Doing,
    pub(super) is_closed: bool,
    pub(super) released_file: ReleasedFile,
    pub(super) released: Released,
}

impl Store {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a defect that has been reported; the data is in order between any two writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an event that was just appended waited for, until it is as durable as is asked.
    pub(super) fn wait_for(
        &self,
        state: &mut State,
        number: u64,
        kept: Kept,
        needs: impl Fn(Level, Instant, Duration) -> Option<Needs>,
    ) -> Recorded {
        let now = Instant::now();
        // A broker that is known to be away is not waited for, nor one that has much to catch up with first.
        let is_near = self.health.is_well() && state.feed.keeps_up();
        let patience = if is_near { self.settings.patience } else { Duration::ZERO };
        let needs = match kept {
            Kept::Written => needs(self.settings.level, now, patience),
            Kept::InMemory => Some(Needs::Acknowledgement),
            Kept::Nowhere => return Recorded::known(Ok(Durability::Lost)),
        };
        if state.keeper.has_to_wake(needs.and_then(|needs| needs.sync_at(now))) {
            self.work.notify_one();
        }
        let outcome = match needs {
            None => Err(Ok(Durability::Journal)),
            Some(needs) => Ok(state.waiters.add(number, needs, now)),
        };
        Recorded { outcome, is_written: kept == Kept::Written }
    }
}

/// What the keeper is doing, so that whoever has work for it knows whether to wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It works, and will look for more.
    Work,
    /// It sleeps until this time.
    Nap(Instant),
    /// It sleeps until it is woken.
    Sleep,
}

impl Doing {
    /// Whether an event has to wake it that was just recorded, and becomes worth syncing for at this time.
    pub(super) fn has_to_wake(self, sync_at: Option<Instant>) -> bool {
        match self {
            Self::Work => false,
            Self::Nap(until) => sync_at.is_some_and(|at| at < until),
            Self::Sleep => true,
        }
    }
}
