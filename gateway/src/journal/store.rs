//! The state that the journal's callers, the sync thread and the relay share.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, CheckpointFile};
use super::directory::LogDirectory;
use super::durability::{Durability, DurabilityLevel};
use super::lock::DirectoryLock;
use super::log::{AppendOutcome, Log};
use super::recorded::Recorded;
use super::tail::Tail;
use super::waiters::{WaitCondition, Waiters};
use crate::broker::BrokerHealth;
use crate::broker::earliest_start::EarliestStart;
use crate::metrics::Metrics;

/// The journal's settings, read once at the start of the gateway.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// The directory of the segments, the checkpoint and the lock file: `journal` below `GATEWAY_DATA_DIR`.
    pub directory: PathBuf,
    /// The durability that an event must reach before its effect may be seen, from `GATEWAY_DURABILITY`.
    pub level: DurabilityLevel,
    /// The time to wait for the broker's acknowledgement before a sync to the disk suffices, from
    /// `GATEWAY_JOURNAL_PATIENCE`.
    pub acknowledgement_timeout: Duration,
    /// The maximum size of the log on disk in bytes, from `GATEWAY_JOURNAL_MAX_BYTES`.
    pub max_bytes: u64,
    /// The time for which released events are kept, because a broker may lose acknowledged events in a crash. From
    /// `GATEWAY_JOURNAL_KEEP`.
    pub retention: Duration,
}

/// The state that the journal's callers, the sync thread and the relay share.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) state: Mutex<StoreState>,
    /// Wakes the sync thread, after an event was recorded or the journal was closed.
    pub(super) sync_thread_wake: Condvar,
    /// Wakes the relay, after an entry was recorded or the journal was closed.
    pub(super) entry_arrived: Notify,
    pub(super) settings: JournalSettings,
    pub(super) broker_health: Arc<BrokerHealth>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) directory: LogDirectory,
    pub(super) sync_thread_handle: Mutex<Option<JoinHandle<()>>>,
    pub(super) earliest_start: Arc<EarliestStart>,
    /// The id of the journal's directory.
    pub(super) id: Option<Uuid>,
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
        // A panic under the lock is a bug that has been reported elsewhere. The state is consistent between any two
        // writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the caller of a newly appended event as a waiter, and wakes the sync thread if the event needs a sync
    /// sooner than planned.
    pub(super) fn wait_for(
        &self,
        state: &mut StoreState,
        number: u64,
        appended: AppendOutcome,
        condition: impl Fn(DurabilityLevel, Instant, Duration) -> Option<WaitCondition>,
    ) -> Recorded {
        let now = Instant::now();
        // A broker that is disconnected or slow is not waited for. Neither is a broker to which the relay has a backlog
        // to publish.
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

/// The activity of the sync thread, from which callers decide if the thread has to be woken for new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncThreadState {
    /// The thread is working, and looks for more work before sleeping.
    Working,
    /// The thread sleeps until the given time, unless woken earlier.
    SleepingUntil(Instant),
    /// The thread has no work, and sleeps until woken.
    Sleeping,
}

impl SyncThreadState {
    /// Returns true if the thread must be woken for a new event that needs a sync at `sync_at`.
    pub(super) fn must_be_woken_for(self, sync_at: Option<Instant>) -> bool {
        match self {
            Self::Working => false,
            Self::SleepingUntil(until) => sync_at.is_some_and(|at| at < until),
            Self::Sleeping => true,
        }
    }
}
