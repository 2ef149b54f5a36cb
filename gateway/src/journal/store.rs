//! What the journal's users, the thread that syncs and the relay share.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::checkpoint::{Checkpoint, CheckpointFile};
use super::durability::{Durability, DurabilityLevel};
use super::lock::DirectoryLock;
use super::log::{AppendOutcome, Log};
use super::recorded::Recorded;
use super::segment::LogDirectory;
use super::tail::Tail;
use super::waiters::{WaitCondition, Waiters};
use crate::broker::BrokerHealth;
use crate::metrics::Metrics;

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// The directory that it is in.
    pub directory: PathBuf,
    /// What is waited for.
    pub level: DurabilityLevel,
    /// How long the broker's acknowledgement is waited for before the disk has to do.
    pub acknowledgement_timeout: Duration,
    /// How large it may become.
    pub max_bytes: u64,
    /// For how long the broker may lose what it has acknowledged: released events are kept for that long.
    pub retention: Duration,
}

/// What the journal's users, its sync thread and the relay share.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) state: Mutex<StoreState>,
    /// Wakes the sync thread.
    pub(super) sync_thread_wake: Condvar,
    /// Wakes the relay.
    pub(super) entry_arrived: Notify,
    pub(super) settings: JournalSettings,
    pub(super) broker_health: Arc<BrokerHealth>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) directory: LogDirectory,
    pub(super) sync_thread_handle: Mutex<Option<JoinHandle<()>>>,
    pub(super) _lock: DirectoryLock,
}

#[derive(Debug)]
pub(super) struct StoreState {
    pub(super) log: Log,
    pub(super) tail: Tail,
    pub(super) waiters: Waiters,
    pub(super) sync_thread_state: SyncThreadState,
    pub(super) is_closed: bool,
    pub(super) checkpoint_file: CheckpointFile,
    pub(super) checkpoint: Checkpoint,
}

impl Store {
    pub(super) fn lock(&self) -> MutexGuard<'_, StoreState> {
        // A panic while it was held is a defect that has been reported; the data is in order between any two writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an event that was just appended waited for, until it is as durable as is asked.
    pub(super) fn wait_for(
        &self,
        state: &mut StoreState,
        number: u64,
        appended: AppendOutcome,
        condition: impl Fn(DurabilityLevel, Instant, Duration) -> Option<WaitCondition>,
    ) -> Recorded {
        let now = Instant::now();
        // A broker that is known to be away is not waited for, nor one that has much to catch up with first.
        let is_broker_current = self.broker_health.is_responsive() && state.tail.is_caught_up();
        let acknowledgement_timeout =
            if is_broker_current { self.settings.acknowledgement_timeout } else { Duration::ZERO };
        let condition = match appended {
            AppendOutcome::Written => condition(self.settings.level, now, acknowledgement_timeout),
            AppendOutcome::InMemory => Some(WaitCondition::Acknowledgement),
            AppendOutcome::Dropped => return Recorded::resolved(Ok(Durability::Lost)),
        };
        if state.sync_thread_state.must_be_woken_for(condition.and_then(|condition| condition.sync_at(now))) {
            self.sync_thread_wake.notify_one();
        }
        let outcome = match condition {
            None => Err(Ok(Durability::Journal)),
            Some(condition) => Ok(state.waiters.add(number, condition, now)),
        };
        Recorded { outcome, is_written: appended == AppendOutcome::Written }
    }
}

/// What the sync thread is doing, so that whoever has work for it knows whether to wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncThreadState {
    /// It works, and will look for more.
    Working,
    /// It sleeps until this time.
    SleepingUntil(Instant),
    /// It sleeps until it is woken.
    Sleeping,
}

impl SyncThreadState {
    /// Whether an event has to wake it that was just recorded, and becomes worth syncing for at this time.
    pub(super) fn must_be_woken_for(self, sync_at: Option<Instant>) -> bool {
        match self {
            Self::Working => false,
            Self::SleepingUntil(until) => sync_at.is_some_and(|at| at < until),
            Self::Sleeping => true,
        }
    }
}
