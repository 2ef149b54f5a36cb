//! The chunk of a chat completion, as a lenient serde type: members of unexpected types are absent.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::words::{DeltaContent, Words};
use crate::json::lenient::{Count, List, Members, Object, Text};
use crate::json::text_or_json::TextOrJson;

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
    /// The status that MiniMax sends in place of an HTTP status.
    #[serde(default, borrow)]
    pub(super) base_resp: Option<&'a RawValue>,
    /// The error message as sent by Baidu.
    #[serde(default, borrow)]
    pub(super) error_msg: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) x_groq: Object<GroqExtension<'a>>,
    /// The counts of Cohere.
    #[serde(default, borrow)]
    pub(super) meta: Object<Meta<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Meta<'a> {
    #[serde(default, borrow)]
    billed_units: Option<&'a RawValue>,
    #[serde(default, borrow)]
    tokens: Option<&'a RawValue>,
}

impl<'a> Meta<'a> {
    /// The counts: all, else those that are billed.
    pub(super) fn usage(&self) -> Option<&'a RawValue> {
        self.tokens.or(self.billed_units)
    }
}

#[derive(Deserialize)]
pub(super) struct GroqExtension<'a> {
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
pub(super) struct ChunkChoice<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(default, borrow)]
    pub(super) delta: Object<ChoiceDelta<'a>>,
    #[serde(default, borrow)]
    pub(super) message: Object<ChoiceDelta<'a>>,
    #[serde(default, borrow)]
    pub(super) finish_reason: Text<'a>,
    /// The text of a text completion, which some servers send in place of a delta.
    #[serde(default, borrow)]
    pub(super) text: Text<'a>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// The content of a choice: an addition in a stream, the whole in a document.
#[derive(Default, Deserialize)]
pub(super) struct ChoiceDelta<'a> {
    #[serde(default, borrow)]
    pub(super) content: DeltaContent<'a>,
    #[serde(default, borrow)]
    pub(super) reasoning_content: Words<'a>,
    #[serde(default, borrow)]
    pub(super) reasoning: Words<'a>,
    #[serde(default, borrow)]
    pub(super) reasoning_text: Words<'a>,
    #[serde(default, borrow)]
    pub(super) thinking: Words<'a>,
    #[serde(default, borrow)]
    pub(super) cot_summary: Words<'a>,
    #[serde(default, borrow)]
    pub(super) reasoning_details: Words<'a>,
    #[serde(default, borrow)]
    pub(super) thinking_blocks: Words<'a>,
    #[serde(default, borrow)]
    thinking_content: Words<'a>,
    #[serde(default, borrow)]
    reasoning_summary: Words<'a>,
    /// A text. A content that is marked with `true` stays text: Google marks answers so.
    #[serde(default, borrow)]
    thought: Words<'a>,
    /// The members of LiteLLM for what OpenAI's format has no place for.
    #[serde(default, borrow)]
    provider_specific_fields: Object<ProviderFields<'a>>,
    /// Usage within a message.
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) refusal: Text<'a>,
    #[serde(default, borrow)]
    pub(super) audio: Object<Audio<'a>>,
    #[serde(default, borrow)]
    pub(super) tool_calls: ToolCallPieces<'a>,
    #[serde(default, borrow)]
    pub(super) function_call: Object<FunctionDelta<'a>>,
    /// Pictures and other media, as several gateways and models send them beside the content.
    #[serde(default)]
    images: Presence,
    #[serde(default)]
    image: Presence,
    #[serde(default)]
    videos: Presence,
    #[serde(default)]
    files: Presence,
    /// The sound of MiniMax.
    #[serde(default)]
    audio_content: Presence,
}

impl<'a> ChoiceDelta<'a> {
    /// A delta with this text.
    pub(super) fn of_text(text: Cow<'a, str>) -> Self {
        Self { content: DeltaContent { text, ..DeltaContent::default() }, ..Self::default() }
    }

    /// A delta with this content, as sent.
    pub(super) fn of_content(content: Option<&'a RawValue>) -> serde_json::Result<Self> {
        let content =
            content.map_or_else(|| Ok(DeltaContent::default()), |content| serde_json::from_str(content.get()))?;
        Ok(Self { content, ..Self::default() })
    }
}

impl ChoiceDelta<'_> {
    /// True if the delta adds anything.
    pub(super) fn is_filled(&self) -> bool {
        let texts = [self.content.text.as_ref(), self.reasoning(), &self.content.refusal, self.audio_transcript()];
        texts.iter().any(|text| !text.is_empty())
            || self.refusal.non_empty().is_some()
            || !self.tool_calls.0.is_empty()
            || self.has_unrecorded_content()
            || self.function_call.0.as_ref().is_some_and(FunctionDelta::is_filled)
    }

    /// True if the delta has content that is not recorded: pictures, sounds, files.
    pub(super) fn has_unrecorded_content(&self) -> bool {
        let media = [&self.images, &self.image, &self.videos, &self.files, &self.audio_content];
        self.content.has_media
            || media.iter().any(|media| media.0)
            || self.audio.0.as_ref().is_some_and(|audio| audio.data.0)
    }

    pub(super) fn audio_transcript(&self) -> &str {
        self.audio.0.as_ref().and_then(|audio| audio.transcript.non_empty()).unwrap_or("")
    }

    /// The reasoning: the first non-empty member, in this order.
    pub(super) fn reasoning(&self) -> &str {
        let provider = self.provider_specific_fields.0.as_ref();
        [
            &self.reasoning_content,
            &self.reasoning,
            &self.reasoning_text,
            &self.thinking,
            &self.cot_summary,
            &self.thinking_content,
            &self.reasoning_summary,
            &self.thought,
        ]
        .into_iter()
        .find_map(Words::non_empty)
        .or(Some(self.content.thinking.as_str()).filter(|thinking| !thinking.is_empty()))
        .or(self.reasoning_details.non_empty())
        .or(self.thinking_blocks.non_empty())
        .or(provider.and_then(|fields| fields.reasoning_content.non_empty().or(fields.thinking_blocks.non_empty())))
        .unwrap_or("")
    }
}

#[derive(Deserialize)]
struct ProviderFields<'a> {
    #[serde(default, borrow)]
    reasoning_content: Words<'a>,
    #[serde(default, borrow)]
    thinking_blocks: Words<'a>,
}

#[derive(Deserialize)]
pub(super) struct Audio<'a> {
    #[serde(default, borrow)]
    pub(super) transcript: Text<'a>,
    /// The sound itself.
    #[serde(default)]
    data: Presence,
}

/// A member of which only the presence matters: false for `null`, and for an empty text, list or object.
#[derive(Debug, Default)]
pub(super) struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let is_empty = match json.as_bytes() {
            [b'[', within @ .., b']'] | [b'{', within @ .., b'}'] => within.trim_ascii().is_empty(),
            other => matches!(other, b"null" | b"false" | b"\"\""),
        };
        Ok(Self(!is_empty))
    }
}

/// The pieces of tool calls in a delta, or the calls of a complete message. Some servers send one object in place of the
/// list, or an object with the index of each call as its name. Pieces without any content are left out.
#[derive(Default)]
pub(super) struct ToolCallPieces<'a>(pub(super) Vec<ToolCallPiece<'a>>);

/// A piece of a tool call, or a complete call.
#[derive(Default)]
pub(super) struct ToolCallPiece<'a> {
    pub(super) index: Option<u64>,
    id: TextOrJson<'a>,
    name: Text<'a>,
    pub(super) arguments: Cow<'a, str>,
}

impl ToolCallPiece<'_> {
    pub(super) fn id(&self) -> Option<&str> {
        self.id.non_empty()
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.non_empty()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ToolCallPieces<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&'a RawValue>::deserialize(deserializer)?.get();
        let mut pieces: Vec<ToolCallPiece<'_>> = match json.as_bytes()[0] {
            b'[' => {
                let List(pieces) =
                    serde_json::from_str::<List<Object<ToolCallDelta<'a>>>>(json).map_err(serde::de::Error::custom)?;
                pieces.into_iter().filter_map(|piece| piece.0).map(ToolCallDelta::into_piece).collect()
            }
            b'{' => pieces_of_object(json).map_err(serde::de::Error::custom)?,
            _ => Vec::new(),
        };
        pieces.retain(|piece| piece.id().is_some() || piece.name().is_some() || !piece.arguments.is_empty());
        Ok(Self(pieces))
    }
}

/// Reads an object in place of a list of calls.
fn pieces_of_object(json: &str) -> serde_json::Result<Vec<ToolCallPiece<'_>>> {
    let Members(members) = serde_json::from_str(json)?;
    let is_list = !members.is_empty() && members.iter().all(|(name, _)| name.parse::<u64>().is_ok());
    if !is_list {
        return Ok(vec![serde_json::from_str::<ToolCallDelta<'_>>(json)?.into_piece()]);
    }
    let mut pieces = Vec::new();
    for (name, value) in members {
        if let Object(Some(piece)) = serde_json::from_str::<Object<ToolCallDelta<'_>>>(value.get())? {
            let piece = piece.into_piece();
            pieces.push(ToolCallPiece { index: piece.index.or(name.parse().ok()), ..piece });
        }
    }
    Ok(pieces)
}

#[derive(Deserialize)]
struct ToolCallDelta<'a> {
    #[serde(default)]
    index: Count,
    /// A text. Some servers send a number.
    #[serde(default, borrow)]
    id: TextOrJson<'a>,
    #[serde(default, borrow)]
    function: Object<FunctionDelta<'a>>,
    #[serde(default, borrow)]
    custom: Object<FunctionDelta<'a>>,
    /// The members of the function, without the object around them.
    #[serde(default, borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    arguments: TextOrJson<'a>,
    #[serde(default, borrow)]
    parameters: TextOrJson<'a>,
}

impl<'a> ToolCallDelta<'a> {
    fn into_piece(self) -> ToolCallPiece<'a> {
        let (name, arguments, parameters) = (self.name, self.arguments, self.parameters);
        let bare = FunctionDelta { name, arguments, parameters, ..FunctionDelta::default() };
        let filled = [self.function.0, self.custom.0, Some(bare)].into_iter().flatten().find(FunctionDelta::is_filled);
        ToolCallPiece { index: self.index.0, id: self.id, ..filled.unwrap_or_default().into_piece() }
    }
}

/// A function with its arguments, or a custom tool with its input, which is not JSON.
#[derive(Default, Deserialize)]
pub(super) struct FunctionDelta<'a> {
    #[serde(default, borrow)]
    name: Text<'a>,
    /// A string. Some providers send the object itself.
    #[serde(default, borrow)]
    arguments: TextOrJson<'a>,
    /// Other names of the arguments.
    #[serde(default, borrow)]
    input: TextOrJson<'a>,
    #[serde(default, borrow)]
    parameters: TextOrJson<'a>,
}

impl<'a> FunctionDelta<'a> {
    /// True if there is a name or arguments. Some providers send every member of the schema, with empty values.
    pub(super) fn is_filled(&self) -> bool {
        let arguments = [&self.arguments, &self.input, &self.parameters];
        self.name.non_empty().is_some() || arguments.iter().any(|text| text.non_empty().is_some())
    }

    /// The function as a call without an id and an index.
    pub(super) fn into_piece(self) -> ToolCallPiece<'a> {
        let arguments = [self.arguments, self.input, self.parameters];
        let arguments = arguments.into_iter().filter_map(|text| text.0).find(|text| !text.is_empty());
        ToolCallPiece { name: self.name, arguments: arguments.unwrap_or_default(), ..ToolCallPiece::default() }
    }
}
