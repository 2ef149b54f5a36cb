//! The place of a span in a trace, in the text form of W3C Trace Context (`traceparent`), as it stands in requests and events.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of the header with a trace context.
pub const TRACEPARENT: &str = "traceparent";

/// The length of a `traceparent` of version 00.
const TEXT_LEN: usize = 55;

/// The flag of a trace whose spans are kept.
const SAMPLED: u8 = 1;

/// A span of a trace, named by the ids of both. Neither id is zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The id of the trace.
    pub trace_id: [u8; 16],
    /// The id of the span.
    pub span_id: [u8; 8],
    flags: u8,
}

/// The text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a traceparent such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// Returns the context of a span, or `None` if an id is zero.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Option<Self> {
        let flags = if is_sampled { SAMPLED } else { 0 };
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self { trace_id, span_id, flags })
    }

    /// Returns true if the spans of the trace are kept.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns the context of another span of the same trace. A span id of zero is replaced by one.
    pub fn with_span(self, span_id: [u8; 8]) -> Self {
        let span_id = if span_id == [0; 8] { 1_u64.to_be_bytes() } else { span_id };
        Self { span_id, ..self }
    }

    /// Returns the context of the child with this number. The id is computed from the parent's, so that two places that know the
    /// number name the same span without telling each other.
    pub fn numbered_child(self, number: usize) -> Self {
        let number = u64::try_from(number).unwrap_or(u64::MAX).wrapping_add(1);
        self.with_span(scrambled(u64::from_be_bytes(self.span_id), number).to_be_bytes())
    }

    /// Returns the id of the trace in hexadecimal.
    pub fn trace_id_text(&self) -> String {
        let mut text = String::with_capacity(32);
        push_hex(&mut text, &self.trace_id);
        text
    }
}

/// Returns one of 2⁶⁴ evenly spread values for a seed and a number: the function of SplitMix64, which is a bijection of each number.
fn scrambled(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Reads lower-case hexadecimal. W3C Trace Context permits no other digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(digits[0])? << 4) | digit(digits[1])?;
    }
    Some(bytes)
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let parse = || {
            let mut parts = text.splitn(5, '-');
            let [version] = hex::<1>(parts.next()?)?;
            let (trace_id, span_id) = (hex(parts.next()?)?, hex(parts.next()?)?);
            let [flags] = hex::<1>(parts.next()?)?;
            // A later version may append parts; version 00 has none, and 255 is no version.
            let is_valid = version != 0xff && (version != 0 || text.len() == TEXT_LEN);
            Self::new(trace_id, span_id, false).filter(|_| is_valid).map(|context| Self { flags, ..context })
        };
        parse().ok_or(InvalidTraceparent)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(TEXT_LEN);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id);
        text.push('-');
        push_hex(&mut text, &self.span_id);
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        f.write_str(&text)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for TraceContext {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TraceContext".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn texts_that_are_no_traceparent_are_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTraceparent), "{text}");
        }
        let later = EXAMPLE.replacen("00", "01", 1) + "-more";
        assert_eq!(
            later.parse::<TraceContext>().unwrap().to_string(),
            EXAMPLE,
            "a later version is read as far as known"
        );
    }

    #[test]
    fn numbered_children_are_spans_of_their_own() {
        let parent: TraceContext = EXAMPLE.parse().unwrap();
        let children: HashSet<[u8; 8]> = (0..10_000).map(|number| parent.numbered_child(number).span_id).collect();
        assert_eq!(children.len(), 10_000);
        assert!(!children.contains(&parent.span_id) && !children.contains(&[0; 8]));
        assert_eq!(parent.numbered_child(3), parent.numbered_child(3));
        assert!(parent.numbered_child(0).is_sampled());
    }

    proptest! {
        #[test]
        fn contexts_are_read_as_they_are_written(trace: [u8; 16], span: [u8; 8], is_sampled: bool) {
            let context = TraceContext::new(trace, span, is_sampled).unwrap();
            prop_assert_eq!(context.to_string().parse(), Ok(context));
            prop_assert_eq!(context.to_string().len(), TEXT_LEN);
        }
    }
}
