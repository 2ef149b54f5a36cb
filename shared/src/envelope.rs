//! The envelope of an event on the broker: CloudEvents 1.0 in binary mode, one NATS header per attribute.

use time::format_description::well_known::Rfc3339;

use crate::event::Event;
use crate::id::EventId;
use crate::stream;

/// The header that names the event's type, and so how to read the payload.
pub const TYPE: &str = "ce-type";

/// The header that holds the event's id.
pub const ID: &str = "ce-id";

/// The header that says who published the event.
pub const SOURCE: &str = "ce-source";

/// The header that says when it happened.
pub const TIME: &str = "ce-time";

/// The header by which the broker tells repeated events.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";

/// An event's envelope: everything that its headers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The event's id.
    pub id: EventId,
    /// Its type, version included.
    pub type_name: &'a str,
    /// When it happened, as in RFC 3339.
    pub time: &'a str,
    /// Who publishes it, as a URI reference: `/gateway/<instance>`.
    pub source: &'a str,
}

impl Envelope<'_> {
    /// The headers: those of every event of this type and source, and those of this one.
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

    /// The headers that are this event's alone.
    pub fn own_headers(&self) -> [(&'static str, String); 3] {
        let id = self.id.to_string();
        [(ID, id.clone()), (TIME, self.time.to_owned()), (MESSAGE_ID, id)]
    }
}

/// The headers of this event, as published by `source` (a URI reference: `/gateway/<instance>`).
pub fn headers(event: &Event, source: &str) -> Vec<(&'static str, String)> {
    let (type_name, time) = (event.kind().type_name(), rfc3339_time(event));
    Envelope { id: event.id(), type_name, time: &time, source }.headers()
}

/// When the event happened, as its envelope says it.
pub fn rfc3339_time(event: &Event) -> String {
    event.time().format(&Rfc3339).unwrap_or_default()
}

/// Names the JSON Schema of the payload of events of this type.
pub fn schema_uri(type_name: &str) -> String {
    format!("urn:{}", type_name.replace('.', ":"))
}
