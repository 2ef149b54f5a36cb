//! The journal: a log on the local disk, to which every event is appended before a client sees the event's effect.
//! Events reach the broker only through the journal.
//!
//! [`Journal::record`] encodes an event once and puts the record into a queue, from which the writer thread appends the
//! record to the log. An appended event survives the death of the process. The [`relay`](crate::relay) publishes the log's
//! events to the broker and releases acknowledged events; the sync thread syncs the log to the disk. No function of this
//! module waits for the disk unless its documentation says so: a disk that hangs keeps two threads waiting, and whoever waits
//! for an event. The [`DurabilityLevel`] decides how long a caller waits beyond the write; docs/DURABILITY.md lists the
//! failures that each level survives.

mod checkpoint;
mod clock;
mod consumer;
mod descriptors;
mod directory;
mod disk_watch;
mod durability;
mod error;
mod lock;
mod log;
mod queue;
mod reader;
mod record;
mod recorded;
mod recovery;
mod scan;
mod segment;
mod store;
mod sync_thread;
mod tail;
mod unended_chats;
mod waiters;
mod writer;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::event::{ChatDeferred, Event};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

pub use checkpoint::{AcknowledgedEvent, Checkpoint};
pub use clock::now_ms;
pub use consumer::{Backlog, JournalConsumer};
pub use durability::{Durability, DurabilityLevel};
pub use error::{JournalError, JournalOpenError};
pub use reader::{Cursor, EntryBatch};
pub use record::{JournalEntry, StoredEvent};
pub use recorded::Recorded;
pub use store::JournalSettings;
pub use tail::TailRead;

use crate::broker::BrokerHealth;
use crate::broker::earliest_start::EarliestStart;
use crate::metrics::Metrics;
use log::LogLimits;
use queue::{QueuedEvent, QueuedKind, RoomNeed, WriteQueue};
use record::UnnumberedRecord;
use store::{Disk, Housekeeping, Lifecycle, Store, StoreState, SyncThreadState};
use tail::{Priority, Tail};
use unended_chats::ChatChange;
use waiters::{WaitCondition, Waiters};

/// A handle to the gateway's journal. Clones are cheap and share the same log.
#[derive(Clone, Debug)]
pub struct Journal {
    /// `None` if recording is disabled, which serves to measure the cost of recording.
    store: Option<Arc<Store>>,
    source: Arc<str>,
}

impl Journal {
    /// Opens the journal in `settings.directory`, records a `ChatFailed` for every chat that the previous process left
    /// unended and whose answer no provider makes in the background, and starts the journal's threads. Blocks while the disk hangs. Events get the source `/gateway/{instance}`.
    ///
    /// Fails if another process holds the directory, if the directory or a segment cannot be used, or if a segment has
    /// an unsupported format version.
    pub fn open(
        settings: JournalSettings,
        instance: &str,
        broker_health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, JournalOpenError> {
        Self::open_in(directory::LogDirectory::new(&settings.directory), settings, instance, broker_health, metrics)
    }

    fn open_in(
        directory: directory::LogDirectory,
        settings: JournalSettings,
        instance: &str,
        broker_health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, JournalOpenError> {
        recovery::create_directory(&settings.directory)?;
        let lock = lock::DirectoryLock::take(&settings.directory)?;
        let id = lock::directory_id(&settings.directory);
        let limits = LogLimits { max_bytes: settings.max_bytes, retention: settings.retention };
        let recovered = recovery::recover(directory.clone(), limits)?;
        let (waiting, unended) = (recovered.waiting, recovered.log.unended_chats.all());
        let damaged = recovered.damage.values().sum();
        metrics.journal_damaged.inc_by(damaged);
        let mut disk = Disk {
            log: recovered.log,
            checkpoint_file: recovered.checkpoint_file,
            written_checkpoint: recovered.checkpoint,
        };
        let store = Arc::new(Store {
            state: Mutex::new(StoreState {
                next_number: disk.log.next_number(),
                queue: WriteQueue::default(),
                tail: Tail::starting_on_disk(),
                waiters: Waiters::default(),
                view: disk.log.view(),
                shortage: None,
                checkpoint: recovered.checkpoint,
                housekeeping: Housekeeping::default(),
                damage: recovered.damage,
                is_writer_waiting: false,
                sync_thread_state: SyncThreadState::Working,
                lifecycle: Lifecycle::Open,
            }),
            disk: Mutex::new(disk),
            writer_wake: Condvar::new(),
            sync_thread_wake: Condvar::new(),
            entry_arrived: Notify::new(),
            settings,
            broker_health,
            metrics,
            directory,
            threads: Mutex::default(),
            earliest_start: Arc::default(),
            deferred: Mutex::default(),
            id,
            _lock: lock,
        });
        let journal = Self { store: Some(Arc::clone(&store)), source: source(instance) };
        tracing::info!(
            directory = %store.settings.directory.display(), waiting, open = unended.len(), damaged,
            "the journal is open"
        );
        let mut deferred = store.deferred.lock().unwrap_or_else(PoisonError::into_inner);
        for chat in unended {
            match chat.deferred() {
                Some(event) => {
                    store.earliest_start.note(event.started_at);
                    deferred.push(event);
                }
                None => drop(journal.record(&chat.end_event(shared::event::now()))),
            }
        }
        drop(deferred);
        // From here on, the ends are in the log, or are held in memory and the failure has been logged.
        store.write_queue();
        let unusable = |error| JournalOpenError::Unusable { path: store.settings.directory.clone(), error };
        disk_watch::start(&store.directory.operations).map_err(unusable)?;
        let threads = [writer::start(&store).map_err(unusable)?, sync_thread::start(&store).map_err(unusable)?];
        store.threads.lock().unwrap_or_else(PoisonError::into_inner).extend(threads);
        Ok(journal)
    }

    /// Returns a journal without a log: [`Self::record`] stores nothing and resolves to [`Durability::Disabled`].
    pub fn disabled(instance: &str) -> Self {
        Self { store: None, source: source(instance) }
    }

    /// Returns false for a journal made by [`Self::disabled`].
    pub fn is_enabled(&self) -> bool {
        self.store.is_some()
    }

    /// Returns true if a new chat can be recorded: the journal is open, the disk answers, the log can be written, and the
    /// disk has room for the ends of all running chats and one more. Always true if recording is disabled.
    pub fn is_available(&self) -> bool {
        self.store.as_ref().is_none_or(|store| {
            let state = store.lock();
            state.refusal(Instant::now()).or(state.shortage).is_none()
        })
    }

    /// Takes the chats of the previous process whose answers providers make in the background. The caller follows and ends them.
    pub fn take_deferred(&self) -> Vec<ChatDeferred> {
        let Some(store) = &self.store else { return Vec::new() };
        std::mem::take(&mut *store.deferred.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the id of the journal's directory, if the id is known, and the earliest start time of this run's chats. `None`
    /// if recording is disabled.
    pub fn identity(&self) -> Option<(Option<Uuid>, Arc<EarliestStart>)> {
        self.store.as_ref().map(|store| (store.id, Arc::clone(&store.earliest_start)))
    }

    /// Records an event: puts the event into the queue of the log. The returned future resolves when the event is as durable
    /// as the configured [`DurabilityLevel`] demands; see [`Recorded::written`] for the time from which the event is in the
    /// log.
    ///
    /// If the log is full, cannot be written, or the disk has not answered for 2 s, only events that end a chat are accepted;
    /// see [`Recorded::accepted`] for the others. An accepted event that cannot be written is held in memory, and the relay
    /// publishes the event from there: up to 64 MiB of events for which the disk does not answer, and up to 64 MiB of events
    /// that the disk has refused.
    pub fn record(&self, event: &Event) -> Recorded {
        self.record_with(event, Priority::Immediate, WaitCondition::for_level)
    }

    /// Records the start of a chat like [`Self::record`], with deferred priority: no client waits for a start before
    /// the chat's end is recorded, so a start is synced and published together with later events.
    pub fn record_start(&self, event: &Event) -> Recorded {
        self.record_with(event, Priority::Deferred, WaitCondition::for_start)
    }

    fn record_with(
        &self,
        event: &Event,
        priority: Priority,
        condition: impl Fn(DurabilityLevel, Instant, Duration) -> WaitCondition,
    ) -> Recorded {
        let Some(store) = &self.store else { return Recorded::resolved(Ok(Durability::Disabled)) };
        let Ok(record) = UnnumberedRecord::from_event(event, &self.source) else {
            return Recorded::resolved(Err(JournalError::Encoding));
        };
        if let Event::ChatStarted(started) = event {
            store.earliest_start.note(started.started_at);
        }
        let change = ChatChange::of(event);
        let now = Instant::now();
        let mut state = store.lock();
        let is_end = matches!(change, ChatChange::Ended(_));
        let room = if is_end { RoomNeed::Reserved } else { state.room_for(record.len()) };
        let refusal = if is_end { state.refusal_of_end() } else { state.refusal(now) };
        if let Some(refusal) = refusal {
            return Recorded::resolved(Err(refusal));
        }
        if state.queue.check_room(record.len()).is_err() {
            return Recorded::resolved(Ok(Durability::Lost));
        }
        // A broker that is disconnected or slow is not waited for. Neither is a broker to which the relay has a backlog
        // to publish.
        let is_broker_current = store.broker_health.is_responsive() && state.tail.is_caught_up();
        let timeout = if is_broker_current { store.settings.acknowledgement_timeout } else { Duration::ZERO };
        let condition = condition(store.settings.level, now, timeout);
        let entry = record.assign_number(state.next_number, now_ms());
        state.next_number += 1;
        let number = entry.number;
        let durable = state.waiters.add(number, condition, now);
        let (sender, receiver) = (condition != WaitCondition::Write).then(oneshot::channel).unzip();
        state.queue.push(QueuedEvent {
            number,
            entry: Some(entry),
            change,
            kind: QueuedKind::New,
            room,
            priority,
            since: now,
            written: sender,
            is_published: false,
        });
        let must_wake_writer = std::mem::take(&mut state.is_writer_waiting);
        drop(state);
        if must_wake_writer {
            store.writer_wake.notify_one();
        }
        // The relay overwrites the gauge every 100 ms. Between two updates, the gauge must not read zero while an event
        // waits.
        store.metrics.journal_waiting.inc();
        Recorded::pending(durable, receiver, matches!(room, RoomNeed::Unknown(_)))
    }

    /// Stops recording: later calls of [`Self::record`] resolve to [`JournalError::Closed`]. Events that the broker has not
    /// acknowledged stay in the log for the next gateway process.
    pub fn close(&self) {
        if let Some(store) = &self.store {
            store.advance_to(Lifecycle::Closed);
            store.entry_arrived.notify_one();
        }
    }

    /// Blocks until the whole log is written and synced, and the journal's threads have ended: for as long as the disk hangs.
    /// To be called after [`Self::close`].
    pub fn wait_until_synced(&self) {
        let Some(store) = &self.store else { return };
        store.advance_to(Lifecycle::Finishing);
        store.writer_wake.notify_one();
        for thread in store.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal has panicked; the last events may not be on the disk");
            }
        }
    }

    /// Returns the relay's side of the journal, or `None` if recording is disabled.
    pub fn consumer(&self) -> Option<JournalConsumer> {
        self.store.clone().map(JournalConsumer)
    }
}

fn source(instance: &str) -> Arc<str> {
    format!("/gateway/{instance}").into()
}

#[cfg(test)]
mod tests;
