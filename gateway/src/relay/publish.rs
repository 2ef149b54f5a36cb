//! One event to the broker, and the broker's answer.

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, HeaderName, Message, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use shared::body::Reference;

use super::bodies::is_large;
use crate::journal::Entry;

/// What became of an attempt to publish.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is on its way.
    Yes,
    /// It is not; it may be later.
    NotNow(String),
    /// The broker takes no event of this size.
    TooLarge,
    /// Its body has to go into its bucket first: the event's id, and the body.
    NeedsBucket(String, Bytes),
    /// There is no event in the record.
    Never,
}

/// Publishes an event, to be answered at `reply`.
pub(super) async fn publish(client: &Client, entry: &Entry, reply: String, body: Option<&Reference>) -> Sent {
    let Some(mut event) = entry.event() else { return Sent::Never };
    if body.is_none() && is_large(client, event.payload.len()) {
        return Sent::NeedsBucket(event.envelope.id.to_string(), event.payload);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in event.envelope.headers() {
        headers.insert(HeaderName::from_static(name), value);
    }
    if let Some(body) = body {
        event.payload = Bytes::new();
        body.headers().into_iter().for_each(|(name, value)| headers.insert(HeaderName::from_static(name), value));
    }
    let sent = client.publish_with_reply_and_headers(event.subject, reply, headers, event.payload).await;
    match sent {
        Ok(()) => Sent::Yes,
        Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Sent::TooLarge,
        Err(error) => Sent::NotNow(error.to_string()),
    }
}

/// The broker's answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// It has the event.
    Acknowledged {
        /// Where in the stream.
        sequence: u64,
        /// It had it before.
        is_repeated: bool,
    },
    /// It has not.
    Refused(String),
}

#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<PubError>,
}

#[derive(Deserialize)]
struct PubError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Reads an answer. Only one from the right stream releases an event.
pub(super) fn answer(message: &Message) -> Answer {
    match (message.status, serde_json::from_slice::<PubAck>(&message.payload)) {
        // A repeated event is acknowledged too: the broker has it.
        (None, Ok(ack)) if ack.error.is_none() && ack.stream == shared::stream::NAME => {
            Answer::Acknowledged { sequence: ack.seq, is_repeated: ack.duplicate }
        }
        (Some(StatusCode::NO_RESPONDERS), _) => Answer::Refused("no stream takes it".to_owned()),
        (_, Ok(PubAck { error: Some(error), .. })) => {
            Answer::Refused(format!("{} ({})", error.description, error.err_code))
        }
        (_, Ok(ack)) => {
            Answer::Refused(format!("it went to stream {:?}, expected {}", ack.stream, shared::stream::NAME))
        }
        (_, Err(_)) => Answer::Refused("the answer makes no sense".to_owned()),
    }
}
