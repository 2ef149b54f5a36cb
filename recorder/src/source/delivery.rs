//! A delivery: one message of the broker, to be decoded and acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{AckKind, Message};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::envelope;
use shared::event::{Event, EventKind, EventType};
use shared::large_body::{self, BodyError, BodyReference};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::bodies::{FetchError, MissingSince};
use crate::projection::pg_value::to_pg_json;
use crate::store::quarantine::{QuarantineReason, QuarantinedEvent};

/// A message of the stream with its position, not decoded yet.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    position: StreamPosition,
    /// The referenced large body after the fetch, or the reason for the failure. Used by readers of the log; the
    /// pipeline keeps a body only until the body is decoded.
    body: Option<Result<Vec<u8>, String>>,
    /// The broker's answers that the body is missing.
    missing_since: Mutex<MissingSince>,
    /// True after the body could not be fetched at the first try.
    was_awaited: AtomicBool,
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
    let event_type = EventType::from_name(kind).ok_or_else(|| DecodeError::UnknownType(kind.to_owned()))?;
    Event::decode(event_type, payload).map_err(|error| DecodeError::Payload {
        kind: event_type.name(),
        category: error.classify(),
        line: error.line(),
        column: error.column(),
    })
}

/// The size from which the messages of a request are cut out before decoding, in bytes. For less, the cut would cost more
/// than the copy.
const MIN_CUT_BYTES: usize = 64 << 10;

/// Returns the place of `messages` in the payload of a `ChatStarted` event, if worth cutting out; `None` also for a
/// payload that is no JSON object with this member.
fn messages_range(kind: Option<&str>, payload: &[u8]) -> Option<std::ops::Range<usize>> {
    #[derive(Deserialize)]
    struct Messages<'a> {
        #[serde(borrow)]
        messages: &'a RawValue,
    }

    if kind.and_then(EventType::from_name)?.kind() != EventKind::ChatStarted {
        return None;
    }
    let messages = serde_json::from_slice::<Messages<'_>>(payload).ok()?.messages.get();
    // The borrowed text is a part of the payload, so its place follows from its address.
    let start = messages.as_ptr().addr().checked_sub(payload.as_ptr().addr())?;
    (messages.len() >= MIN_CUT_BYTES).then_some(start..start + messages.len())
}

/// Decodes a payload with an empty list in place of the bytes in `cut`. The bytes are moved to the end of the payload
/// meanwhile, because a copy of a large payload would double the memory.
fn decode_without(kind: Option<&str>, payload: &mut [u8], cut: std::ops::Range<usize>) -> Result<Event, DecodeError> {
    const EMPTY: [u8; 2] = *b"[]";

    let (end, moved) = (cut.end, cut.len() - EMPTY.len());
    let mut last = [0; EMPTY.len()];
    last.copy_from_slice(&payload[end - EMPTY.len()..end]);
    payload[end - EMPTY.len()..end].copy_from_slice(&EMPTY);
    payload[cut.start..].rotate_left(moved);
    let decoded = decode_event(kind, &payload[..payload.len() - moved]);
    if decoded.is_err() {
        payload[cut.start..].rotate_right(moved);
        payload[end - EMPTY.len()..end].copy_from_slice(&last);
    }
    decoded
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
        Self { message, position, body: None, missing_since: Mutex::default(), was_awaited: AtomicBool::new(false) }
    }

    /// Decodes the event. A large body must be attached first.
    pub fn decode(&self) -> Result<Event, DecodeError> {
        match &self.body {
            Some(Err(detail)) => return Err(DecodeError::Body(detail.clone())),
            None if self.has_reference() => {
                return Err(DecodeError::Body("the body was not fetched".to_owned()));
            }
            _ => {}
        }
        decode_event(self.header(envelope::TYPE), self.payload())
    }

    /// Decodes the event from a fetched body, without the messages of a request. On an error, the body is as before.
    pub fn decode_body(&self, body: &mut [u8]) -> Result<Event, DecodeError> {
        let kind = self.header(envelope::TYPE);
        match messages_range(kind, body) {
            Some(range) => decode_without(kind, body, range),
            None => decode_event(kind, body),
        }
    }

    /// Returns the reference to the large body; `None` if the message carries the payload itself.
    pub fn body_reference(&self) -> Result<Option<BodyReference>, BodyError> {
        BodyReference::from_headers(|name| self.header(name))
    }

    /// Returns true if the message refers to a large body.
    pub fn has_reference(&self) -> bool {
        self.header(large_body::OBJECT).is_some()
    }

    /// Notes the outcome of a try to fetch the body. Returns true if the body is missing for good.
    pub fn is_body_missing(&self, error: &FetchError) -> bool {
        self.missing_since.lock().unwrap_or_else(PoisonError::into_inner).is_confirmed_by(error, Instant::now())
    }

    /// Notes that the event has to wait for its body. Returns true at the first call.
    pub fn note_awaited(&self) -> bool {
        !self.was_awaited.swap(true, Ordering::Relaxed)
    }

    /// Tells the broker that the event is still in progress.
    pub async fn report_progress(&self) {
        if let Err(error) = self.send_ack(AckKind::Progress).await {
            tracing::debug!(error, "the progress of an event could not be reported");
        }
    }

    /// Gives the event back to the broker, which delivers it again after `delay`, to any recorder.
    pub async fn give_back(&self, delay: Duration) {
        if let Err(error) = self.send_ack(AckKind::Nak(Some(delay).filter(|delay| !delay.is_zero()))).await {
            tracing::debug!(error, "an event could not be given back: it comes back after the acknowledgement timeout");
        }
    }

    /// Returns the event type from the envelope; `None` for a type that this build does not know.
    pub fn event_type(&self) -> Option<EventType> {
        self.header(envelope::TYPE).and_then(EventType::from_name)
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
    pub(super) fn set_body(&mut self, body: Result<Vec<u8>, String>) {
        self.body = Some(body);
    }

    /// Takes the attached large body, if there is one.
    pub(super) fn take_body(&mut self) -> Option<Result<Vec<u8>, String>> {
        self.body.take()
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
        match &self.body {
            Some(Ok(body)) => body,
            _ => &self.message.payload,
        }
    }

    /// Returns the id in quarantine that the event has, or would have, without the body; `None` for an event that
    /// carries its payload itself.
    pub fn bodiless_quarantine_id(&self) -> Option<Uuid> {
        self.header(large_body::OBJECT)?;
        let bodiless = self.to_quarantined(QuarantineReason::Undecodable, String::new(), Some(&self.message.payload));
        Some(bodiless.id())
    }

    /// Returns a quarantine entry with the whole delivery: subject, headers, payload and position. `body` is the large
    /// body, if the body was fetched and is not attached.
    pub fn to_quarantined(&self, reason: QuarantineReason, detail: String, body: Option<&[u8]>) -> QuarantinedEvent {
        let headers = self.message.headers.as_ref().map(HeaderMap::iter).into_iter().flatten();
        let headers: std::collections::BTreeMap<String, Vec<&str>> = headers
            .map(|(name, values)| (name.to_string(), values.iter().map(async_nats::HeaderValue::as_str).collect()))
            .collect();
        QuarantinedEvent {
            subject: self.message.subject.to_string(),
            headers: to_pg_json(&headers).as_str().to_owned(),
            payload: body.unwrap_or_else(|| self.payload()).to_vec(),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn started(messages: &Value, model: &Value) -> Vec<u8> {
        let id = Uuid::nil();
        json!({"chat_id": id, "conversation_id": id, "user_id": "u", "gateway": "g", "started_at": "2026-11-22T10:00:00Z",
            "conversation_origin": "minted", "dialect": "openai_chat", "stream": true, "parameters": {}, "model": model,
            "messages": messages, "operation": "chat", "assistant_message_id": id,
            "new_messages": [{"id": id, "role": "user", "text": "t"}]})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn the_messages_are_cut_out_of_a_large_request_and_of_nothing_else() {
        let kind = Some(EventKind::ChatStarted.type_name());
        let large = json!([{"role": "user", "content": "a \"quoted\" text, }],\\".repeat(4000)}]);
        for (messages, is_cut) in [(&json!([]), false), (&json!(7), false), (&large, true)] {
            let mut payload = started(messages, &json!("m"));
            let range = messages_range(kind, &payload);
            assert_eq!(range.is_some(), is_cut);
            let Some(range) = range else { continue };
            assert_eq!(payload[range.clone()], *messages.to_string().as_bytes());
            let Ok(Event::ChatStarted(event)) = decode_without(kind, &mut payload, range) else {
                panic!("not decoded")
            };
            assert_eq!(event.messages.unwrap().get(), "[]");
            assert_eq!((event.model.as_str(), event.new_messages[0].text.as_str()), ("m", "t"));
        }
        assert!(messages_range(Some(EventKind::ChatFailed.type_name()), &started(&large, &json!("m"))).is_none());
        assert!(messages_range(kind, b"no JSON").is_none());
        assert!(messages_range(kind, br#"{"messages":[}"#).is_none());
    }

    #[test]
    fn a_payload_that_cannot_be_decoded_is_left_as_it_was() {
        let kind = Some(EventKind::ChatStarted.type_name());
        let original = started(&json!(["x".repeat(1 << 17)]), &json!(5));
        let mut payload = original.clone();
        let range = messages_range(kind, &payload).unwrap();
        assert!(decode_without(kind, &mut payload, range).is_err(), "a model must be a text");
        assert!(payload == original);
    }
}
