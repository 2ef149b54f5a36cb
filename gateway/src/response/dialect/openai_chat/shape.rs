//! The chunk of a chat completion, as a lenient serde type: members of unexpected types are absent.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::lenient::{BorrowedText, Count, List, Object, Text, compact};
use crate::json::repair::replace_invalid_text;

/// A chunk of a stream, or a whole response.
#[derive(Deserialize)]
pub(super) struct ChatChunk<'a> {
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) model: Text<'a>,
    #[serde(default, borrow)]
    pub(super) choices: List<Object<ChunkChoice<'a>>>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) x_groq: Object<GroqExtension<'a>>,
}

#[derive(Deserialize)]
pub(super) struct GroqExtension<'a> {
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct ChunkChoice<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(default, borrow)]
    pub(super) delta: Object<ChoiceDelta<'a>>,
    #[serde(default, borrow)]
    pub(super) message: Object<ChoiceDelta<'a>>,
    #[serde(default, borrow)]
    pub(super) finish_reason: Text<'a>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// The content of a choice: an addition in a stream, the whole in a document.
#[derive(Deserialize)]
pub(super) struct ChoiceDelta<'a> {
    #[serde(default, borrow)]
    pub(super) content: Option<DeltaContent<'a>>,
    #[serde(default, borrow)]
    pub(super) reasoning_content: Text<'a>,
    #[serde(default, borrow)]
    pub(super) reasoning: Text<'a>,
    #[serde(default, borrow)]
    pub(super) reasoning_text: Text<'a>,
    #[serde(default, borrow)]
    pub(super) reasoning_details: List<Object<ReasoningDetail<'a>>>,
    #[serde(default, borrow)]
    pub(super) refusal: Text<'a>,
    #[serde(default, borrow)]
    pub(super) audio: Object<Audio<'a>>,
    #[serde(default, borrow)]
    pub(super) tool_calls: List<Object<ToolCallDelta<'a>>>,
    #[serde(default, borrow)]
    pub(super) function_call: Object<FunctionDelta<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Audio<'a> {
    #[serde(default, borrow)]
    pub(super) transcript: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct ReasoningDetail<'a> {
    #[serde(default, borrow)]
    pub(super) text: Text<'a>,
    #[serde(default, borrow)]
    pub(super) summary: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct ToolCallDelta<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    function: Object<FunctionDelta<'a>>,
    #[serde(default, borrow)]
    custom: Object<CustomDelta<'a>>,
}

/// The call of a custom tool, whose input is not JSON.
#[derive(Deserialize)]
struct CustomDelta<'a> {
    #[serde(default, borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
}

impl<'a> ToolCallDelta<'a> {
    /// The function call, with name and arguments. For a custom tool the input takes the place of the arguments.
    pub(super) fn into_function(self) -> Option<FunctionDelta<'a>> {
        let custom = self.custom.0.map(|custom| FunctionDelta { name: custom.name, arguments: custom.input });
        self.function.0.filter(FunctionDelta::is_filled).or(custom)
    }
}

#[derive(Deserialize)]
pub(super) struct FunctionDelta<'a> {
    #[serde(default, borrow)]
    pub(super) name: Text<'a>,
    #[serde(default, borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

impl FunctionDelta<'_> {
    /// True if there is a name or arguments.
    pub(super) fn is_filled(&self) -> bool {
        self.name.non_empty().is_some() || self.arguments.is_some_and(|arguments| arguments.get() != "\"\"")
    }
}

/// The content of a delta: usually text; some providers send parts or an object.
pub(super) enum DeltaContent<'a> {
    Text(Cow<'a, str>),
    Parts { text: String, thinking: String },
    Nothing,
}

/// One part of a content in parts.
#[derive(Deserialize)]
struct DeltaContentPart<'a> {
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    thinking: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for DeltaContent<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        let json = raw.get();
        Ok(match json.as_bytes()[0] {
            b'"' => match serde_json::from_str(json) {
                Ok(BorrowedText(text)) => DeltaContent::Text(text),
                Err(_) => replace_invalid_text(json.as_bytes())
                    .and_then(|json| serde_json::from_str(&json).ok())
                    .map_or(DeltaContent::Nothing, |text| DeltaContent::Text(Cow::Owned(text))),
            },
            b'[' => {
                let (mut text, mut thinking) = (String::new(), String::new());
                let read = for_each_part(json, |part| {
                    text.push_str(part.text.non_empty().unwrap_or(""));
                    // Not parsed as `DeltaContent` again: recursion would let deeply nested input exhaust the stack.
                    if let Some(inner) = part.thinking {
                        match serde_json::from_str(inner.get()) {
                            Ok(BorrowedText(words)) => thinking.push_str(&words),
                            Err(_) => for_each_part(inner.get(), |part| {
                                thinking.push_str(part.text.non_empty().unwrap_or(""));
                                Ok(())
                            })?,
                        }
                    }
                    Ok(())
                });
                // The error makes the caller repair the whole chunk.
                read.map_err(serde::de::Error::custom)?;
                DeltaContent::Parts { text, thinking }
            }
            b'{' => DeltaContent::Text(Cow::Owned(compact(raw))),
            _ => DeltaContent::Nothing,
        })
    }
}

/// Calls `on_part` for each part in a list. A part is an object or a plain string.
fn for_each_part(
    json: &str,
    mut on_part: impl FnMut(DeltaContentPart<'_>) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    let List(parts) = serde_json::from_str::<List<&RawValue>>(json).unwrap_or_default();
    for part in parts {
        if let Ok(BorrowedText(text)) = serde_json::from_str(part.get()) {
            on_part(DeltaContentPart { text: Text(Some(text)), thinking: None })?;
        } else if let Object(Some(part)) = serde_json::from_str::<Object<DeltaContentPart<'_>>>(part.get())? {
            on_part(part)?;
        }
    }
    Ok(())
}
