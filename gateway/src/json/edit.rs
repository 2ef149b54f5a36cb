//! Changing one member of a JSON object, and not one byte of the rest.
//!
//! Pure.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The object with this value for the member. Of several of the same name the last one counts, and is the one that changes;
/// a member that is not there comes first. What is no object stays as it is.
pub fn with_member(body: &Bytes, name: &str, value: &serde_json::Value) -> Bytes {
    let Ok(found) = Found::read(body, name) else { return body.clone() };
    let text = value.to_string();
    let (before, after, between) = match found {
        Found { value: Some(old), .. } => {
            let start = old.get().as_ptr().addr() - body.as_ptr().addr();
            (&body[..start], &body[start + old.get().len()..], text)
        }
        Found { value: None, is_empty } => {
            let Some(brace) = body.iter().position(|byte| *byte == b'{') else { return body.clone() };
            let comma = if is_empty { "" } else { "," };
            (&body[..=brace], &body[brace + 1..], format!("{}:{text}{comma}", serde_json::Value::from(name)))
        }
    };
    [before, between.as_bytes(), after].concat().into()
}

/// Whether the object has a member of this name that is not null.
pub fn has_member(body: &[u8], name: &str) -> bool {
    Found::read(body, name).is_ok_and(|found| found.value.is_some_and(|value| value.get() != "null"))
}

/// What there is of a member.
struct Found<'a> {
    value: Option<&'a RawValue>,
    is_empty: bool,
}

impl<'a> Found<'a> {
    fn read(body: &'a [u8], name: &str) -> serde_json::Result<Self> {
        struct Search<'n>(&'n str);
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        impl<'de> Visitor<'de> for Search<'_> {
            type Value = Found<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
                let mut found = Found { value: None, is_empty: true };
                while let Some(Name(name)) = map.next_key()? {
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
        serde::Deserializer::deserialize_map(&mut deserializer, Search(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_changes() {
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
            assert_eq!(std::str::from_utf8(&changed).unwrap(), expected);
        }
        assert!(has_member(br#"{"model":"x"}"#, "model"));
        assert!(!has_member(br#"{"model":null}"#, "model") && !has_member(b"{}", "model") && !has_member(b"", "model"));
    }
}
