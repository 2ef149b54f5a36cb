//! The journal: a log on the local disk, to which every event is appended before a client sees the event's effect.
//! Events reach the broker only through the journal.
//!
//! [`Journal::record`] encodes an event once and appends the record to the log within the caller's own task: a lock, a
//! checksum and one write. An appended event survives the death of the process. The [`relay`](crate::relay) publishes
//! the log's events to the broker and releases acknowledged events; the sync thread syncs the log to the disk. The
//! [`DurabilityLevel`] decides how long a caller waits beyond the write; docs/DURABILITY.md lists the failures that
//! each level survives.

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

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::event::Event;
use tokio::sync::Notify;
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
use log::{AppendOutcome, LogLimits};
use record::UnnumberedRecord;
use store::{Store, StoreState, SyncThreadState};
use tail::{Priority, Tail};
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
    /// unended, and starts the sync thread. Events get the source `/gateway/{instance}`.
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
        metrics.journal_damaged.inc_by(recovered.damaged);
        let store = Arc::new(Store {
            state: Mutex::new(StoreState {
                log: recovered.log,
                tail: Tail::starting_on_disk(),
                waiters: Waiters::default(),
                sync_thread_state: SyncThreadState::Working,
                is_closed: false,
                checkpoint_file: recovered.checkpoint_file,
                checkpoint: recovered.checkpoint,
            }),
            sync_thread_wake: Condvar::new(),
            entry_arrived: Notify::new(),
            settings,
            broker_health,
            metrics,
            directory,
            sync_thread_handle: Mutex::default(),
            earliest_start: Arc::default(),
            id,
            _lock: lock,
        });
        let journal = Self { store: Some(Arc::clone(&store)), source: source(instance) };
        tracing::info!(
            directory = %store.settings.directory.display(), waiting, open = unended.len(), damaged = recovered.damaged,
            "the journal is open"
        );
        for chat in unended {
            // When `record` returns, the event is in the log, or is held in memory and the failure has been logged.
            drop(journal.record(&chat.end_event(shared::event::now())));
        }
        let sync_thread = disk_watch::start(&store.directory.operations)
            .and_then(|()| sync_thread::start(&store))
            .map_err(|error| JournalOpenError::Unusable { path: store.settings.directory.clone(), error })?;
        *store.sync_thread_handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sync_thread);
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

    /// Returns true if a new chat can be recorded: the journal is open, the log can be written, and the disk has room
    /// for the ends of all running chats and one more. Always true if recording is disabled.
    pub fn is_available(&self) -> bool {
        self.store.as_ref().is_none_or(|store| {
            let mut state = store.lock();
            !state.is_closed && state.log.reserve_for_new_chat(0).is_ok()
        })
    }

    /// Returns the id of the journal's directory, if the id is known, and the earliest start time of this run's chats. `None`
    /// if recording is disabled.
    pub fn identity(&self) -> Option<(Option<Uuid>, Arc<EarliestStart>)> {
        self.store.as_ref().map(|store| (store.id, Arc::clone(&store.earliest_start)))
    }

    /// Appends an event to the log before returning. The returned future resolves when the event is as durable as the
    /// configured [`DurabilityLevel`] demands.
    ///
    /// If the log is full or cannot be written, only events that end a chat are accepted; see [`Recorded::refusal`] for
    /// the others. An accepted event that cannot be written is held in memory, up to 64 MiB for all such events, and
    /// the relay publishes the event from there.
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
        condition: impl Fn(DurabilityLevel, Instant, Duration) -> Option<WaitCondition>,
    ) -> Recorded {
        let Some(store) = &self.store else { return Recorded::resolved(Ok(Durability::Disabled)) };
        let Ok(record) = UnnumberedRecord::from_event(event, &self.source) else {
            return Recorded::resolved(Err(JournalError::Encoding));
        };
        if let Event::ChatStarted(started) = event {
            store.earliest_start.note(started.started_at);
        }
        let is_end = matches!(event, Event::MessageCompleted(_) | Event::ChatFailed(_));
        let mut state = store.lock();
        if state.is_closed {
            return Recorded::resolved(Err(JournalError::Closed));
        }
        if !is_end && let Err(refused) = state.log.reserve_for_new_chat(record.len()) {
            return Recorded::resolved(Err(refused));
        }
        let (entry, outcome) = state.log.append(event, record);
        let must_wake_relay = outcome != AppendOutcome::Dropped && state.tail.push(&entry, outcome, priority);
        let recorded = store.wait_for(&mut state, entry.number, outcome, condition);
        drop(state);
        // The relay overwrites the gauge every 100 ms. Between two updates, the gauge must not read zero while an event
        // waits.
        store.metrics.journal_waiting.inc();
        if must_wake_relay {
            store.entry_arrived.notify_one();
        }
        recorded
    }

    /// Stops recording: later calls of [`Self::record`] resolve to [`JournalError::Closed`]. The sync thread syncs the
    /// log and ends. Events that the broker has not acknowledged stay in the log for the next gateway process.
    pub fn close(&self) {
        if let Some(store) = &self.store {
            store.lock().is_closed = true;
            store.sync_thread_wake.notify_all();
            store.entry_arrived.notify_one();
        }
    }

    /// Blocks until the sync thread has written and synced the whole log. To be called after [`Self::close`].
    pub fn wait_until_synced(&self) {
        let sync_thread = self
            .store
            .as_ref()
            .and_then(|store| store.sync_thread_handle.lock().unwrap_or_else(PoisonError::into_inner).take());
        if sync_thread.is_some_and(|sync_thread| sync_thread.join().is_err()) {
            tracing::error!("the journal's sync thread has panicked; the last events may not be on the disk");
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
