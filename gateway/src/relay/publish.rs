//! One event to the broker, and the broker's answer.

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, HeaderName, Message, StatusCode, Subject};
use bytes::Bytes;
use serde::Deserialize;
use shared::envelope::Envelope;
use shared::large_body::BodyReference;

use super::large_bodies::is_large;
use crate::journal::JournalEntry;

/// What became of an attempt to publish.
#[derive(Debug)]
pub(super) enum PublishOutcome {
    /// It is on its way.
    Sent,
    /// It is not; it may be later.
    RetryLater(String),
    /// The broker takes no event of this size.
    TooLarge,
    /// Its body has to go into its bucket first: the event's id, and the body.
    NeedsBucket(String, Bytes),
    /// There is no event in the record.
    NotAnEvent,
}

/// How many kinds of events are remembered: there are a few types, and one source but for journals that were taken over.
const MAX_TEMPLATES: usize = 32;

/// The headers of events of one type and source: a new event's are a copy, with its own put in. Making all of them anew
/// costs twice as much.
#[derive(Debug, Default)]
pub(super) struct HeaderTemplates(Vec<HeaderTemplate>);

#[derive(Debug)]
struct HeaderTemplate {
    type_name: String,
    source: String,
    headers: HeaderMap,
}

impl HeaderTemplates {
    /// The headers of this event.
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
        // Places for those to come, with nothing in them that would be copied in vain.
        insert_headers(&mut common, envelope.own_headers().map(|(name, _)| (name, String::new())));
        let (type_name, source) = (envelope.type_name.to_owned(), envelope.source.to_owned());
        self.0.push(HeaderTemplate { type_name, source, headers: common });
        headers
    }
}

fn insert_headers(headers: &mut HeaderMap, pairs: impl IntoIterator<Item = (&'static str, String)>) {
    pairs.into_iter().for_each(|(name, value)| headers.insert(HeaderName::from_static(name), value));
}

/// Publishes an event, to be answered at `reply`.
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

/// The broker's answer.
#[derive(Debug)]
pub(super) enum PublishAck {
    /// It has the event.
    Acknowledged {
        /// Where in the stream.
        sequence: u64,
        /// It had it before.
        is_duplicate: bool,
    },
    /// It has not.
    Refused(String),
}

#[derive(Deserialize)]
struct AckMessage {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// Reads an answer. Only one from the right stream releases an event.
pub(super) fn parse_ack(message: &Message) -> PublishAck {
    match (message.status, serde_json::from_slice::<AckMessage>(&message.payload)) {
        // A repeated event is acknowledged too: the broker has it.
        (None, Ok(ack)) if ack.error.is_none() && ack.stream == shared::stream::NAME => {
            PublishAck::Acknowledged { sequence: ack.seq, is_duplicate: ack.duplicate }
        }
        (Some(StatusCode::NO_RESPONDERS), _) => PublishAck::Refused("no stream takes it".to_owned()),
        (_, Ok(AckMessage { error: Some(error), .. })) => {
            PublishAck::Refused(format!("{} ({})", error.description, error.err_code))
        }
        (_, Ok(ack)) => {
            PublishAck::Refused(format!("it went to stream {:?}, expected {}", ack.stream, shared::stream::NAME))
        }
        (_, Err(_)) => PublishAck::Refused("the answer makes no sense".to_owned()),
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
            let type_name = ["stenograph.ChatStarted.v1", "stenograph.ChatFailed.v1"][usize::from(place % 3 == 0)];
            let envelope = Envelope { id, type_name, time: &time, source: &source };
            let mut expected = HeaderMap::new();
            insert_headers(&mut expected, envelope.headers());
            assert_eq!(expected.len(), 9);
            assert_eq!(templates.headers(&envelope), expected);
            assert!(templates.0.len() <= MAX_TEMPLATES);
        }
    }
}
