//! Repairs JSON that cannot be parsed as received: invalid text is replaced, and of repeated members the last one is
//! kept.

use std::collections::HashMap;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use crate::json::lenient::Members;

/// The maximum nesting depth at which repeated members are looked for. No type in the gateway reads deeper values.
const MAX_DEPTH: u32 = 16;

/// Parses a value into a type, if necessary after removing repeated members. `None` if the value does not have that
/// shape.
pub fn parse<T: DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok().or_else(|| serde_json::from_str(&dedup_members(json.as_bytes())?).ok())
}

/// Repairs JSON that failed to parse. Returns the repaired JSON and the note that names the defect; `None` if no repair
/// applies.
pub fn repair(json: &[u8]) -> Option<(String, &'static str)> {
    let deduplicated = dedup_members(json).map(|json| (json, "repeated_member"));
    deduplicated.or_else(|| replace_invalid_text(json).map(|json| (json, "text_mended")))
}

/// Replaces invalid text in JSON with U+FFFD: bytes that are not UTF-8, and unpaired surrogate escapes, which some
/// providers produce by splitting a pair across two chunks. `None` if there was nothing to replace, or if the result is
/// not JSON.
pub fn replace_invalid_text(json: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(json);
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(offset) = rest.find('\\') {
        let (before, escape) = rest.split_at(offset);
        replaced.push_str(before);
        let length = match (surrogate_code_unit(escape), escape.get(6..).and_then(surrogate_code_unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                replaced.push_str("\\ufffd");
                rest = &escape[6..];
                continue;
            }
            _ => escape.char_indices().nth(2).map_or(escape.len(), |(length, _)| length),
        };
        replaced.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    replaced.push_str(rest);
    (replaced.as_bytes() != json && serde_json::from_str::<IgnoredAny>(&replaced).is_ok()).then_some(replaced)
}

/// Removes repeated members from every object in the JSON. The last of several members with the same name is kept, like
/// most parsers do. `None` if no member is repeated, or if the input is not JSON.
pub fn dedup_members(json: &[u8]) -> Option<String> {
    let raw: &RawValue = serde_json::from_slice(json).ok()?;
    let mut written = String::with_capacity(json.len());
    write_deduplicated(raw, MAX_DEPTH, &mut written).then_some(written)
}

/// Writes a value without repeated members. Returns true if a repeated member was removed.
fn write_deduplicated(raw: &RawValue, depth: u32, written: &mut String) -> bool {
    let mut is_repeated = false;
    match raw.get().as_bytes()[0] {
        b'{' if depth > 0
            && let Ok(Members(members)) = serde_json::from_str(raw.get()) =>
        {
            let last_position: HashMap<&str, usize> =
                members.iter().enumerate().map(|(place, (name, _))| (name.as_ref(), place)).collect();
            is_repeated = last_position.len() < members.len();
            let kept = members.iter().enumerate().filter(|(place, (name, _))| last_position[name.as_ref()] == *place);
            let values: Vec<(&str, String)> = kept
                .map(|(_, (name, value))| {
                    let mut once = String::new();
                    is_repeated |= write_deduplicated(value, depth - 1, &mut once);
                    (name.as_ref(), once)
                })
                .collect();
            written.push_str(&Members::to_json(values.iter().map(|(name, value)| (*name, value.as_str()))));
        }
        b'[' if depth > 0
            && let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) =>
        {
            written.push('[');
            for (place, item) in items.into_iter().enumerate() {
                if place > 0 {
                    written.push(',');
                }
                is_repeated |= write_deduplicated(item, depth - 1, written);
            }
            written.push(']');
        }
        _ => written.push_str(raw.get()),
    }
    is_repeated
}

/// The code unit of the escape at the start of the text, such as `\ud83d`.
fn surrogate_code_unit(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_text_is_replaced() {
        let check = |json: &[u8], expected: Option<&str>| {
            assert_eq!(replace_invalid_text(json).as_deref(), expected, "{}", String::from_utf8_lossy(json));
        };
        check(br#"{"a":"\ud83d"}"#, Some(r#"{"a":"\ufffd"}"#));
        check(br#"{"a":"\ude00\ud83d\ude00"}"#, Some(r#"{"a":"\ufffd\ud83d\ude00"}"#));
        check(b"{\"a\":\"\xff\"}", Some("{\"a\":\"\u{fffd}\"}"));
        check(br#"{"a":"\ud83d\ude00 \\ud83d \n"}"#, None);
        check(b"{\"a\":\"\xff\"", None);
        check("\\é\\".as_bytes(), None);
    }

    #[test]
    fn the_last_of_repeated_members_is_kept() {
        let check = |json: &str, expected: Option<&str>| {
            assert_eq!(dedup_members(json.as_bytes()).as_deref(), expected, "{json}");
        };
        check(r#"{"a":1,"b":2,"a":3.0}"#, Some(r#"{"b":2,"a":3.0}"#));
        check(
            r#"[{"x" : {"a":"\ud83d","\u0061":12345678901234567890123, "b":[ {"c":null,"c":{}} ]}}]"#,
            Some(r#"[{"x":{"a":12345678901234567890123,"b":[{"c":{}}]}}]"#),
        );
        for none in [r#"{"a":1,"b":{"a":1}}"#, r#"{"a":1,"a":2"#, "7", ""] {
            check(none, None);
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        check(&deep, None);
    }
}
