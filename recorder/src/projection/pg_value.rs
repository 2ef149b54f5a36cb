//! The conversion of outside values to values that PostgreSQL can hold, so that no value sent by a client or a provider
//! can make a batch fail.
//!
//! | outside value | value in the row |
//! |---|---|
//! | U+0000, in text and in JSON | the six characters `\u0000` |
//! | half a surrogate pair in JSON (`\ud800`) | the six characters |
//! | JSON nested deeper than 100 levels; a number at or beyond the end of a double's range; a number of over about 1000 digits when written out | the whole value as one JSON string |
//! | a token count over 10^12 | 10^12: sums of such counts stay far from the end of bigint |
//! | milliseconds over 2^63 | 2^63 - 1 |
//! | nanoseconds | truncated to microseconds |
//! | a time with a UTC form after the year 9999 | the last microsecond of 9999 |
//! | a time with a UTC form before the year 1 | the first microsecond of the year 1 |

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;
use time::macros::datetime;
use time::{OffsetDateTime, UtcOffset};

/// The six characters that stand for U+0000.
pub(super) const ESCAPED_NUL: &str = "\\u0000";
const MAX_TOKENS: i64 = 1_000_000_000_000;
const MAX_DEPTH: usize = 100;
const MAX_DIGITS: usize = 1000;
/// A bound a little below the largest double. Nearer to the largest double, serde_json accepts or rejects a number
/// depending on the notation.
const MAX_NUMBER: f64 = 1.79e308;
const LAST_TIMESTAMP: OffsetDateTime = datetime!(9999-12-31 23:59:59.999999 UTC);
const FIRST_TIMESTAMP: OffsetDateTime = datetime!(0001-01-01 00:00 UTC);

/// Replaces each U+0000 in a text by the six characters `\u0000`, because `text` columns cannot hold U+0000.
pub fn pg_text(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', ESCAPED_NUL) } else { text.to_owned() }
}

/// Limits a token count to 10^12.
pub fn token_count(tokens: u64) -> i64 {
    i64::try_from(tokens).map_or(MAX_TOKENS, |tokens| tokens.min(MAX_TOKENS))
}

/// Limits a number of milliseconds to the range of `bigint`.
pub fn milliseconds(duration_ms: u64) -> i64 {
    i64::try_from(duration_ms).unwrap_or(i64::MAX)
}

/// Converts a time to UTC, truncated to microseconds and limited to the years 1 to 9999.
pub fn pg_timestamp(at: OffsetDateTime) -> OffsetDateTime {
    let at =
        at.checked_to_offset(UtcOffset::UTC).map_or(LAST_TIMESTAMP, |at| at.clamp(FIRST_TIMESTAMP, LAST_TIMESTAMP));
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}

/// Serializes a value to JSON that `jsonb` accepts.
pub fn to_pg_json(value: &impl Serialize) -> PgJson {
    // Serializing these plain structs cannot fail: they contain no maps and no foreign serializers.
    PgJson::new(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()))
}

/// A JSON text that `jsonb` accepts.
///
/// Two texts are equal when `jsonb` would store the same value: white space, the order of keys and the notation of
/// numbers do not matter.
#[derive(Clone, Debug)]
pub struct PgJson(String);

// === impl PgJson ===

impl PgJson {
    /// Converts a JSON text. A text beyond the limits of this module becomes one JSON string.
    pub fn new(json: &str) -> Self {
        Self(to_jsonb_text(json).into_owned())
    }

    /// Converts a JSON text that will stand inside an object. A value beyond the limits becomes a string, so that the
    /// object around the value stays an object.
    pub fn nested(json: &str) -> Self {
        match Self::new(&format!("[{json}]")).0 {
            array if array.starts_with('[') => Self(array[1..array.len() - 1].to_owned()),
            _ => Self(as_json_string(json).into_owned()),
        }
    }

    /// The JSON text, as sent to PostgreSQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for PgJson {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || match (serde_json::from_str(&self.0), serde_json::from_str(&other.0)) {
                (Ok(mine), Ok(theirs)) => is_equal(&mine, &theirs),
                _ => false,
            }
    }
}

fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| is_equal(value, other)))
        }
        _ => one == other,
    }
}

fn to_jsonb_text(json: &str) -> Cow<'_, str> {
    if !is_within_limits(json) {
        return as_json_string(json);
    }
    let escaped = if json.contains("\\u") { escape_unpaired(json) } else { Cow::Borrowed(json) };
    // A row is read back as a JSON value, so a text that serde_json rejects is stored as a string.
    if serde_json::from_str::<Value>(&escaped).is_ok() { escaped } else { as_json_string(json) }
}

/// Wraps the whole text in one JSON string.
fn as_json_string(json: &str) -> Cow<'_, str> {
    Cow::Owned(Value::String(pg_text(json)).to_string())
}

/// Returns true when the nesting and all numbers are within the limits.
fn is_within_limits(json: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut number_from = None;
    for (at, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        let in_number = !in_string && matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        match number_from {
            None if in_number => number_from = Some(at),
            Some(from) if !in_number && !is_number_within_limits(&json[from..at]) => return false,
            Some(_) if !in_number => number_from = None,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return false;
        }
    }
    number_from.is_none_or(|from| is_number_within_limits(&json[from..]))
}

/// Returns true when a number is within the limits, also in the form that `jsonb` prints. `jsonb` prints numbers
/// without an exponent, and a printed row is converted again after reading.
fn is_number_within_limits(number: &str) -> bool {
    if !number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        // The letter `e` in `true` and `false`: no number.
        return true;
    }
    let exponent = number.split_once(['e', 'E']).map_or("", |(_, exponent)| exponent);
    let digits = exponent.trim_start_matches(['+', '-']).trim_start_matches('0');
    let zeros = if digits.is_empty() { Ok(0) } else { digits.parse::<u16>() };
    zeros.is_ok_and(|zeros| number.len() + usize::from(zeros) <= MAX_DIGITS)
        && number.parse::<f64>().is_ok_and(|number| number.abs() < MAX_NUMBER)
}

/// Doubles the backslash of each `\uXXXX` that encodes U+0000 or an unpaired surrogate.
fn escape_unpaired(json: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(json.len() + 8);
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let taken = match (code_unit(escape), escape.get(6..).and_then(code_unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0 | 0xD800..=0xDFFF), _) => {
                out.push('\\');
                6
            }
            (Some(_), _) => 6,
            // A backslash and one ASCII character; the only other escape in valid JSON.
            (None, _) => 2,
        };
        let (taken, after) = escape.split_at_checked(taken).unwrap_or((escape, ""));
        out.push_str(taken);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The code unit of an escape `\uXXXX` at the start of the text.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A number as `numeric`, and therefore `jsonb`, prints the number: written out, with as many digits behind the
    /// point as in the source.
    fn printed(number: &str) -> String {
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap();
        let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (mut digits, behind) = (format!("{whole}{fraction}"), i64::try_from(fraction.len()).unwrap() - exponent);
        digits.push_str(&"0".repeat(usize::try_from(-behind).unwrap_or(0)));
        let behind = usize::try_from(behind).unwrap_or(0);
        digits.insert_str(0, &"0".repeat((behind + 1).saturating_sub(digits.len())));
        let (whole, fraction) = digits.split_at(digits.len() - behind);
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }

    #[test]
    fn numbers_are_printed_as_postgresql_does() {
        for (number, expected) in [
            ("1e3", "1000"),
            ("-1.50e1", "-15.0"),
            ("1.5e-3", "0.0015"),
            ("12.5E+1", "125"),
            ("120e-2", "1.20"),
            ("0.001e2", "0.1"),
            ("0", "0"),
        ] {
            assert_eq!(printed(number), expected);
        }
    }

    #[test]
    fn the_largest_numbers_are_the_same_however_they_are_written() {
        let is_kept = |number: &str| PgJson::new(number).as_str() == number;
        for (number, expected) in [
            ("1.7976931348623157e308", false),
            ("-1.7976931348623157e308", false),
            ("1.78e308", true),
            ("-1e308", true),
            ("2.2250738585072014e-308", true),
            ("5e-324", true),
        ] {
            assert_eq!((is_kept(number), is_kept(&printed(number))), (expected, expected), "{number}");
        }
    }

    proptest! {
        /// Otherwise a row that is read back would differ from the row that was written.
        #[test]
        fn json_that_jsonb_has_printed_is_unchanged(
            sign in "-?", whole in "0|[1-9][0-9]{0,2}|[1-9][0-9]{0,1000}", fraction in "|[.][0-9]{1,3}|[.][0-9]{1,1000}",
            exponent in "|[eE][+-]?[0-9]{1,4}|e-9[89][0-9]|e30[0-9]",
        ) {
            let number = format!("{sign}{whole}{fraction}{exponent}");
            if PgJson::new(&number).as_str() == number {
                let printed = printed(&number);
                let again = PgJson::new(&printed);
                prop_assert_eq!(again.as_str(), printed.as_str());
            }
        }
    }

    #[test]
    fn text_loses_only_nul_characters() {
        assert_eq!(pg_text("a\0b\u{FFFF}\u{1F600}"), "a\\u0000b\u{FFFF}\u{1F600}");
    }

    #[test]
    fn json_keeps_its_meaning_except_for_values_that_jsonb_refuses() {
        let check = |from: &str, to: &str| assert_eq!(PgJson::new(from).as_str(), to);
        check(r#"{"a":"x\u0000y"}"#, r#"{"a":"x\\u0000y"}"#);
        check(r#"{"a":"x\\u0000y"}"#, r#"{"a":"x\\u0000y"}"#);
        check(r#"{"a":"x\\\u0000y"}"#, r#"{"a":"x\\\\u0000y"}"#);
        check(r#"["\ud83d\ude00"]"#, r#"["\ud83d\ude00"]"#);
        check(r#"["\ud83d"]"#, r#"["\\ud83d"]"#);
        check(r#"["\ud83dx\ude00"]"#, r#"["\\ud83dx\\ude00"]"#);
        check(r#"["\ud83d\ud83d\ude00"]"#, r#"["\\ud83d\ud83d\ude00"]"#);
        check(r#"{"\u0000":1}"#, r#"{"\\u0000":1}"#);
        check("[1e999999]", r#""[1e999999]""#);
        check("[1e-20000]", r#""[1e-20000]""#);
        check("[true,1e308,1e-0100]", "[true,1e308,1e-0100]");
        check("-1e-99999", r#""-1e-99999""#);
        check("[1e-990]", "[1e-990]");
        check("[1e-999]", r#""[1e-999]""#);
        let deep = "[".repeat(200) + &"]".repeat(200);
        check(&deep, &format!("\"{deep}\""));
    }

    #[test]
    fn a_nested_value_leaves_the_object_around_it_an_object() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let within = |json: &str| format!(r#"{{"metadata":{}}}"#, PgJson::nested(json).as_str());
        for json in [&nested(99), &nested(100), &nested(101), "1e999999", r#"{"a":"\u0000\ud800"}"#, r#"{"a":[1.0]}"#] {
            let object = within(json);
            assert_eq!(PgJson::new(&object).as_str(), object, "the object is stable under a second conversion");
        }
        assert_eq!(within(r#"{"a":[1.0]}"#), r#"{"metadata":{"a":[1.0]}}"#);
        assert_eq!(within("1e999999"), r#"{"metadata":"1e999999"}"#);
        assert_eq!(within(&nested(100)), format!(r#"{{"metadata":"{}"}}"#, nested(100)));
    }

    #[test]
    fn json_is_compared_as_jsonb_does() {
        assert_eq!(PgJson::new(r#"{"b": 1.0, "a": [1e2]}"#), PgJson::new(r#"{"a":[100],"b":1}"#));
        assert_ne!(PgJson::new(r#"{"a":1}"#), PgJson::new(r#"{"a":2}"#));
        assert_ne!(PgJson::new("[1]"), PgJson::new("[1,1]"));
    }

    #[test]
    fn numbers_and_times_stay_in_range() {
        assert_eq!(token_count(u64::MAX), MAX_TOKENS);
        assert_eq!(milliseconds(u64::MAX), i64::MAX);
        let end = datetime!(9999-12-31 23:59:59.999999999 -23:59);
        assert_eq!(pg_timestamp(end), LAST_TIMESTAMP);
        assert_eq!(pg_timestamp(datetime!(0000-01-01 00:00 +23:59)), FIRST_TIMESTAMP);
        assert_eq!(
            pg_timestamp(datetime!(2026-11-23 01:00:00.123456789 +02:00)),
            datetime!(2026-11-22 23:00:00.123456 UTC)
        );
    }
}
