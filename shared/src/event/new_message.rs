//! The messages that a request adds to its conversation.

use serde::{Deserialize, Serialize};

use crate::id::MessageId;

/// The maximum number of new messages of a chat that are recorded: the last ones. A request with more has a note.
pub const MAX_NEW_MESSAGES: usize = 256;

/// A message that a chat adds to its conversation: a message of the user, or the result of a tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewMessage {
    /// The id of the message, derived from the chat and the position of the message.
    pub id: MessageId,
    /// `user`, or `tool` for the result of a tool call (`function` in the older form of chat completions).
    pub role: String,
    /// The text of the message. For a content in parts: the text parts, joined.
    pub text: String,
    /// The id of the tool call that the message answers, as the model named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}
