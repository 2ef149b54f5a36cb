//! A value that is a text, although some providers send the JSON that the text would have.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::lenient::{BorrowedText, compact};
use crate::json::repair::replace_invalid_text;

/// A string, or the compact JSON of any other value; `None` for `null`. Unlike the types in [`crate::json::lenient`], half a
/// surrogate pair in the value is an error, so that the caller repairs the JSON around it.
#[derive(Debug, Default)]
pub struct TextOrJson<'a>(pub Option<Cow<'a, str>>);

impl TextOrJson<'_> {
    /// The text, or `None` if the text is absent or empty.
    pub fn non_empty(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for TextOrJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        match raw.get().as_bytes()[0] {
            b'"' => serde_json::from_str(raw.get())
                .map(|BorrowedText(text)| Self(Some(text)))
                .map_err(serde::de::Error::custom),
            b'n' => Ok(Self(None)),
            _ if has_half_a_pair(raw.get()) => Err(serde::de::Error::custom("half a surrogate pair")),
            _ => Ok(Self(Some(Cow::Owned(compact(raw))))),
        }
    }
}

/// True if a string in the JSON has half a surrogate pair.
fn has_half_a_pair(json: &str) -> bool {
    // Escapes are rare, and a surrogate is always an escape.
    let may_have = memchr::memmem::find_iter(json.as_bytes(), br"\u")
        .any(|at| matches!(json.as_bytes().get(at + 2), Some(b'd' | b'D')));
    may_have && replace_invalid_text(json.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_is_and_other_values_as_json() {
        for (json, expected) in [
            (r#""{\"a\": 1}""#, Some(r#"{"a": 1}"#)),
            (r#"{"a": [1, "x y"]}"#, Some(r#"{"a":[1,"x y"]}"#)),
            ("7", Some("7")),
            ("null", None),
            (r#"{"a":"\ud83d\ude00 \\ud83d"}"#, Some(r#"{"a":"\ud83d\ude00 \\ud83d"}"#)),
        ] {
            let TextOrJson(text) = serde_json::from_str(json).unwrap();
            assert_eq!(text.as_deref(), expected, "{json}");
        }
        for half in [r#""\ud83d""#, r#"{"a":"\ud83d"}"#, r#"["\uDE00"]"#] {
            assert!(serde_json::from_str::<TextOrJson<'_>>(half).is_err(), "{half}");
        }
    }
}
