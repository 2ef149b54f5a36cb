//! One event as the broker delivered it: read, and still to be acknowledged.

use std::sync::OnceLock;

use async_nats::HeaderMap;
use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use shared::event::{Event, EventKind};
use shared::{envelope, large_body};
use time::OffsetDateTime;

use crate::projection::pg_value::to_pg_json;
use crate::store::quarantine::{QuarantineReason, QuarantinedEvent};

/// A delivered event, apart from what it says.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    position: StreamPosition,
    /// What it refers to, once that was fetched, or why it could not be.
    body: OnceLock<Result<Bytes, String>>,
}

/// Where in the stream it was, and how much is behind it.
#[derive(Clone, Copy, Debug)]
struct StreamPosition {
    sequence: u64,
    published_at: OffsetDateTime,
    pending: u64,
}

/// Why a delivery is not an event. Never repeats what is in it.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No envelope.
    #[error("expected a header {}, found none", envelope::TYPE)]
    NoType,
    /// An envelope that this build does not know.
    #[error("expected an event of a known type, found {0:?}")]
    UnknownType(String),
    /// Its body is elsewhere, and not to be had.
    #[error("expected a body in the bucket that the event refers to: {0}")]
    Body(String),
    /// The payload is something else than the envelope says.
    #[error("expected a payload of type {kind}, found {category:?} error at line {line} column {column}")]
    Payload {
        /// The type.
        kind: &'static str,
        /// What kind of error.
        category: serde_json::error::Category,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
}

/// Reads an event of the type that its envelope names.
pub fn decode_event(kind: Option<&str>, payload: &[u8]) -> Result<Event, DecodeError> {
    let kind = kind.ok_or(DecodeError::NoType)?;
    let kind = EventKind::from_type_name(kind).ok_or_else(|| DecodeError::UnknownType(kind.to_owned()))?;
    Event::decode(kind, payload).map_err(|error| DecodeError::Payload {
        kind: kind.type_name(),
        category: error.classify(),
        line: error.line(),
        column: error.column(),
    })
}

impl Delivery {
    /// Takes in a message.
    pub fn new(message: Message) -> Self {
        let position = message.info().map_or(
            StreamPosition { sequence: 0, published_at: OffsetDateTime::UNIX_EPOCH, pending: 0 },
            |info| StreamPosition {
                sequence: info.stream_sequence,
                published_at: info.published,
                pending: info.pending,
            },
        );
        Self { message, position, body: OnceLock::new() }
    }

    /// What it says.
    pub fn decode(&self) -> Result<Event, DecodeError> {
        match self.body.get() {
            Some(Err(detail)) => return Err(DecodeError::Body(detail.clone())),
            None if self.header(large_body::OBJECT).is_some() => {
                return Err(DecodeError::Body("it was not fetched".to_owned()));
            }
            _ => {}
        }
        decode_event(self.header(envelope::TYPE), self.payload())
    }

    /// The id in its envelope, for people.
    pub fn event_id(&self) -> &str {
        self.header(envelope::ID).unwrap_or_default()
    }

    /// The bytes that it takes.
    pub fn size(&self) -> usize {
        let body: Option<usize> = self.header(large_body::SIZE).and_then(|size| size.parse().ok());
        self.message.length.saturating_add(body.unwrap_or_default())
    }

    /// What was fetched of it, or why that could not be.
    pub(super) fn set_body(&self, body: Result<Bytes, String>) {
        // Fetched twice, it is the same.
        let _ = self.body.set(body);
    }

    /// How many events the broker had not delivered yet when it delivered this one.
    pub fn pending(&self) -> u64 {
        self.position.pending
    }

    /// Its place in the stream. Never an identity: the broker uses numbers again after a loss.
    pub fn sequence(&self) -> u64 {
        self.position.sequence
    }

    /// When the broker took it in.
    pub fn published_at(&self) -> OffsetDateTime {
        self.position.published_at
    }

    /// Where it was published.
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }

    /// What was published: in the message, or where it refers to.
    pub fn payload(&self) -> &[u8] {
        match self.body.get() {
            Some(Ok(body)) => body,
            _ => &self.message.payload,
        }
    }

    /// All of it, to be put aside.
    pub fn to_quarantined(&self, reason: QuarantineReason, detail: String) -> QuarantinedEvent {
        let headers = self.message.headers.as_ref().map(HeaderMap::iter).into_iter().flatten();
        let headers: std::collections::BTreeMap<String, Vec<&str>> = headers
            .map(|(name, values)| (name.to_string(), values.iter().map(async_nats::HeaderValue::as_str).collect()))
            .collect();
        QuarantinedEvent {
            subject: self.message.subject.to_string(),
            headers: to_pg_json(&headers).as_str().to_owned(),
            payload: self.payload().to_vec(),
            reason,
            detail,
            stream_sequence: self.position.sequence,
            published_at: self.position.published_at,
        }
    }

    /// Tells the broker: `+ACK` when it is in the tables, `+WPI` while it is being worked on, `-NAK` to give it to another.
    pub(super) async fn send_ack(&self, kind: AckKind) -> Result<(), async_nats::Error> {
        self.message.ack_with(kind).await
    }

    /// A header of its envelope.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.message.headers.as_ref()?.get(name)?.as_str())
    }
}
