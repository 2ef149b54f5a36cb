//! Compatibility tests of published events: fixtures of every version, the JSON Schemas, and the page docs/EVENTS.md.

#![expect(clippy::unwrap_used, reason = "a panic fails the test and names the line")]

mod events_page;
mod fixtures;
mod schemas;
