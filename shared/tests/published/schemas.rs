//! Tests that the documents in `docs/schema` are up to date, and that published events are valid against the schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::Value;
use shared::envelope;
use shared::event::EventType;
use shared::schema::documents;

use crate::fixtures;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema")
}

#[test]
fn checked_in_documents_match_the_event_types() {
    let instruction = "regenerate docs/schema with `cargo run -p shared --features schema --example schema`";
    let documents = documents();
    for (name, document) in &documents {
        let checked_in = std::fs::read_to_string(directory().join(name)).unwrap_or_default();
        assert!(checked_in == *document, "docs/schema/{name} differs from the event types: {instruction}");
    }
    // The schemas of earlier versions stay as they are.
    let earlier: BTreeSet<_> = EventType::ALL.iter().map(|event_type| format!("{}.json", event_type.name())).collect();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_known = documents.contains_key(&name) || earlier.contains(&name);
        assert!(is_known, "docs/schema/{name} belongs to no event: remove the file");
    }
}

#[test]
fn accept_every_published_event_and_reject_null_members() {
    let validators: BTreeMap<_, _> = EventType::ALL.map(|event_type| (event_type.name(), validator(event_type))).into();
    for fixture in fixtures::all() {
        let validator = &validators[fixture.headers[envelope::TYPE].as_str()];
        let errors: Vec<_> = validator.iter_errors(&fixture.payload).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", fixture.file.display());
        // The schema must not accept null: a schema that accepts any value would prove nothing.
        for (name, _) in fixture.payload.as_object().unwrap() {
            let mut with_null = fixture.payload.clone();
            with_null[name] = Value::Null;
            let accepts_null = name == "messages";
            assert_eq!(validator.is_valid(&with_null), accepts_null, "{}: {name} is null", fixture.file.display());
        }
        let mut with_unknown_field = fixture.payload.clone();
        with_unknown_field["a_field_of_tomorrow"] = Value::from(1);
        assert!(validator.is_valid(&with_unknown_field), "unknown fields must be accepted");
    }
}

#[test]
fn every_field_occurs_in_some_fixture() {
    let fixtures = fixtures::all();
    for event_type in EventType::ALL {
        let schema = schema(event_type);
        let mut fields = BTreeSet::new();
        collect_schema_fields(&schema, &schema, "", &mut fields);
        let mut occurring = BTreeSet::new();
        for fixture in fixtures.iter().filter(|fixture| fixture.headers[envelope::TYPE] == event_type.name()) {
            collect_value_fields(&fixture.payload, "", &mut occurring);
        }
        let missing: Vec<_> = fields.difference(&occurring).collect();
        assert!(missing.is_empty(), "{}: no fixture has {missing:?}", event_type.name());
    }
}

/// Returns the checked-in schema of an event type.
pub(crate) fn schema(event_type: EventType) -> Value {
    let file = directory().join(format!("{}.json", event_type.name()));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn validator(event_type: EventType) -> Validator {
    jsonschema::options().should_validate_formats(true).build(&schema(event_type)).unwrap()
}

/// Adds the paths of all fields of a schema to `fields`, references included.
fn collect_schema_fields(root: &Value, schema: &Value, path: &str, fields: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        collect_schema_fields(root, &root["$defs"][name.trim_start_matches("#/$defs/")], path, fields);
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        collect_schema_fields(root, member, &path, fields);
        fields.insert(path);
    }
    if let Some(items) = schema.get("items") {
        collect_schema_fields(root, items, path, fields);
    }
}

/// Adds the paths of all fields of a JSON value to `fields`.
fn collect_value_fields(value: &Value, path: &str, fields: &mut BTreeSet<String>) {
    for item in value.as_array().into_iter().flatten() {
        collect_value_fields(item, path, fields);
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        collect_value_fields(member, &path, fields);
        fields.insert(path);
    }
}
