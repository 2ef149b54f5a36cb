//! Published events, stored in files `fixtures/<type>/*.json`. Every fixture must decode to the same value for ever.
//!
//! A file has the subject, the headers and the payload of an event. The optional member `read_as` has the payload as
//! encoded today, for events whose encoding has changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use shared::envelope::Envelope;
use shared::event::{Event, EventType};
use shared::{envelope, subject};

/// A published event: subject, headers and payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixture {
    #[serde(skip)]
    pub(crate) file: PathBuf,
    pub(crate) subject: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) payload: Value,
    pub(crate) read_as: Option<Value>,
}

/// Returns all fixtures, sorted by path.
pub(crate) fn all() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for directory in entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published/fixtures")) {
        for file in entries(&directory) {
            let text = std::fs::read_to_string(&file).unwrap();
            let fixture = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            fixtures.push(Fixture { file, ..fixture });
        }
    }
    fixtures
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

#[test]
fn every_published_event_is_decoded_to_its_expected_value() {
    for fixture in all() {
        let file = fixture.file.display();
        let event_type =
            EventType::from_name(&fixture.headers[envelope::TYPE]).unwrap_or_else(|| panic!("{file}: type"));
        let kind = event_type.kind();
        let payload = serde_json::to_vec(&fixture.payload).unwrap();
        let event = Event::decode(event_type, &payload).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(event.kind(), kind, "{file}");
        let read: Value = serde_json::from_slice(&event.encode().unwrap()).unwrap();
        assert_eq!(&read, fixture.read_as.as_ref().unwrap_or(&fixture.payload), "{file}");
        assert_eq!(subject::of(kind, event.user_id()), fixture.subject, "{file}");
        let (type_name, time) = (event_type.name(), envelope::rfc3339_time(&event));
        let source = &fixture.headers[envelope::SOURCE];
        let headers = Envelope { id: event.id(), type_name, time: &time, source }.headers();
        if event_type == kind.latest() {
            assert_eq!(headers, envelope::headers(&event, source), "{file}");
        }
        let headers: BTreeMap<_, _> = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(headers, fixture.headers, "{file}");
    }
}

#[test]
fn every_event_type_has_a_fixture_in_a_directory_of_its_name() {
    let fixtures = all();
    let mut types = BTreeSet::new();
    for fixture in &fixtures {
        let directory = fixture.file.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert_eq!(fixture.headers[envelope::TYPE], directory, "{}", fixture.file.display());
        types.insert(directory);
    }
    for event_type in EventType::ALL {
        let name = event_type.name();
        assert!(types.contains(name), "no fixture of {name}: add a fixture before the type is published");
    }
}
