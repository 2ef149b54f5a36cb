//! The journal: record an event, and know when it is durable. Every event goes through here.
//!
//! Durable, for now, means acknowledged by the broker; the [`relay`](crate::relay) sees to that.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use shared::event::Event;
use tokio::sync::{mpsc, oneshot};

use crate::relay::BrokerHealth;

/// Where events are recorded.
#[derive(Clone, Debug)]
pub struct Journal {
    way: Way,
    source: Arc<str>,
}

#[derive(Clone, Debug)]
enum Way {
    Relay {
        entries: mpsc::Sender<Entry>,
        health: Arc<BrokerHealth>,
    },
    /// Nothing is recorded: for measuring what recording costs.
    Off,
}

/// An event on its way.
#[derive(Debug)]
pub struct Entry {
    /// The event, encoded.
    pub event: EncodedEvent,
    /// Who waits for it to be durable.
    pub durable: oneshot::Sender<Durability>,
}

/// An event as it goes to the broker.
#[derive(Clone, Debug)]
pub struct EncodedEvent {
    /// Where it goes.
    pub subject: String,
    /// Its envelope.
    pub headers: async_nats::HeaderMap,
    /// Its payload.
    pub payload: Bytes,
}

/// How an event was made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The broker acknowledged it.
    Broker,
    /// It was not: recording is switched off.
    Off,
}

impl Durability {
    /// As in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Off => "off",
        }
    }
}

/// Why an event did not become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// More events wait than running chats can have made.
    #[error("the journal is full")]
    Full,
    /// The gateway is stopping and could not wait longer.
    #[error("the journal was closed before the event was durable")]
    Closed,
    /// It could not be written as JSON.
    #[error("the event could not be encoded")]
    Encoding,
}

/// Resolves when the event is durable.
#[derive(Debug)]
pub struct Recorded(Result<oneshot::Receiver<Durability>, Result<Durability, JournalError>>);

impl Journal {
    /// A journal whose entries a relay takes over. `capacity` is how many events may wait.
    pub fn new(instance: &str, capacity: usize, health: Arc<BrokerHealth>) -> (Self, mpsc::Receiver<Entry>) {
        let (entries, taken) = mpsc::channel(capacity);
        (Self { way: Way::Relay { entries, health }, source: source(instance) }, taken)
    }

    /// A journal that records nothing.
    pub fn off(instance: &str) -> Self {
        Self { way: Way::Off, source: source(instance) }
    }

    /// Whether events are recorded at all.
    pub fn is_on(&self) -> bool {
        matches!(self.way, Way::Relay { .. })
    }

    /// Whether new chats can be recorded, as far as is known without trying.
    pub fn is_available(&self) -> bool {
        match &self.way {
            Way::Relay { health, .. } => health.is_well(),
            Way::Off => true,
        }
    }

    /// Records an event. It is on its way when this returns; nobody has to wait for it to get there.
    pub fn record(&self, event: &Event) -> Recorded {
        let Way::Relay { entries, .. } = &self.way else { return Recorded(Err(Ok(Durability::Off))) };
        let Ok(event) = EncodedEvent::new(event, &self.source) else {
            return Recorded(Err(Err(JournalError::Encoding)));
        };
        let (durable, recorded) = oneshot::channel();
        match entries.try_send(Entry { event, durable }) {
            Ok(()) => Recorded(Ok(recorded)),
            Err(mpsc::error::TrySendError::Full(_)) => Recorded(Err(Err(JournalError::Full))),
            Err(mpsc::error::TrySendError::Closed(_)) => Recorded(Err(Err(JournalError::Closed))),
        }
    }
}

impl EncodedEvent {
    fn new(event: &Event, source: &str) -> Result<Self, serde_json::Error> {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in shared::envelope::headers(event, source) {
            headers.insert(name, value);
        }
        Ok(Self {
            subject: shared::subject::of(event.kind(), event.user_id()),
            headers,
            payload: event.encode()?.into(),
        })
    }
}

impl Future for Recorded {
    type Output = Result<Durability, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            Ok(recorded) => ready!(Pin::new(recorded).poll(cx)).map_err(|_| JournalError::Closed),
            Err(known) => *known,
        })
    }
}

fn source(instance: &str) -> Arc<str> {
    format!("/gateway/{instance}").into()
}
