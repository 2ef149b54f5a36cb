//! Publishes one event to the broker, and parses the broker's answer.

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, HeaderName, Message, StatusCode, Subject};
use bytes::Bytes;
use serde::Deserialize;
use shared::envelope::Envelope;
use shared::large_body::BodyReference;

use super::large_bodies::is_large;
use crate::journal::JournalEntry;

/// The outcome of an attempt to publish an event.
#[derive(Debug)]
pub(super) enum PublishOutcome {
    /// The event has been handed to the connection.
    Sent,
    /// The event was not sent, for the given reason. A later attempt may succeed.
    RetryLater(String),
    /// The event exceeds the broker's maximum message size.
    TooLarge,
    /// The body has to be uploaded first. Holds the event's id and the body.
    NeedsBucket(String, Bytes),
    /// The journal record holds no event.
    NotAnEvent,
}

/// The maximum number of cached templates. Events have a few types and one source, except for events in a journal taken
/// over from another instance.
const MAX_TEMPLATES: usize = 32;

/// Cached headers, one template for each event type and source. The headers of a new event are a copy of a template
/// with the event's own values inserted; building all headers anew costs twice as much.
#[derive(Debug, Default)]
pub(super) struct HeaderTemplates(Vec<HeaderTemplate>);

#[derive(Debug)]
struct HeaderTemplate {
    type_name: String,
    source: String,
    headers: HeaderMap,
}

impl HeaderTemplates {
    /// Returns the headers of an event, and caches a template if there is none.
    fn headers(&mut self, envelope: &Envelope<'_>) -> HeaderMap {
        let is_same =
            |known: &&HeaderTemplate| known.type_name == envelope.type_name && known.source == envelope.source;
        if let Some(known) = self.0.iter().find(is_same) {
            let mut headers = known.headers.clone();
            insert_headers(&mut headers, envelope.own_headers());
            return headers;
        }
        let mut headers = HeaderMap::new();
        insert_headers(&mut headers, envelope.headers());
        if self.0.len() == MAX_TEMPLATES {
            self.0.clear();
        }
        let mut common = headers.clone();
        // Empty values reserve the places of the event's own headers, and cost little to copy.
        insert_headers(&mut common, envelope.own_headers().map(|(name, _)| (name, String::new())));
        let (type_name, source) = (envelope.type_name.to_owned(), envelope.source.to_owned());
        self.0.push(HeaderTemplate { type_name, source, headers: common });
        headers
    }
}

fn insert_headers(headers: &mut HeaderMap, pairs: impl IntoIterator<Item = (&'static str, String)>) {
    pairs.into_iter().for_each(|(name, value)| headers.insert(HeaderName::from_static(name), value));
}

/// Publishes an event, with `reply` as the subject for the acknowledgement. `body` refers to an uploaded body, which
/// replaces the payload.
pub(super) async fn publish(
    client: &Client,
    templates: &mut HeaderTemplates,
    entry: &JournalEntry,
    reply: String,
    body: Option<&BodyReference>,
) -> PublishOutcome {
    let Some(mut event) = entry.event() else { return PublishOutcome::NotAnEvent };
    if body.is_none() && is_large(client, event.payload.len()) {
        return PublishOutcome::NeedsBucket(event.envelope.id.to_string(), event.payload);
    }
    let Ok(subject) = Subject::from_utf8(event.subject) else { return PublishOutcome::NotAnEvent };
    let mut headers = templates.headers(&event.envelope);
    if let Some(body) = body {
        event.payload = Bytes::new();
        insert_headers(&mut headers, body.headers());
    }
    let published = client.publish_with_reply_and_headers(subject, reply, headers, event.payload).await;
    match published {
        Ok(()) => PublishOutcome::Sent,
        Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => PublishOutcome::TooLarge,
        Err(error) => PublishOutcome::RetryLater(error.to_string()),
    }
}

/// The broker's answer to a published event.
#[derive(Debug)]
pub(super) enum PublishAck {
    /// The stream has stored the event.
    Acknowledged {
        /// The event's sequence number in the stream.
        sequence: u64,
    },
    /// The event was not stored, for the given reason.
    Refused(String),
}

#[derive(Deserialize)]
struct AckMessage {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Parses the broker's answer. Only an acknowledgement from the expected stream releases an event.
pub(super) fn parse_ack(message: &Message) -> PublishAck {
    match (message.status, serde_json::from_slice::<AckMessage>(&message.payload)) {
        // A repeated event is acknowledged as well, with its sequence, because the stream has stored the event.
        (None, Ok(ack)) if ack.error.is_none() && ack.stream == shared::stream::NAME => {
            PublishAck::Acknowledged { sequence: ack.seq }
        }
        (Some(StatusCode::NO_RESPONDERS), _) => PublishAck::Refused("no stream accepts the event's subject".to_owned()),
        (_, Ok(AckMessage { error: Some(error), .. })) => {
            PublishAck::Refused(format!("{} ({})", error.description, error.err_code))
        }
        (_, Ok(ack)) => {
            PublishAck::Refused(format!("stored in stream {:?}, expected {}", ack.stream, shared::stream::NAME))
        }
        (_, Err(_)) => PublishAck::Refused("the broker's answer cannot be parsed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_from_a_template_equal_headers_made_anew() {
        let mut templates = HeaderTemplates::default();
        for place in 0..200_u128 {
            let id = shared::id::EventId(uuid::Uuid::from_u128(place));
            let (time, source) = (format!("2026-01-01T00:00:{place}Z"), format!("/gateway/{}", place % 40));
            let type_name = ["stenograph.ChatStarted.v2", "stenograph.ChatFailed.v2"][usize::from(place % 3 == 0)];
            let envelope = Envelope { id, type_name, time: &time, source: &source };
            let mut expected = HeaderMap::new();
            insert_headers(&mut expected, envelope.headers());
            assert_eq!(expected.len(), 9);
            assert_eq!(templates.headers(&envelope), expected);
            assert!(templates.0.len() <= MAX_TEMPLATES);
        }
    }
}
