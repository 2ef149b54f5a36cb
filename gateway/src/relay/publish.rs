//! One event to the broker, and the broker's answer.

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, HeaderName, Message, StatusCode, Subject};
use bytes::Bytes;
use serde::Deserialize;
use shared::envelope::Envelope;
use shared::large_body::Reference;

use super::large_bodies::is_large;
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

/// How many kinds of events are remembered: there are a few types, and one source but for journals that were taken over.
const MOST_TEMPLATES: usize = 32;

/// The headers of events of one type and source: a new event's are a copy, with its own put in. Making all of them anew
/// costs twice as much.
#[derive(Debug, Default)]
pub(super) struct Templates(Vec<Template>);

#[derive(Debug)]
struct Template {
    type_name: String,
    source: String,
    headers: HeaderMap,
}

impl Templates {
    /// The headers of this event.
    fn headers(&mut self, envelope: &Envelope<'_>) -> HeaderMap {
        let is_same = |known: &&Template| known.type_name == envelope.type_name && known.source == envelope.source;
        if let Some(known) = self.0.iter().find(is_same) {
            let mut headers = known.headers.clone();
            put(&mut headers, envelope.own_headers());
            return headers;
        }
        let mut headers = HeaderMap::new();
        put(&mut headers, envelope.headers());
        if self.0.len() == MOST_TEMPLATES {
            self.0.clear();
        }
        let mut common = headers.clone();
        // Places for those to come, with nothing in them that would be copied in vain.
        put(&mut common, envelope.own_headers().map(|(name, _)| (name, String::new())));
        let (type_name, source) = (envelope.type_name.to_owned(), envelope.source.to_owned());
        self.0.push(Template { type_name, source, headers: common });
        headers
    }
}

fn put(headers: &mut HeaderMap, pairs: impl IntoIterator<Item = (&'static str, String)>) {
    pairs.into_iter().for_each(|(name, value)| headers.insert(HeaderName::from_static(name), value));
}

/// Publishes an event, to be answered at `reply`.
pub(super) async fn publish(
    client: &Client,
    templates: &mut Templates,
    entry: &Entry,
    reply: String,
    body: Option<&Reference>,
) -> Sent {
    let Some(mut event) = entry.event() else { return Sent::Never };
    if body.is_none() && is_large(client, event.payload.len()) {
        return Sent::NeedsBucket(event.envelope.id.to_string(), event.payload);
    }
    let Ok(subject) = Subject::from_utf8(event.subject) else { return Sent::Never };
    let mut headers = templates.headers(&event.envelope);
    if let Some(body) = body {
        event.payload = Bytes::new();
        put(&mut headers, body.headers());
    }
    let sent = client.publish_with_reply_and_headers(subject, reply, headers, event.payload).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_from_a_template_are_the_event_s_own() {
        let mut templates = Templates::default();
        for place in 0..200_u128 {
            let id = shared::id::EventId(uuid::Uuid::from_u128(place));
            let (time, source) = (format!("2026-01-01T00:00:{place}Z"), format!("/gateway/{}", place % 40));
            let type_name = ["stenograph.ChatStarted.v1", "stenograph.ChatFailed.v1"][usize::from(place % 3 == 0)];
            let envelope = Envelope { id, type_name, time: &time, source: &source };
            let mut expected = HeaderMap::new();
            put(&mut expected, envelope.headers());
            assert_eq!(expected.len(), 9);
            assert_eq!(templates.headers(&envelope), expected);
            assert!(templates.0.len() <= MOST_TEMPLATES);
        }
    }
}
