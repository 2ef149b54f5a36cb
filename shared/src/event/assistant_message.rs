//! The answer of a chat: text, reasoning, tool calls and further choices.

use serde::{Deserialize, Serialize};

use crate::id::MessageId;

/// The finish reason of an answer that its user stopped before the end.
pub const STOPPED_BY_USER: &str = "stopped_by_user";

/// The finish reason of an answer that was ended because a budget is used up.
pub const CUT_BY_BUDGET: &str = "cut_by_budget";

/// The answer of a chat, whole or partial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AssistantMessage {
    /// The id of the message, derived from the chat.
    pub id: MessageId,
    /// The text of the message; may be empty.
    pub text: String,
    /// Reasoning text, if the model showed any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The model's refusal, if the provider sent one separate from the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The transcript of a spoken answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_transcript: Option<String>,
    /// Calls of the client's tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The number of calls of the provider's own tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub server_tool_calls: u64,
    /// The choices besides the first, if the client asked for several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_choices: Vec<OtherChoice>,
    /// The reason for the end, in the provider's word; `client_gone` if the client disconnected first, `stopped_by_user` if the user
    /// stopped the chat first, `cut_by_budget` if a budget was used up first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// True if the answer was longer than the recorded part.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A further answer to the same request, if the client asked for several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OtherChoice {
    /// The number of the choice; the first choice has number 0.
    pub index: u64,
    /// The text of the choice.
    pub text: String,
    /// Reasoning text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// A refusal, separate from the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The transcript of a spoken answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_transcript: Option<String>,
    /// Calls of the client's tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The reason for the end, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// A call of a tool of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ToolCall {
    /// The provider's id of the call.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// The arguments as sent: usually JSON, never checked.
    pub arguments: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
