//! Tests that docs/EVENTS.md lists every field, value, subject, type, header and bucket.

use std::path::Path;

use serde_json::Value;
use shared::event::{EventKind, EventType};
use shared::{large_body, stream};

use crate::{fixtures, schemas};

fn read_page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/EVENTS.md")).unwrap()
}

/// Returns the text between the heading `name` and the next heading.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let heading = format!("### {name}\n");
    let (_, rest) = page.split_once(&heading).unwrap_or_else(|| panic!("docs/EVENTS.md has no section {name:?}"));
    rest.split("\n#").next().unwrap_or(rest)
}

#[test]
fn tables_list_exactly_the_fields_of_every_event() {
    let page = read_page();
    for kind in EventKind::ALL {
        let schema = schemas::schema(kind.latest());
        let name = kind.type_name().split('.').nth(1).unwrap();
        assert_table_lists_fields(&page, name, &schema);
        let definitions = schema["$defs"].as_object().into_iter().flatten();
        definitions
            .filter(|(_, schema)| schema.get("properties").is_some())
            .for_each(|(name, schema)| assert_table_lists_fields(&page, name, schema));
    }
}

fn assert_table_lists_fields(page: &str, name: &str, schema: &Value) {
    let fields: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let rows = section(page, name).lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let listed: Vec<_> = rows.map(|(field, _)| field).collect();
    assert_eq!(
        listed, fields,
        "docs/EVENTS.md, section {name}: the table rows (left) differ from the fields of the event (right)"
    );
}

#[test]
fn names_every_value_of_every_enum() {
    let page = read_page();
    let mut words = 0;
    for kind in EventKind::ALL {
        let schema = schemas::schema(kind.latest());
        for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
            for word in
                definition["anyOf"].as_array().into_iter().flatten().filter_map(|choice| choice["const"].as_str())
            {
                assert!(page.contains(&format!("`{word}`")), "docs/EVENTS.md does not name `{word}`, a {name}");
                words += 1;
            }
        }
    }
    assert!(words > 20, "the schemas have no words");
}

#[test]
fn names_every_subject_type_header_and_bucket() {
    let page = read_page();
    for kind in EventKind::ALL {
        assert!(page.contains(&format!("`chats.{}.<user>`", kind.subject_token())), "{kind:?}");
        assert!(page.contains(&format!("`{}`", kind.type_name())), "{kind:?}");
    }
    for event_type in EventType::ALL {
        assert!(page.contains(&format!("`{}`", event_type.name())), "{event_type:?}");
    }
    let headers = fixtures::all().into_iter().flat_map(|fixture| fixture.headers.into_keys());
    let others =
        [large_body::OBJECT, large_body::SHA256, large_body::SIZE, large_body::BUCKET, stream::NAME].map(str::to_owned);
    for name in headers.chain(others) {
        assert!(page.contains(&format!("`{name}`")), "docs/EVENTS.md does not name {name}");
    }
}
