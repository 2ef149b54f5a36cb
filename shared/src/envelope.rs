//! The envelope of an event on the broker: CloudEvents 1.0 in binary mode, one NATS header per attribute.

use time::format_description::well_known::Rfc3339;

use crate::event::{Event, EventKind};
use crate::stream;

/// The header that names the event's type, and so how to read the payload.
pub const TYPE: &str = "ce-type";

/// The header that holds the event's id.
pub const ID: &str = "ce-id";

/// The headers of this event, as published by `source` (a URI reference: `/gateway/<instance>`).
pub fn headers(event: &Event, source: &str) -> [(&'static str, String); 9] {
    let id = event.id().to_string();
    let kind = event.kind();
    [
        (ID, id.clone()),
        (TYPE, kind.type_name().to_owned()),
        ("ce-source", source.to_owned()),
        ("ce-time", event.time().format(&Rfc3339).unwrap_or_default()),
        ("ce-specversion", "1.0".to_owned()),
        ("ce-datacontenttype", "application/json".to_owned()),
        ("ce-dataschema", schema_uri(kind)),
        ("Nats-Msg-Id", id),
        ("Nats-Expected-Stream", stream::NAME.to_owned()),
    ]
}

/// Names the JSON Schema of an event's payload.
pub fn schema_uri(kind: EventKind) -> String {
    format!("urn:{}", kind.type_name().replace('.', ":"))
}
