//! The journal: record an event, and know when it is durable. Every event goes through here, and nowhere else.
//!
//! An event is encoded once and appended to a log on local disk by the caller itself: a lock, a checksum and one write, no
//! other task. From then on it survives the death of this process. The [`relay`](crate::relay) moves the log to the broker
//! and releases what the broker has acknowledged; a thread (`keeper`) syncs. What an event's caller waits for beyond the
//! write is the [`Level`]; docs/DURABILITY.md says what each level survives.

mod feed;
mod keeper;
mod lock;
mod log;
mod open_chats;
mod outlet;
mod record;
mod recovery;
mod released;
mod scan;
mod segment;
mod waiters;

#[cfg(test)]
mod disk;
#[cfg(test)]
mod model;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shared::event::Event;
use tokio::sync::{Notify, oneshot};

pub use feed::{Batch, Cursor, Source};
pub use outlet::{Depth, Outlet};
pub use record::{Entry, StoredEvent};
pub use released::{Acknowledged, Released};

use crate::metrics::Metrics;
use crate::relay::BrokerHealth;
use feed::{Feed, Haste};
use log::{Bounds, Kept, Log};
use record::Draft;
use waiters::{Needs, Waiters};

/// Where events are recorded.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Nothing is recorded where there is none: for measuring what recording costs.
    store: Option<Arc<Store>>,
    source: Arc<str>,
}

/// How durable an event is before anyone sees its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Written to the log: it survives the death of the process.
    Journal,
    /// On the disk: it survives the death of the machine.
    Synced,
    /// Acknowledged by the broker; if that takes too long, on the disk: it survives the loss of the machine.
    Replicated,
}

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

/// How an event was made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The broker acknowledged it.
    Broker,
    /// It is on this machine's disk.
    Synced,
    /// It is in the log: it survives this process.
    Journal,
    /// The log cannot be written and the broker does not answer: it is in memory, and on its way.
    Memory,
    /// It is nowhere: there was not even memory left for it.
    Lost,
    /// It was not: recording is switched off.
    Off,
}

impl Durability {
    /// As in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Synced => "synced",
            Self::Journal => "journal",
            Self::Memory => "memory",
            Self::Lost => "lost",
            Self::Off => "off",
        }
    }

    /// Whether it survives the process, as it should.
    pub fn is_durable(self) -> bool {
        !matches!(self, Self::Memory | Self::Lost)
    }
}

/// Why an event was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// There is no room for another chat.
    #[error("the journal is full")]
    Full,
    /// The disk does not take it.
    #[error("the journal cannot be written")]
    Unwritable,
    /// The gateway is stopping.
    #[error("the journal is closed")]
    Closed,
    /// It could not be written as JSON.
    #[error("the event could not be encoded")]
    Encoding,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by process {holder}: every gateway needs a directory of its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id of the other.
        holder: String,
    },
    /// It cannot be read or written.
    #[error("{} cannot be used", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It was written by another version.
    #[error("{} has the form of version {version}, expected version 1: start the gateway that wrote it once more", path.display())]
    OtherVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// Resolves when the event is durable.
#[derive(Debug)]
pub struct Recorded {
    outcome: Result<oneshot::Receiver<Durability>, Result<Durability, JournalError>>,
    /// It is in the log already.
    is_written: bool,
}

/// What the journal's users, its keeper and the relay share.
#[derive(Debug)]
struct Store {
    state: Mutex<State>,
    /// Wakes the keeper.
    work: Condvar,
    /// Wakes the relay.
    arrived: Notify,
    settings: Settings,
    health: Arc<BrokerHealth>,
    metrics: Arc<Metrics>,
    directory: segment::Directory,
    keeper: Mutex<Option<JoinHandle<()>>>,
    _lock: lock::Lock,
}

#[derive(Debug)]
struct State {
    log: Log,
    feed: Feed,
    waiters: Waiters,
    keeper: keeper::Doing,
    is_closed: bool,
    released_file: released::ReleasedFile,
    released: Released,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a defect that has been reported; the data is in order between any two writes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
                keeper: keeper::Doing::Work,
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
        let keeper = keeper::start(&store)
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

impl Store {
    fn wait_for(
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

impl Recorded {
    fn known(outcome: Result<Durability, JournalError>) -> Self {
        Self { outcome: Err(outcome), is_written: false }
    }

    /// Whether the event survives this process already, or is not to be recorded at all.
    pub fn is_written(&self) -> bool {
        self.is_written || matches!(self.outcome, Err(Ok(Durability::Off)))
    }

    /// Why the event was refused, if that is known already: nothing of it is recorded then.
    pub fn refusal(&self) -> Option<JournalError> {
        match &self.outcome {
            Err(Err(refusal)) => Some(*refusal),
            _ => None,
        }
    }
}

impl Future for Recorded {
    type Output = Result<Durability, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.outcome {
            Ok(recorded) => ready!(Pin::new(recorded).poll(cx)).map_err(|_| JournalError::Closed),
            Err(known) => *known,
        })
    }
}

fn source(instance: &str) -> Arc<str> {
    format!("/gateway/{instance}").into()
}

#[cfg(test)]
mod tests;
