//! The JSON lines format: one event per line, with all members or with selected fields.

use std::str::FromStr;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use shared::envelope;
use time::OffsetDateTime;

use crate::source::delivery::Delivery;

/// A line: the event's position in the stream, the envelope, and the payload as `data`.
#[derive(Debug, Serialize)]
pub struct EventLine<'a> {
    /// The stream sequence: a starting point after an interruption, never an identity.
    sequence: u64,
    #[serde(with = "time::serde::rfc3339")]
    published_at: OffsetDateTime,
    subject: &'a str,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    source: Option<&'a str>,
    time: Option<&'a str>,
    data: std::borrow::Cow<'a, RawValue>,
}

/// The path of a member in a line, such as `data.usage.total_tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    name: String,
    path: Vec<String>,
}

/// The error for a path that no line can have.
#[derive(Debug, thiserror::Error)]
#[error("expected one of {known}, or a member of data such as data.usage.total_tokens, found {0:?}", known = MEMBERS.join(", "))]
pub struct InvalidField(String);

/// The members of every line. Only `data` has inner members.
const MEMBERS: [&str; 8] = ["sequence", "published_at", "subject", "id", "type", "source", "time", "data"];

impl FromStr for FieldPath {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let path: Vec<String> = text.trim().split('.').map(str::to_owned).collect();
        let is_known = match path.as_slice() {
            [name] => MEMBERS.contains(&name.as_str()),
            [name, inner @ ..] => name == "data" && !inner.iter().any(String::is_empty),
            [] => false,
        };
        if !is_known {
            return Err(InvalidField(text.to_owned()));
        }
        Ok(Self { name: path.join("."), path })
    }
}

impl FieldPath {
    /// Returns the whole path, with dots.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<'a> EventLine<'a> {
    /// Returns the line of a delivery; `None` without an id and type in the envelope or without valid JSON in the
    /// payload.
    pub fn from_delivery(delivery: &'a Delivery) -> Option<Self> {
        let data: &RawValue = serde_json::from_slice(delivery.payload()).ok()?;
        // A gateway's payload has no line breaks; another publisher's payload may have line breaks and is compacted.
        let data = if data.get().contains(['\n', '\r']) {
            let value: Value = serde_json::from_str(data.get()).ok()?;
            std::borrow::Cow::Owned(serde_json::value::to_raw_value(&value).ok()?)
        } else {
            std::borrow::Cow::Borrowed(data)
        };
        Some(Self {
            sequence: delivery.sequence(),
            published_at: delivery.published_at(),
            subject: delivery.subject(),
            id: delivery.header(envelope::ID)?,
            kind: delivery.header(envelope::TYPE)?,
            source: delivery.header(envelope::SOURCE),
            time: delivery.header(envelope::TIME),
            data,
        })
    }

    /// Appends the whole line and a line break to `to`.
    pub fn write(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut *to, self)?;
        to.push(b'\n');
        Ok(())
    }

    /// Appends a line with only the given fields, each under its whole path, `null` if missing. Calls `found` for each
    /// field present.
    pub fn write_fields(
        &self,
        fields: &[FieldPath],
        to: &mut Vec<u8>,
        mut found: impl FnMut(&str),
    ) -> Result<(), serde_json::Error> {
        let whole = serde_json::to_value(self)?;
        let value = |field: &FieldPath| field.path.iter().try_fold(&whole, |value, name| value.get(name)).cloned();
        let mut selected = Map::new();
        for field in fields {
            let value = value(field);
            if value.is_some() {
                found(&field.name);
            }
            selected.insert(field.name.clone(), value.unwrap_or_default());
        }
        serde_json::to_writer(&mut *to, &selected)?;
        to.push(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_paths() {
        for wrong in ["", "data..x", "data.", "dat.model", "model", "id.x"] {
            assert!(wrong.parse::<FieldPath>().is_err(), "{wrong:?}");
        }
        let said = "model".parse::<FieldPath>().unwrap_err().to_string();
        assert!(said.starts_with("expected one of sequence, ") && said.ends_with("found \"model\""), "{said}");
        let data = RawValue::from_string(r#"{"usage":{"total_tokens":7}}"#.to_owned()).unwrap();
        let line = EventLine {
            sequence: 3,
            published_at: OffsetDateTime::UNIX_EPOCH,
            subject: "chats.started.ann",
            id: "x",
            kind: "t",
            source: None,
            time: None,
            data: std::borrow::Cow::Borrowed(&data),
        };
        let mut out = Vec::new();
        let fields: Vec<FieldPath> =
            ["data.usage.total_tokens", "id", "data.none"].iter().map(|field| field.parse().unwrap()).collect();
        let mut found = Vec::new();
        line.write_fields(&fields, &mut out, |name| found.push(name.to_owned())).unwrap();
        assert_eq!(found, ["data.usage.total_tokens", "id"]);
        line.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(r#"{"data.usage.total_tokens":7,"id":"x","data.none":null}"#));
        assert!(lines.next().unwrap().ends_with(r#""data":{"usage":{"total_tokens":7}}}"#));
    }
}
