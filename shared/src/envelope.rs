//! The envelope of an event on the broker: CloudEvents 1.0 in binary mode, one NATS header per attribute.

use time::format_description::well_known::Rfc3339;

use crate::event::Event;
use crate::id::EventId;
use crate::stream;

/// The header with the event's type and version, which decide how the payload is decoded.
pub const TYPE: &str = "ce-type";

/// The header with the event's id, a UUID.
pub const ID: &str = "ce-id";

/// The header with the publisher of the event, a URI reference: `/gateway/<instance>` or `/recorder`.
pub const SOURCE: &str = "ce-source";

/// The header with the time of the event, in RFC 3339.
pub const TIME: &str = "ce-time";

/// The header by which the broker recognises a repeated publication: the event's id.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The envelope of an event: the values from which the headers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The event's id, in [`ID`] and [`MESSAGE_ID`].
    pub id: EventId,
    /// The event's type with the version, such as `stenograph.ChatStarted.v1`.
    pub type_name: &'a str,
    /// The time of the event, in RFC 3339.
    pub time: &'a str,
    /// The publisher, as a URI reference: `/gateway/<instance>`.
    pub source: &'a str,
}

impl Envelope<'_> {
    /// Returns all headers: first the headers that every event of the same type and source has, then the
    /// [`own_headers`](Self::own_headers).
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let type_headers = [
            (TYPE, self.type_name.to_owned()),
            (SOURCE, self.source.to_owned()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-datacontenttype", "application/json".to_owned()),
            ("ce-dataschema", schema_uri(self.type_name)),
            ("Nats-Expected-Stream", stream::NAME.to_owned()),
        ];
        type_headers.into_iter().chain(self.own_headers()).collect()
    }

    /// Returns the headers that differ from event to event: id, time and message id.
    pub fn own_headers(&self) -> [(&'static str, String); 3] {
        let id = self.id.to_string();
        [(ID, id.clone()), (TIME, self.time.to_owned()), (MESSAGE_ID, id)]
    }
}

/// Returns the headers of `event`, as published by `source` (a URI reference: `/gateway/<instance>`).
pub fn headers(event: &Event, source: &str) -> Vec<(&'static str, String)> {
    let (type_name, time) = (event.kind().type_name(), rfc3339_time(event));
    Envelope { id: event.id(), type_name, time: &time, source }.headers()
}

/// Returns the time of `event` in RFC 3339, as written into the envelope.
pub fn rfc3339_time(event: &Event) -> String {
    event.time().format(&Rfc3339).unwrap_or_default()
}

/// Returns the URI of the JSON Schema of the payload of the event type: `urn:stenograph:ChatStarted:v1`.
pub fn schema_uri(type_name: &str) -> String {
    format!("urn:{}", type_name.replace('.', ":"))
}
