//! The journal: record an event, and know when it is durable. Every event goes through here, and nowhere else.
//!
//! An event is encoded once and appended to a log on local disk by the caller itself: a lock, a checksum and one write, no
//! other task. From then on it survives the death of this process. The [`relay`](crate::relay) moves the log to the broker
//! and releases what the broker has acknowledged; a thread (`keeper`) syncs. What an event's caller waits for beyond the
//! write is the [`Level`]; docs/DURABILITY.md says what each level survives.

mod checkpoint;
mod clock;
mod consumer;
mod durability;
mod error;
mod lock;
mod log;
mod open_chats;
mod reader;
mod record;
mod recorded;
mod recovery;
mod scan;
mod segment;
mod store;
mod sync_thread;
mod tail;
mod waiters;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::event::Event;
use tokio::sync::Notify;

pub use checkpoint::{Acknowledged, Released};
pub use clock::now_ms;
pub use consumer::{Depth, Outlet};
pub use durability::{Durability, Level};
pub use error::{JournalError, OpenError};
pub use reader::{Batch, Cursor};
pub use record::{Entry, StoredEvent};
pub use recorded::Recorded;
pub use store::Settings;
pub use tail::Source;

use crate::broker::BrokerHealth;
use crate::metrics::Metrics;
use log::{Bounds, Kept};
use record::Draft;
use store::{Doing, State, Store};
use tail::{Feed, Haste};
use waiters::{Needs, Waiters};

/// Where events are recorded.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Nothing is recorded where there is none: for measuring what recording costs.
    store: Option<Arc<Store>>,
    source: Arc<str>,
}

impl Journal {
    /// Opens the journal in this directory, ends the chats that were open in it, and starts its keeper.
    pub fn open(
        settings: Settings,
        instance: &str,
        health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        Self::open_in(segment::Directory::new(&settings.directory), settings, instance, health, metrics)
    }

    fn open_in(
        directory: segment::Directory,
        settings: Settings,
        instance: &str,
        health: Arc<BrokerHealth>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        recovery::make(&settings.directory)?;
        let lock = lock::Lock::take(&settings.directory)?;
        let bounds = Bounds { max_bytes: settings.max_bytes, keep: settings.keep };
        let recovered = recovery::recover(directory.clone(), bounds)?;
        let (waiting, left_open) = (recovered.waiting, recovered.log.open.all());
        metrics.journal_damaged.inc_by(recovered.damaged);
        let store = Arc::new(Store {
            state: Mutex::new(State {
                log: recovered.log,
                feed: Feed::behind(),
                waiters: Waiters::default(),
                keeper: Doing::Work,
                is_closed: false,
                released_file: recovered.released_file,
                released: recovered.released,
            }),
            work: Condvar::new(),
            arrived: Notify::new(),
            settings,
            health,
            metrics,
            directory,
            keeper: Mutex::default(),
            _lock: lock,
        });
        let journal = Self { store: Some(Arc::clone(&store)), source: source(instance) };
        tracing::info!(
            directory = %store.settings.directory.display(), waiting, open = left_open.len(), damaged = recovered.damaged,
            "the journal is open"
        );
        for chat in left_open {
            // It is in the log when this returns, or held in memory and said so.
            drop(journal.record(&chat.ended_by_restart(shared::event::now())));
        }
        let keeper = sync_thread::start(&store)
            .map_err(|error| OpenError::Unusable { path: store.settings.directory.clone(), error })?;
        *store.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Ok(journal)
    }

    /// A journal that records nothing.
    pub fn off(instance: &str) -> Self {
        Self { store: None, source: source(instance) }
    }

    /// Whether events are recorded at all.
    pub fn is_on(&self) -> bool {
        self.store.is_some()
    }

    /// Whether a new chat can be recorded: the log can be written, and there is room for the ends of all chats.
    pub fn is_available(&self) -> bool {
        self.store.as_ref().is_none_or(|store| {
            let mut state = store.lock();
            !state.is_closed && state.log.check_room(0).is_ok()
        })
    }

    /// Records an event. When this returns it is in the log, or could not be: a beginning is then refused, and an end is
    /// kept in memory, on its way to the broker.
    pub fn record(&self, event: &Event) -> Recorded {
        self.record_for(event, Haste::AtOnce, Needs::at)
    }

    /// Records the start of a chat, in the same way. Nobody waits for it before the chat's end is recorded, so it is in no hurry
    /// to be synced, and goes to the broker with others.
    pub fn record_start(&self, event: &Event) -> Recorded {
        self.record_for(event, Haste::InPassing, Needs::of_start)
    }

    fn record_for(
        &self,
        event: &Event,
        haste: Haste,
        needs: impl Fn(Level, Instant, Duration) -> Option<Needs>,
    ) -> Recorded {
        let Some(store) = &self.store else { return Recorded::known(Ok(Durability::Off)) };
        let Ok(draft) = Draft::of_event(event, &self.source) else {
            return Recorded::known(Err(JournalError::Encoding));
        };
        let is_end = matches!(event, Event::MessageCompleted(_) | Event::ChatFailed(_));
        let mut state = store.lock();
        if state.is_closed {
            return Recorded::known(Err(JournalError::Closed));
        }
        if !is_end && let Err(refused) = state.log.check_room(draft.len()) {
            return Recorded::known(Err(refused));
        }
        let (entry, kept) = state.log.append(event, draft);
        let wakes_relay = kept != Kept::Nowhere && state.feed.push(&entry, kept, haste);
        let recorded = store.wait_for(&mut state, entry.number, kept, needs);
        drop(state);
        // The relay sets it anew now and then; in between it must not say that nothing is waiting.
        store.metrics.journal_waiting.inc();
        if wakes_relay {
            store.arrived.notify_one();
        }
        recorded
    }

    /// No event is recorded any more. What is in the log is synced, and stays for the next gateway if the broker has not
    /// taken it.
    pub fn close(&self) {
        if let Some(store) = &self.store {
            store.lock().is_closed = true;
            store.work.notify_all();
            store.arrived.notify_one();
        }
    }

    /// Waits until everything is on the disk, after [`Self::close`]. Blocks.
    pub fn wait_until_synced(&self) {
        let keeper =
            self.store.as_ref().and_then(|store| store.keeper.lock().unwrap_or_else(PoisonError::into_inner).take());
        if keeper.is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the journal's keeper has panicked; the last events may not be on the disk");
        }
    }

    /// The other end: what the relay moves to the broker.
    pub fn outlet(&self) -> Option<Outlet> {
        self.store.clone().map(Outlet)
    }
}

fn source(instance: &str) -> Arc<str> {
    format!("/gateway/{instance}").into()
}

#[cfg(test)]
mod tests;
