//! The journal: record an event, and know when it is durable. Every event goes through here, and nowhere else.
//!
//! An event is encoded once and appended to a log on local disk by the caller itself: a lock, a checksum and one write, no
//! other task. From then on it survives the death of this process. The [`relay`](crate::relay) moves the log to the broker
//! and releases what the broker has acknowledged; the sync thread syncs. What an event's caller waits for beyond the
//! write is the [`DurabilityLevel`]; docs/DURABILITY.md says what each level survives.

mod checkpoint;
mod clock;
mod consumer;
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
use crate::metrics::Metrics;
use log::{AppendOutcome, LogLimits};
use record::UnnumberedRecord;
use store::{Store, StoreState, SyncThreadState};
use tail::{Priority, Tail};
use waiters::{WaitCondition, Waiters};

/// Where events are recorded.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Nothing is recorded where there is none: for measuring what recording costs.
    store: Option<Arc<Store>>,
    source: Arc<str>,
}

impl Journal {
    /// Opens the journal in this directory, ends the chats that were open in it, and starts its sync thread.
    pub fn open(
        settings: JournalSettings,
        instance: &str,
        broker_health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, JournalOpenError> {
        Self::open_in(segment::LogDirectory::new(&settings.directory), settings, instance, broker_health, metrics)
    }

    fn open_in(
        directory: segment::LogDirectory,
        settings: JournalSettings,
        instance: &str,
        broker_health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, JournalOpenError> {
        recovery::create_directory(&settings.directory)?;
        let lock = lock::DirectoryLock::take(&settings.directory)?;
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
            _lock: lock,
        });
        let journal = Self { store: Some(Arc::clone(&store)), source: source(instance) };
        tracing::info!(
            directory = %store.settings.directory.display(), waiting, open = unended.len(), damaged = recovered.damaged,
            "the journal is open"
        );
        for chat in unended {
            // It is in the log when this returns, or held in memory and said so.
            drop(journal.record(&chat.end_event(shared::event::now())));
        }
        let sync_thread = sync_thread::start(&store)
            .map_err(|error| JournalOpenError::Unusable { path: store.settings.directory.clone(), error })?;
        *store.sync_thread_handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sync_thread);
        Ok(journal)
    }

    /// A journal that records nothing.
    pub fn disabled(instance: &str) -> Self {
        Self { store: None, source: source(instance) }
    }

    /// Whether events are recorded at all.
    pub fn is_enabled(&self) -> bool {
        self.store.is_some()
    }

    /// Whether a new chat can be recorded: the log can be written, and there is room for the ends of all chats.
    pub fn is_available(&self) -> bool {
        self.store.as_ref().is_none_or(|store| {
            let mut state = store.lock();
            !state.is_closed && state.log.reserve_for_new_chat(0).is_ok()
        })
    }

    /// Records an event. When this returns it is in the log, or could not be: a beginning is then refused, and an end is
    /// kept in memory, on its way to the broker.
    pub fn record(&self, event: &Event) -> Recorded {
        self.record_with(event, Priority::Immediate, WaitCondition::for_level)
    }

    /// Records the start of a chat, in the same way. Nobody waits for it before the chat's end is recorded, so it is in no hurry
    /// to be synced, and goes to the broker with others.
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
        // The relay sets it anew now and then; in between it must not say that nothing is waiting.
        store.metrics.journal_waiting.inc();
        if must_wake_relay {
            store.entry_arrived.notify_one();
        }
        recorded
    }

    /// No event is recorded any more. What is in the log is synced, and stays for the next gateway if the broker has not
    /// taken it.
    pub fn close(&self) {
        if let Some(store) = &self.store {
            store.lock().is_closed = true;
            store.sync_thread_wake.notify_all();
            store.entry_arrived.notify_one();
        }
    }

    /// Waits until everything is on the disk, after [`Self::close`]. Blocks.
    pub fn wait_until_synced(&self) {
        let sync_thread = self
            .store
            .as_ref()
            .and_then(|store| store.sync_thread_handle.lock().unwrap_or_else(PoisonError::into_inner).take());
        if sync_thread.is_some_and(|sync_thread| sync_thread.join().is_err()) {
            tracing::error!("the journal's sync thread has panicked; the last events may not be on the disk");
        }
    }

    /// The other end: what the relay moves to the broker.
    pub fn consumer(&self) -> Option<JournalConsumer> {
        self.store.clone().map(JournalConsumer)
    }
}

fn source(instance: &str) -> Arc<str> {
    format!("/gateway/{instance}").into()
}

#[cfg(test)]
mod tests;
