//! Sets one member of a JSON object and leaves every other byte unchanged.
//!
//! Pure.

use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::broken_text;
use crate::json::lenient::BorrowedText;

/// Returns the object with the member set to a value. If the member is repeated, the last occurrence is replaced,
/// because parsers use the last one. A missing member is inserted first. A body that is not a JSON object is returned
/// unchanged. Text that is not valid Unicode stays as sent, see [`broken_text`].
pub fn with_member(body: &Bytes, name: &str, value: &serde_json::Value) -> Bytes {
    if let Some(changed) = set_member(body, name, value) {
        return changed.into();
    }
    let protected = broken_text::protect(body).ok();
    let changed =
        protected.and_then(|protected| String::from_utf8(set_member(protected.as_bytes(), name, value)?).ok());
    changed.map_or_else(|| body.clone(), |changed| broken_text::restore(&changed).into())
}

/// True if the object has a member of this name that is not null.
pub fn has_member(body: &[u8], name: &str) -> bool {
    let has = |found: FoundMember<'_>| found.value.is_some_and(|value| value.get() != "null");
    FoundMember::find(body, name)
        .map(has)
        .or_else(|_| FoundMember::find(&broken_text::mend(body), name).map(has))
        .unwrap_or(false)
}

/// Returns the object with the member set to a value, or `None` if the body cannot be read.
fn set_member(body: &[u8], name: &str, value: &serde_json::Value) -> Option<Vec<u8>> {
    let text = value.to_string();
    let (before, after, between) = match FoundMember::find(body, name).ok()? {
        FoundMember { value: Some(old), .. } => {
            let start = old.get().as_ptr().addr() - body.as_ptr().addr();
            (&body[..start], &body[start + old.get().len()..], text)
        }
        FoundMember { value: None, is_empty } => {
            let brace = body.iter().position(|byte| *byte == b'{')?;
            let comma = if is_empty { "" } else { "," };
            (&body[..=brace], &body[brace + 1..], format!("{}:{text}{comma}", serde_json::Value::from(name)))
        }
    };
    Some([before, between.as_bytes(), after].concat())
}

/// The search result for a member of an object.
struct FoundMember<'a> {
    value: Option<&'a RawValue>,
    is_empty: bool,
}

impl<'a> FoundMember<'a> {
    fn find(body: &'a [u8], name: &str) -> serde_json::Result<Self> {
        struct MemberVisitor<'n>(&'n str);
        impl<'de> Visitor<'de> for MemberVisitor<'_> {
            type Value = FoundMember<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FoundMember<'de>, A::Error> {
                let mut found = FoundMember { value: None, is_empty: true };
                while let Some(BorrowedText(name)) = map.next_key()? {
                    found.is_empty = false;
                    if name == self.0 {
                        found.value = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        serde::Deserializer::deserialize_map(&mut deserializer, MemberVisitor(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_member_changes() {
        let cases = [
            (
                r#" {"a" : 1.0, "model" :"x" , "b":[{"model":2}]} "#,
                r#" {"a" : 1.0, "model" :"new" , "b":[{"model":2}]} "#,
            ),
            (r#"{"model":{"y":[]},"model":null}"#, r#"{"model":{"y":[]},"model":"new"}"#),
            (r#"{"mod\u0065l":"x"}"#, r#"{"mod\u0065l":"new"}"#),
            ("{ }", r#"{"model":"new" }"#),
            (r#"{"a":1}"#, r#"{"model":"new","a":1}"#),
            ("[1]", "[1]"),
            ("", ""),
        ];
        for (body, expected) in cases {
            let changed = with_member(&Bytes::from_static(body.as_bytes()), "model", &"new".into());
            assert_eq!(std::str::from_utf8(&changed).unwrap(), expected, "{body}");
        }
        let broken = Bytes::from_static(b"{\"\\ud83d\":\"\xff\\x\",\"model\":\"\\ude00\"}");
        assert_eq!(with_member(&broken, "model", &"new".into()), &b"{\"\\ud83d\":\"\xff\\x\",\"model\":\"new\"}"[..]);
        assert!(has_member(&broken, "model") && !has_member(&broken, "messages"));
        assert!(has_member(br#"{"model":"x"}"#, "model"));
        assert!(!has_member(br#"{"model":null}"#, "model") && !has_member(b"{}", "model") && !has_member(b"", "model"));
    }
}
