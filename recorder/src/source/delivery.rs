//! A delivery: one message of the broker, to be decoded and acknowledged.

use std::sync::OnceLock;

use async_nats::HeaderMap;
use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use shared::event::{Event, EventKind};
use shared::{envelope, large_body};
use time::OffsetDateTime;

use crate::projection::pg_value::to_pg_json;
use crate::store::quarantine::{QuarantineReason, QuarantinedEvent};

/// A message of the stream with its position, not decoded yet.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    position: StreamPosition,
    /// The referenced large body after the fetch, or the reason for the failure.
    body: OnceLock<Result<Bytes, String>>,
}

/// The position in the stream, and the number of events behind.
#[derive(Clone, Copy, Debug)]
struct StreamPosition {
    sequence: u64,
    published_at: OffsetDateTime,
    pending: u64,
}

/// The reason a delivery could not be decoded. The text never repeats content of the delivery.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The header with the event type is missing.
    #[error("expected a header {}, found none", envelope::TYPE)]
    NoType,
    /// The event type is unknown to this build.
    #[error("expected an event of a known type, found {0:?}")]
    UnknownType(String),
    /// The large body of the event could not be fetched.
    #[error("expected a body in the bucket that the event refers to: {0}")]
    Body(String),
    /// The payload does not match the event type of the envelope.
    #[error("expected a payload of type {kind}, found {category:?} error at line {line} column {column}")]
    Payload {
        /// The event type from the envelope.
        kind: &'static str,
        /// The category of the JSON error: syntax, data or end of input.
        category: serde_json::error::Category,
        /// The line of the error in the payload.
        line: usize,
        /// The column of the error in the line.
        column: usize,
    },
}

/// Decodes a payload as an event of the type named in the envelope.
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
    /// Wraps a message. A message without JetStream metadata gets sequence 0.
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

    /// Decodes the event. A large body must be attached first.
    pub fn decode(&self) -> Result<Event, DecodeError> {
        match self.body.get() {
            Some(Err(detail)) => return Err(DecodeError::Body(detail.clone())),
            None if self.header(large_body::OBJECT).is_some() => {
                return Err(DecodeError::Body("the body was not fetched".to_owned()));
            }
            _ => {}
        }
        decode_event(self.header(envelope::TYPE), self.payload())
    }

    /// Returns the event id from the envelope, for logs; empty if missing.
    pub fn event_id(&self) -> &str {
        self.header(envelope::ID).unwrap_or_default()
    }

    /// Returns the size in bytes: the message and the announced size of a large body.
    pub fn size(&self) -> usize {
        let body: Option<usize> = self.header(large_body::SIZE).and_then(|size| size.parse().ok());
        self.message.length.saturating_add(body.unwrap_or_default())
    }

    /// Attaches the large body, or the reason for the failed fetch.
    pub(super) fn set_body(&self, body: Result<Bytes, String>) {
        // A second fetch gives the same body, so the first one stays.
        let _ = self.body.set(body);
    }

    /// Returns the number of events the broker still had to deliver at the time of this delivery.
    pub fn pending(&self) -> u64 {
        self.position.pending
    }

    /// Returns the stream sequence. Never use a sequence as an identity: after a loss, the broker gives the same
    /// sequences to other events.
    pub fn sequence(&self) -> u64 {
        self.position.sequence
    }

    /// Returns the time at which the broker stored the event.
    pub fn published_at(&self) -> OffsetDateTime {
        self.position.published_at
    }

    /// Returns the subject of the message.
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }

    /// Returns the payload: the attached large body if present, else the message's own payload.
    pub fn payload(&self) -> &[u8] {
        match self.body.get() {
            Some(Ok(body)) => body,
            _ => &self.message.payload,
        }
    }

    /// Returns a quarantine entry with the whole delivery: subject, headers, payload and position.
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

    /// Sends an acknowledgement: `+ACK` after the commit, `+WPI` for work in progress, `-NAK` to give the event to
    /// another recorder.
    pub(super) async fn send_ack(&self, kind: AckKind) -> Result<(), async_nats::Error> {
        self.message.ack_with(kind).await
    }

    /// Returns a header of the message; `None` if missing.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.message.headers.as_ref()?.get(name)?.as_str())
    }
}
