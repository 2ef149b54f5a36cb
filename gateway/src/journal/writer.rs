//! The writer thread: takes events from the queue, appends them to the log, and keeps house. A disk that hangs keeps this
//! thread waiting, and no caller.

use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::durability::Durability;
use super::error::JournalError;
use super::log::AppendOutcome;
use super::queue::{QueuedEvent, QueuedKind, RoomNeed, WriteJob};
use super::record::JournalEntry;
use super::store::{Disk, Lifecycle, Store, StoreState};
use super::tail::Priority;

/// The maximum number of events that are written before their callers are told.
const MAX_BATCH_EVENTS: usize = 32;

/// The time after which an idle thread looks if the journal still exists.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

/// The result of writing a queued event.
enum WriteOutcome {
    Refused(JournalError),
    Appended(AppendOutcome),
    /// A copy of an event, or `None` if the copy could not be written.
    Copied(Option<JournalEntry>),
    /// The broker has acknowledged the event, so the event was not written.
    Skipped,
}

/// Starts the writer thread. The thread ends when the journal is finished, or when the last handle to the journal is gone.
pub(super) fn start(store: &Arc<Store>) -> std::io::Result<JoinHandle<()>> {
    let store = Arc::downgrade(store);
    std::thread::Builder::new().name("journal-write".into()).spawn(move || while step(&store) {})
}

/// Waits for work, and does some. Returns false when the thread must end.
fn step(store: &Weak<Store>) -> bool {
    let Some(store) = store.upgrade() else { return false };
    let mut state = store.lock();
    if state.queue.is_empty() && !state.housekeeping.is_due {
        if state.lifecycle >= Lifecycle::Finishing {
            state.lifecycle = Lifecycle::Written;
            store.sync_thread_wake.notify_all();
            return false;
        }
        state.is_writer_waiting = true;
        let waited = store.writer_wake.wait_timeout(state, IDLE_INTERVAL);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_writer_waiting = false;
    }
    let has_work = !state.queue.is_empty() || state.housekeeping.is_due;
    drop(state);
    if has_work {
        let mut disk = store.lock_disk();
        store.write_batch(&mut disk);
        store.keep_house(&mut disk);
    }
    true
}

impl Store {
    /// Writes all queued events. Blocks while the disk hangs.
    pub(super) fn write_queue(&self) {
        while !self.lock().queue.is_empty() {
            self.write_batch(&mut self.lock_disk());
        }
    }

    /// Writes the first events of the queue, and tells their callers. Blocks while the disk hangs.
    fn write_batch(&self, disk: &mut Disk) {
        let jobs = self.lock().queue.jobs(MAX_BATCH_EVENTS);
        if jobs.is_empty() {
            return;
        }
        let outcomes: Vec<_> = jobs.into_iter().map(|job| disk.write(job)).collect();
        let mut state = self.show(disk);
        let mut must_wake_relay = false;
        let mut must_wake_sync_thread = false;
        for outcome in outcomes {
            let Some(event) = state.queue.pop() else { break };
            let sync_at = state.settle(event, outcome, &mut must_wake_relay);
            must_wake_sync_thread |= state.sync_thread_state.must_be_woken_for(sync_at);
        }
        // The sync thread tries again to write what could not be written.
        must_wake_sync_thread |= state.view.has_unwritten && state.sync_thread_state.must_be_woken_for(None);
        drop(state);
        if must_wake_sync_thread {
            self.sync_thread_wake.notify_one();
        }
        if must_wake_relay {
            self.entry_arrived.notify_one();
        }
    }

    /// Writes the checkpoint and removes expired segments, if that is due. Blocks while the disk hangs.
    fn keep_house(&self, disk: &mut Disk) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.housekeeping.is_due) {
            return;
        }
        let checkpoint = state.checkpoint;
        let acknowledged = std::mem::take(&mut state.housekeeping.acknowledged);
        disk.log.is_retention_paused = state.housekeeping.is_retention_paused;
        if std::mem::take(&mut state.housekeeping.must_restart_retention) {
            disk.log.restart_retention();
        }
        drop(state);
        acknowledged.iter().for_each(|number| disk.log.drop_acknowledged(*number));
        disk.log.release_below(checkpoint.released_below);
        if disk.written_checkpoint != checkpoint {
            disk.written_checkpoint = checkpoint;
            let _running = self.directory.operations.writes.begin();
            if let Err(error) = disk.checkpoint_file.write(&checkpoint) {
                tracing::warn!(%error, "the checkpoint of the journal could not be written");
            }
        }
        disk.log.remove_expired_segments(Instant::now());
        let mut state = self.show(disk);
        if let Some(oldest) = state.view.oldest_segment() {
            state.damage = state.damage.split_off(&oldest);
        }
    }
}

impl StoreState {
    /// Hands a written event to the relay, and tells the event's caller. Returns the time from which the event needs a sync.
    fn settle(&mut self, event: QueuedEvent, outcome: WriteOutcome, must_wake_relay: &mut bool) -> Option<Instant> {
        let QueuedEvent { number, entry, kind, priority, written, is_published, .. } = event;
        match outcome {
            WriteOutcome::Refused(refusal) => self.waiters.resolve(number, Err(refusal)),
            WriteOutcome::Skipped => {}
            WriteOutcome::Copied(copied) => {
                if let Some(entry) = &copied {
                    *must_wake_relay |= self.tail.push(entry, AppendOutcome::Written, Priority::Deferred);
                }
                if let QueuedKind::Copy(result) = kind {
                    let _ = result.send(copied.is_some());
                }
            }
            WriteOutcome::Appended(AppendOutcome::Dropped) => self.waiters.resolve(number, Ok(Durability::Lost)),
            WriteOutcome::Appended(appended) => {
                if let Some(entry) = entry.filter(|_| !is_published) {
                    *must_wake_relay |= self.tail.push(&entry, appended, priority);
                }
                if appended == AppendOutcome::InMemory {
                    self.waiters.mark_unwritten(number);
                    return None;
                }
                if is_published {
                    self.tail.mark_written(number);
                }
                if let Some(written) = written {
                    // The caller may be gone. The event is recorded nevertheless.
                    let _ = written.send(());
                }
                return self.waiters.resolve_written(number);
            }
        }
        None
    }
}

impl Disk {
    fn write(&mut self, job: WriteJob) -> WriteOutcome {
        let WriteJob { number, entry, change, is_copy, room } = job;
        let Some(entry) = entry else {
            self.log.skip(number, change);
            return WriteOutcome::Skipped;
        };
        if is_copy {
            return WriteOutcome::Copied(self.log.append_again(&entry, number));
        }
        if matches!(room, RoomNeed::Unknown(_))
            && let Err(refusal) = self.log.reserve_for_new_chat(entry.len())
        {
            return WriteOutcome::Refused(refusal);
        }
        WriteOutcome::Appended(self.log.append(&entry, change))
    }
}
