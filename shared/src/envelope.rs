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

/// An event's envelope: everything that its headers are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The event's id.
    pub id: EventId,
    /// Its type, version included.
    pub type_name: String,
    /// When it happened, as in RFC 3339.
    pub time: String,
    /// Who publishes it, as a URI reference: `/gateway/<instance>`.
    pub source: String,
}

impl Envelope {
    /// The headers.
    pub fn headers(&self) -> [(&'static str, String); 9] {
        let id = self.id.to_string();
        [
            (ID, id.clone()),
            (TYPE, self.type_name.clone()),
            (SOURCE, self.source.clone()),
            (TIME, self.time.clone()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-datacontenttype", "application/json".to_owned()),
            ("ce-dataschema", schema_uri(&self.type_name)),
            ("Nats-Msg-Id", id),
            ("Nats-Expected-Stream", stream::NAME.to_owned()),
        ]
    }
}

/// The headers of this event, as published by `source` (a URI reference: `/gateway/<instance>`).
pub fn headers(event: &Event, source: &str) -> [(&'static str, String); 9] {
    let type_name = event.kind().type_name().to_owned();
    Envelope { id: event.id(), type_name, time: time_of(event), source: source.to_owned() }.headers()
}

/// When the event happened, as its envelope says it.
pub fn time_of(event: &Event) -> String {
    event.time().format(&Rfc3339).unwrap_or_default()
}

/// Names the JSON Schema of the payload of events of this type.
pub fn schema_uri(type_name: &str) -> String {
    format!("urn:{}", type_name.replace('.', ":"))
}
