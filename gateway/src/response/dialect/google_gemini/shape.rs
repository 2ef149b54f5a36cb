//! The chunks of a response, as lenient serde types: members of unexpected types are absent. Members have the names of
//! Google's JSON.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::lenient::{Count, Flag, List, Object, Text};
use crate::json::text_or_json::TextOrJson;

/// A chunk of a stream, or a whole response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResponseChunk<'a> {
    #[serde(default, borrow)]
    pub(super) candidates: List<Object<Candidate<'a>>>,
    #[serde(default, borrow)]
    pub(super) usage_metadata: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) model_version: Text<'a>,
    #[serde(default, borrow)]
    pub(super) response_id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) prompt_feedback: Object<PromptFeedback<'a>>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
    /// The chunk itself, where a service wraps the chunk.
    #[serde(default, borrow)]
    pub(super) response: Option<&'a RawValue>,
}

/// The reason for which a prompt was not answered.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PromptFeedback<'a> {
    #[serde(default, borrow)]
    block_reason: Text<'a>,
}

/// One of the answers to a prompt.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(default, borrow)]
    pub(super) content: Object<Content<'a>>,
    #[serde(default, borrow)]
    finish_reason: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Content<'a> {
    #[serde(default, borrow)]
    pub(super) parts: List<Object<ContentPart<'a>>>,
}

/// A part of a candidate. A part has one of the kinds of content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContentPart<'a> {
    #[serde(default, borrow)]
    pub(super) text: Text<'a>,
    /// Marks the text as reasoning.
    #[serde(default)]
    pub(super) thought: Flag,
    #[serde(default, borrow)]
    pub(super) function_call: Object<FunctionCall<'a>>,
    #[serde(default)]
    pub(super) executable_code: Object<Present>,
    /// A call of one of the provider's own tools.
    #[serde(default)]
    pub(super) tool_call: Object<Present>,
    #[serde(default, borrow)]
    pub(super) audio_transcription: Object<Transcription<'a>>,
    #[serde(default)]
    inline_data: Object<Present>,
    #[serde(default)]
    file_data: Object<Present>,
    #[serde(default)]
    code_execution_result: Object<Present>,
    #[serde(default)]
    tool_response: Object<Present>,
    #[serde(default)]
    function_response: Object<Present>,
}

/// An object of which only the presence matters.
#[derive(Deserialize)]
pub(super) struct Present {}

#[derive(Deserialize)]
pub(super) struct Transcription<'a> {
    #[serde(default, borrow)]
    pub(super) text: Text<'a>,
}

/// A call of a client's tool, or a piece of the call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionCall<'a> {
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) name: Text<'a>,
    #[serde(default, borrow)]
    pub(super) args: TextOrJson<'a>,
    #[serde(default, borrow)]
    pub(super) partial_args: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) will_continue: Flag,
}

impl<'a> FunctionCall<'a> {
    /// The pieces of the arguments. One piece may come without a list.
    pub(super) fn pieces(&self) -> Vec<&'a RawValue> {
        match self.partial_args {
            Some(pieces) if pieces.get() != "null" => {
                serde_json::from_str(pieces.get()).unwrap_or_else(|_| vec![pieces])
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn has_pieces(&self) -> bool {
        self.partial_args.is_some_and(|pieces| !matches!(pieces.get(), "null" | "[]"))
    }
}

impl ContentPart<'_> {
    /// True if the part has content that is not recorded: a picture, a sound, a file, or the result of a call.
    pub(super) fn has_unrecorded_content(&self) -> bool {
        let results = [&self.code_execution_result, &self.tool_response, &self.function_response];
        [&self.inline_data, &self.file_data].into_iter().chain(results).any(|content| content.0.is_some())
    }
}

impl PromptFeedback<'_> {
    /// The reason for the block. The word for "not given" counts as absent.
    pub(super) fn block_reason(&self) -> Option<&str> {
        self.block_reason.non_empty().filter(|reason| *reason != "BLOCK_REASON_UNSPECIFIED")
    }
}

impl Candidate<'_> {
    /// The reason for the end of the candidate. The word for "not given" counts as absent.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        self.finish_reason.non_empty().filter(|reason| *reason != "FINISH_REASON_UNSPECIFIED")
    }
}
