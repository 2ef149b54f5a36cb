//! A chunk of a chat completion, read as far as it makes sense.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::lenient::{Count, List, Object, Text, compact};
use crate::json::repair::mended;

/// A chunk of a stream, or a whole answer.
#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) model: Text<'a>,
    #[serde(default, borrow)]
    pub(super) choices: List<Object<Choice<'a>>>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) x_groq: Object<Groq<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Groq<'a> {
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(default, borrow)]
    pub(super) delta: Object<Delta<'a>>,
    #[serde(default, borrow)]
    pub(super) message: Object<Delta<'a>>,
    #[serde(default, borrow)]
    pub(super) finish_reason: Text<'a>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// What is new in a choice; in a whole answer, everything.
#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(default, borrow)]
    pub(super) content: Option<Content<'a>>,
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

/// A custom tool's call: what it is given is no JSON.
#[derive(Deserialize)]
struct CustomDelta<'a> {
    #[serde(default, borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
}

impl<'a> ToolCallDelta<'a> {
    /// What is called, and with what: a function, or a custom tool, the input of which stands for the arguments.
    pub(super) fn called(self) -> Option<FunctionDelta<'a>> {
        let custom = self.custom.0.map(|custom| FunctionDelta { name: custom.name, arguments: custom.input });
        self.function.0.filter(FunctionDelta::says_anything).or(custom)
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
    /// Whether there is a name, or arguments.
    pub(super) fn says_anything(&self) -> bool {
        self.name.filled().is_some() || self.arguments.is_some_and(|arguments| arguments.get() != "\"\"")
    }
}

/// A content: text mostly; parts, or an object, from some.
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Parts { text: String, thinking: String },
    Nothing,
}

/// A part of a content.
#[derive(Deserialize)]
struct ContentPart<'a> {
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    thinking: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        let json = raw.get();
        Ok(match json.as_bytes()[0] {
            b'"' => match serde_json::from_str(json) {
                Ok(Borrowed(text)) => Content::Text(text),
                Err(_) => mended(json.as_bytes())
                    .and_then(|json| serde_json::from_str(&json).ok())
                    .map_or(Content::Nothing, |text| Content::Text(Cow::Owned(text))),
            },
            b'[' => {
                let (mut text, mut thinking) = (String::new(), String::new());
                let read = each_part(json, |part| {
                    text.push_str(part.text.filled().unwrap_or(""));
                    // Not read as a content again: what is nested ever deeper must not cost us ever more of the stack.
                    if let Some(inner) = part.thinking {
                        match serde_json::from_str(inner.get()) {
                            Ok(Borrowed(words)) => thinking.push_str(&words),
                            Err(_) => each_part(inner.get(), |part| {
                                thinking.push_str(part.text.filled().unwrap_or(""));
                                Ok(())
                            })?,
                        }
                    }
                    Ok(())
                });
                // So that the whole chunk is righted.
                read.map_err(serde::de::Error::custom)?;
                Content::Parts { text, thinking }
            }
            b'{' => Content::Text(Cow::Owned(compact(raw))),
            _ => Content::Nothing,
        })
    }
}

/// Goes through a list of parts, each an object or a plain text.
fn each_part(json: &str, mut on: impl FnMut(ContentPart<'_>) -> serde_json::Result<()>) -> serde_json::Result<()> {
    let List(parts) = serde_json::from_str::<List<&RawValue>>(json).unwrap_or_default();
    for part in parts {
        if let Ok(Borrowed(text)) = serde_json::from_str(part.get()) {
            on(ContentPart { text: Text(Some(text)), thinking: None })?;
        } else if let Object(Some(part)) = serde_json::from_str::<Object<ContentPart<'_>>>(part.get())? {
            on(part)?;
        }
    }
    Ok(())
}

/// A string that borrows where it can.
#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
