//! Texts that some providers send as a list of parts or as an object in place of a string.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::lenient::{BorrowedText, List, Members, Object, Text, compact};

/// The maximum nesting depth at which texts are looked for.
const MAX_DEPTH: u32 = 4;

/// A text: a string, a list of parts, or an object with the text under one of the known names. Empty for other values.
#[derive(Debug, Default)]
pub(super) struct Words<'a>(Cow<'a, str>);

/// The content of a delta: usually text; some providers send parts or an object.
#[derive(Debug, Default)]
pub(super) struct DeltaContent<'a> {
    /// The text, or the text parts.
    pub(super) text: Cow<'a, str>,
    /// The parts with reasoning.
    pub(super) thinking: String,
    /// The parts with a refusal.
    pub(super) refusal: String,
    /// True if there are parts with pictures, sounds or files.
    pub(super) has_media: bool,
}

/// A part of a list, or an object in place of a text. The text is the first non-empty member, in this order.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default, borrow)]
    text: Option<&'a RawValue>,
    #[serde(default, borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(default, borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(default, borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
    #[serde(default, borrow)]
    summary: Option<&'a RawValue>,
    #[serde(default, borrow)]
    value: Option<&'a RawValue>,
    #[serde(default, borrow)]
    refusal: Option<&'a RawValue>,
}

impl Words<'_> {
    /// The text, or `None` if the text is absent or empty.
    pub(super) fn non_empty(&self) -> Option<&str> {
        Some(self.0.as_ref()).filter(|words| !words.is_empty())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Words<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&'a RawValue>::deserialize(deserializer)?.get();
        // An error makes the caller repair the whole chunk.
        if json.starts_with('"') {
            let BorrowedText(text) = serde_json::from_str(json).map_err(serde::de::Error::custom)?;
            return Ok(Self(text));
        }
        let mut words = String::new();
        append_words(json, MAX_DEPTH, &mut words).map_err(serde::de::Error::custom)?;
        Ok(Self(Cow::Owned(words)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for DeltaContent<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        let json = raw.get();
        let mut content = Self::default();
        match json.as_bytes()[0] {
            b'"' => {
                // An error makes the caller repair the whole chunk.
                let BorrowedText(text) = serde_json::from_str(json).map_err(serde::de::Error::custom)?;
                content.text = text;
            }
            b'[' => {
                let List(parts) = serde_json::from_str::<List<&RawValue>>(json).unwrap_or_default();
                for part in parts {
                    content.append_part(part.get()).map_err(serde::de::Error::custom)?;
                }
            }
            b'{' if is_part(json) => content.append_part(json).map_err(serde::de::Error::custom)?,
            b'{' => content.text = Cow::Owned(compact(raw)),
            _ => {}
        }
        Ok(content)
    }
}

impl DeltaContent<'_> {
    /// Appends one part: an object or a plain string.
    fn append_part(&mut self, json: &str) -> serde_json::Result<()> {
        if let Ok(BorrowedText(text)) = serde_json::from_str(json) {
            self.text.to_mut().push_str(&text);
            return Ok(());
        }
        let Object(Some(part)) = serde_json::from_str::<Object<Part<'_>>>(json)? else { return Ok(()) };
        match part.kind.non_empty().unwrap_or("") {
            "thinking" | "reasoning" | "reasoning_text" | "reasoning_content" | "summary_text" => {
                part.append_to(MAX_DEPTH, &mut self.thinking)
            }
            "refusal" => {
                append_words(part.refusal.or(part.text).map_or("", RawValue::get), MAX_DEPTH, &mut self.refusal)
            }
            kind => {
                self.has_media |= is_media(kind);
                append_words(part.text.map_or("", RawValue::get), MAX_DEPTH, self.text.to_mut())?;
                append_words(part.thinking.map_or("", RawValue::get), MAX_DEPTH, &mut self.thinking)
            }
        }
    }
}

impl Part<'_> {
    fn append_to(&self, depth: u32, words: &mut String) -> serde_json::Result<()> {
        let before = words.len();
        let members =
            [self.text, self.thinking, self.reasoning, self.reasoning_content, self.content, self.summary, self.value];
        for member in members.into_iter().flatten() {
            append_words(member.get(), depth, words)?;
            if words.len() > before {
                break;
            }
        }
        Ok(())
    }
}

/// Appends the text of a string, of the parts of a list, or of an object.
fn append_words(json: &str, depth: u32, words: &mut String) -> serde_json::Result<()> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    match json.as_bytes().first() {
        Some(b'"') => {
            let BorrowedText(text) = serde_json::from_str(json)?;
            words.push_str(&text);
        }
        Some(b'[') => {
            let List(parts) = serde_json::from_str::<List<&RawValue>>(json).unwrap_or_default();
            for part in parts {
                append_words(part.get(), depth, words)?;
            }
        }
        Some(b'{') => {
            if let Object(Some(part)) = serde_json::from_str::<Object<Part<'_>>>(json)? {
                part.append_to(depth, words)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// True for the types of parts that hold pictures, sounds or files.
fn is_media(kind: &str) -> bool {
    let kind = kind.strip_prefix("output_").or(kind.strip_prefix("input_")).unwrap_or(kind);
    matches!(kind.strip_suffix("_url").unwrap_or(kind), "image" | "audio" | "video" | "file" | "image_file")
}

/// True if an object is a single part in place of a list of parts: it has a type, and a text, reasoning or media. Other
/// objects are content that the client parses.
fn is_part(json: &str) -> bool {
    let Ok(Object(Some(part))) = serde_json::from_str::<Object<Part<'_>>>(json) else { return false };
    let Some(kind) = part.kind.non_empty() else { return false };
    let has_words = [part.text, part.thinking, part.reasoning, part.summary, part.refusal].iter().any(Option::is_some);
    // The media are in a member with the name of the type.
    let has_media = || serde_json::from_str::<Members<'_>>(json).is_ok_and(|members| members.get(kind).is_some());
    has_words || (is_media(kind) && has_media())
}
