//! JSON Schemas of the events and an AsyncAPI document of the stream, generated from the published types, so that
//! documents and types cannot differ. The generated files are checked in at `docs/schema`, for readers of the stream
//! that do not use this crate. The schemas of earlier versions are there too, as they were when a later version followed.

pub(crate) mod date_time;

use std::collections::BTreeMap;

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::{RecursiveTransform, Transform as _};
use serde_json::{Map, Value, json};

use crate::event::{
    AuditRecorded, ChatDeferred, ChatFailed, ChatStarted, ConversationChanged, ConversationCreated,
    ConversationDeleted, CostsRepriced, EventKind, KeyChanged, KeyIssued, KeyRevoked, LimitsChanged, MessageCompleted,
    PricesPublished, ProjectChanged,
};
use crate::{envelope, large_body, stream};

/// The file name of the AsyncAPI document in [`documents`].
pub const ASYNCAPI: &str = "asyncapi.json";

/// Returns the text of every document by file name.
pub fn documents() -> BTreeMap<String, String> {
    let schemas = EventKind::ALL.into_iter().map(|kind| (file_name(kind), json_schema(kind)));
    schemas
        .chain([(ASYNCAPI.to_owned(), asyncapi())])
        .map(|(name, document)| (name, to_pretty_text(&document)))
        .collect()
}

/// Returns the file name of the schema of the latest version of an event kind, such as `stenograph.ChatStarted.v2.json`.
pub fn file_name(kind: EventKind) -> String {
    format!("{}.json", kind.type_name())
}

/// Returns the JSON Schema (2020-12) of the payload. The `$id` is the value of the header `ce-dataschema`.
fn json_schema(kind: EventKind) -> Value {
    let mut schema = payload_schema(kind, SchemaSettings::draft2020_12().for_serialize().into_generator());
    schema.insert("$id".to_owned(), envelope::schema_uri(kind.type_name()).into());
    schema.insert("title".to_owned(), kind.type_name().into());
    // These members come first; the other members keep their order.
    let mut ordered = Map::new();
    for name in ["$schema", "$id", "title"] {
        ordered.extend(schema.remove_entry(name));
    }
    ordered.extend(schema);
    Value::Object(ordered)
}

fn payload_schema(kind: EventKind, generator: SchemaGenerator) -> Map<String, Value> {
    let mut schema = match kind {
        EventKind::ChatStarted => generator.into_root_schema_for::<ChatStarted>(),
        EventKind::MessageCompleted => generator.into_root_schema_for::<MessageCompleted>(),
        EventKind::ChatFailed => generator.into_root_schema_for::<ChatFailed>(),
        EventKind::ConversationCreated => generator.into_root_schema_for::<ConversationCreated>(),
        EventKind::ConversationChanged => generator.into_root_schema_for::<ConversationChanged>(),
        EventKind::ConversationDeleted => generator.into_root_schema_for::<ConversationDeleted>(),
        EventKind::KeyIssued => generator.into_root_schema_for::<KeyIssued>(),
        EventKind::KeyChanged => generator.into_root_schema_for::<KeyChanged>(),
        EventKind::KeyRevoked => generator.into_root_schema_for::<KeyRevoked>(),
        EventKind::LimitsChanged => generator.into_root_schema_for::<LimitsChanged>(),
        EventKind::PricesPublished => generator.into_root_schema_for::<PricesPublished>(),
        EventKind::CostsRepriced => generator.into_root_schema_for::<CostsRepriced>(),
        EventKind::AuditRecorded => generator.into_root_schema_for::<AuditRecorded>(),
        EventKind::ChatDeferred => generator.into_root_schema_for::<ChatDeferred>(),
        EventKind::ProjectChanged => generator.into_root_schema_for::<ProjectChanged>(),
    };
    RecursiveTransform(remove_null_from_optional_members).transform(&mut schema);
    schema.as_object_mut().map(std::mem::take).unwrap_or_default()
}

/// Removes the type null from members that are not required: an optional member is left out of the JSON when empty, and
/// never published as null.
fn remove_null_from_optional_members(schema: &mut Schema) {
    let required: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (_, member) in members.iter_mut().filter(|(name, _)| !required.contains(&Value::from(name.as_str()))) {
        let Some(member) = member.as_object_mut() else { continue };
        if let Some(Value::Array(types)) = member.get_mut("type") {
            types.retain(|name| name != "null");
            if let [single] = types.as_slice() {
                let single = single.clone();
                member.insert("type".to_owned(), single);
            }
        }
        if let Some(Value::Array(choices)) = member.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(single)] = choices.as_slice() {
                let single = single.clone();
                member.remove("anyOf");
                member.extend(single);
            }
        }
    }
}

/// Returns the AsyncAPI 3.0 document. Payload schemas are draft 7, because AsyncAPI tools support no later JSON Schema.
fn asyncapi() -> Value {
    let (mut schemas, mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new(), Map::new());
    for kind in EventKind::ALL {
        let settings = SchemaSettings::draft07().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        let mut schema = payload_schema(kind, settings.into_generator());
        // The generator puts definitions into `components`, as set by `definitions_path` above.
        let mut components = schema.remove("components").unwrap_or_default();
        if let Some(definitions) = components.get_mut("schemas").and_then(Value::as_object_mut) {
            for definition in definitions.values_mut() {
                let definition: Result<&mut Schema, _> = definition.try_into();
                definition.into_iter().for_each(remove_null_from_optional_members);
            }
            schemas.append(definitions);
        }
        let description = schema.get("description").cloned().unwrap_or_default();
        let (name, token) = (message_name(kind), kind.subject_token());
        schemas.insert(name.clone(), Value::Object(schema));
        messages.insert(
            name.clone(),
            json!({
                "name": kind.type_name(),
                "title": name,
                "summary": description,
                "contentType": "application/json",
                "headers": header_schema(kind),
                "payload": {"$ref": format!("#/components/schemas/{name}")},
            }),
        );
        channels.insert(
            token.to_owned(),
            json!({
                "address": format!("chats.{token}.{{user}}"),
                "description": description,
                "parameters": {"user": {"$ref": "#/components/parameters/user"}},
                "messages": {name.clone(): {"$ref": format!("#/components/messages/{name}")}},
            }),
        );
        operations.insert(
            format!("on_{token}"),
            json!({
                "action": "receive",
                "summary": description,
                "channel": {"$ref": format!("#/channels/{token}")},
                "messages": [{"$ref": format!("#/channels/{token}/messages/{name}")}],
            }),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stenograph",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Every chat on the record: the events in the JetStream stream {}, in the latest version of each type. \
                 Events come at least once, and in no order that may be relied on; an id is an event. The stream also holds \
                 events of earlier versions, which have JSON Schemas of their own. See docs/EVENTS.md.",
                stream::NAME
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {"host": "{broker}", "protocol": "nats", "variables": {"broker": {
                "default": "localhost:4222", "description": "The address of the deployment's broker: NATS_URL.",
            }}},
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "parameters": {"user": {"description":
                "The user as one token: the id itself if it consists of at most 64 letters, digits, - and _; else ~ and the \
                 base64url form of the id."}},
            "messages": messages,
            "schemas": schemas,
        },
    })
}

/// Returns the schema of the message headers: the attributes of CloudEvents 1.0, and the headers of large bodies.
fn header_schema(kind: EventKind) -> Value {
    let uuid = json!({"type": "string", "format": "uuid"});
    json!({
        "type": "object",
        "required": [envelope::ID, envelope::TYPE, envelope::SOURCE, envelope::TIME, "ce-specversion", "Nats-Msg-Id"],
        "properties": {
            envelope::ID: uuid,
            envelope::TYPE: {"type": "string", "const": kind.type_name()},
            envelope::SOURCE: {"type": "string", "description": "The publisher: /gateway/<instance> or /recorder."},
            envelope::TIME: {"type": "string", "format": "date-time", "description": "The time of the event."},
            "ce-specversion": {"type": "string", "const": "1.0"},
            "ce-datacontenttype": {"type": "string", "const": "application/json"},
            "ce-dataschema": {"type": "string", "const": envelope::schema_uri(kind.type_name())},
            "Nats-Msg-Id": uuid,
            large_body::OBJECT: {"type": "string", "description": format!(
                "The object in the bucket {} that holds a payload which is too large for a message. The message itself is empty then.",
                large_body::BUCKET
            )},
            large_body::SHA256: {"type": "string", "description": "The SHA-256 of that object, in hexadecimal digits."},
            large_body::SIZE: {"type": "string", "description": "The size of that object, in bytes."},
        },
    })
}

/// Returns the name of the event's Rust type: the middle part of `stenograph.ChatStarted.v1`.
fn message_name(kind: EventKind) -> String {
    kind.type_name().split('.').nth(1).unwrap_or_default().to_owned()
}

fn to_pretty_text(document: &Value) -> String {
    format!("{document:#}\n")
}
