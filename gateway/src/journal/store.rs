//! The state that the journal's callers, the journal's threads and the relay share.
//!
//! Two locks: the state, which is held for microseconds and never during an operation on the disk; and the disk, which only
//! the journal's own threads take, and which is held for as long as the disk takes. A thread that holds the disk may take
//! the state, never the reverse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shared::event::ChatDeferred;
use tokio::sync::Notify;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, CheckpointFile};
use super::directory::LogDirectory;
use super::durability::DurabilityLevel;
use super::error::JournalError;
use super::lock::DirectoryLock;
use super::log::{AppendOutcome, BYTES_RESERVED_PER_CHAT, Log, LogView};
use super::queue::{RoomNeed, WriteQueue};
use super::tail::Tail;
use super::waiters::Waiters;
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

/// The state that the journal's callers, the journal's threads and the relay share.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) state: Mutex<StoreState>,
    pub(super) disk: Mutex<Disk>,
    /// Wakes the writer thread, after an event was queued or housekeeping is due.
    pub(super) writer_wake: Condvar,
    /// Wakes the sync thread, after an event was written or the writer thread has ended.
    pub(super) sync_thread_wake: Condvar,
    /// Wakes the relay, after an entry was recorded or the journal was closed.
    pub(super) entry_arrived: Notify,
    pub(super) settings: JournalSettings,
    pub(super) broker_health: Arc<BrokerHealth>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) directory: LogDirectory,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) earliest_start: Arc<EarliestStart>,
    /// The chats of the previous process whose answers providers make in the background, until they are taken.
    pub(super) deferred: Mutex<Vec<ChatDeferred>>,
    /// The id of the journal's directory.
    pub(super) id: Option<Uuid>,
    pub(super) _lock: DirectoryLock,
}

#[derive(Debug)]
pub(super) struct StoreState {
    /// The number of the next event.
    pub(super) next_number: u64,
    pub(super) queue: WriteQueue,
    pub(super) tail: Tail,
    pub(super) waiters: Waiters,
    /// The log as of the last operation of one of the journal's threads.
    pub(super) view: LogView,
    /// The reason for which the disk has no room for another chat.
    pub(super) shortage: Option<JournalError>,
    pub(super) checkpoint: Checkpoint,
    /// Work for the writer thread beside the queue.
    pub(super) housekeeping: Housekeeping,
    /// The number of damaged places that have been counted, by segment.
    pub(super) damage: BTreeMap<u64, u64>,
    pub(super) is_writer_waiting: bool,
    pub(super) sync_thread_state: SyncThreadState,
    pub(super) lifecycle: Lifecycle,
}

/// Work for the writer thread beside the queue.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    /// True if the checkpoint has to be written, or segments may be removed.
    pub(super) is_due: bool,
    /// While set, expired segments are kept, because the relay is publishing their events again.
    pub(super) is_retention_paused: bool,
    /// The retention of all segments starts anew.
    pub(super) must_restart_retention: bool,
    /// Events that the broker has acknowledged, and that the log may hold in memory.
    pub(super) acknowledged: Vec<u64>,
}

/// The stages of a journal's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lifecycle {
    Open,
    /// Nothing is recorded any more. The relay goes on.
    Closed,
    /// The threads finish their work and end.
    Finishing,
    /// The writer thread has ended.
    Written,
}

/// The parts of the journal that are on the disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) log: Log,
    pub(super) checkpoint_file: CheckpointFile,
    pub(super) written_checkpoint: Checkpoint,
}

impl Store {
    pub(super) fn lock(&self) -> MutexGuard<'_, StoreState> {
        // A panic under the lock is a bug that has been reported elsewhere. The state is consistent between any two
        // writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks while the disk hangs. To be called by the journal's own threads only.
    pub(super) fn lock_disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the journal to a later stage of its life.
    pub(super) fn advance_to(&self, stage: Lifecycle) {
        let mut state = self.lock();
        state.lifecycle = state.lifecycle.max(stage);
    }

    /// Changes the log, and shows the change to everybody. Blocks while the disk hangs.
    pub(super) fn change_log<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let mut disk = self.lock_disk();
        let result = change(&mut disk.log);
        drop(self.show(&mut disk));
        result
    }

    /// Makes room for one more chat if there is none, and shows the state of the log to everybody.
    pub(super) fn show(&self, disk: &mut Disk) -> MutexGuard<'_, StoreState> {
        let is_short = disk.log.view().free_bytes < BYTES_RESERVED_PER_CHAT;
        let shortage = if is_short { disk.log.reserve_for_new_chat(0).err() } else { None };
        let view = disk.log.view();
        let mut state = self.lock();
        (state.view, state.shortage) = (view, shortage);
        state
    }
}

impl StoreState {
    /// Returns the reason for which no new chat can be recorded at present, or `None` if one can.
    pub(super) fn refusal(&self, now: Instant) -> Option<JournalError> {
        if self.lifecycle != Lifecycle::Open {
            Some(JournalError::Closed)
        } else if !self.view.is_writable {
            Some(JournalError::Unwritable)
        } else if self.queue.is_stuck(now) {
            Some(JournalError::Stuck)
        } else {
            None
        }
    }

    /// Returns the reason for which no end of a chat can be recorded, or `None` if one can.
    pub(super) fn refusal_of_end(&self) -> Option<JournalError> {
        (self.lifecycle != Lifecycle::Open).then_some(JournalError::Closed)
    }

    /// Returns the room that an event of `len` bytes needs on the disk, with the end of one more chat.
    pub(super) fn room_for(&self, len: usize) -> RoomNeed {
        let needed = BYTES_RESERVED_PER_CHAT + len as u64;
        // A larger event may fit in no reserved segment.
        let is_found =
            len as u64 <= BYTES_RESERVED_PER_CHAT && self.queue.claimed_room() + needed <= self.view.free_bytes;
        if is_found { RoomNeed::Found(needed) } else { RoomNeed::Unknown(needed) }
    }

    /// Returns the number after the highest number of an event that was not refused.
    pub(super) fn recorded_below(&self) -> u64 {
        if self.queue.is_empty() { self.view.next_number } else { self.next_number }
    }

    /// Returns the number below which the broker has acknowledged every event.
    pub(super) fn released_below(&self) -> u64 {
        self.checkpoint.released_below
    }

    /// Hands events to the relay for which the disk takes too long.
    pub(super) fn publish_overdue(&mut self, now: Instant) {
        for (entry, priority) in self.queue.take_overdue(now) {
            self.tail.push(&entry, AppendOutcome::InMemory, priority);
        }
    }

    /// Notes that a reader has found `places` damaged places from the beginning of a segment so far. Returns the number
    /// of places that no reader has found before: recovery, the relay and a republication read the same segments.
    pub(super) fn count_damage(&mut self, segment: u64, places: u64) -> u64 {
        if places == 0 {
            return 0;
        }
        let known = self.damage.entry(segment).or_default();
        let new = places.saturating_sub(*known);
        *known += new;
        new
    }

    /// Returns true if events are written without delay.
    pub(super) fn is_writable(&self, now: Instant) -> bool {
        self.view.is_writable && !self.queue.is_stuck(now)
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
