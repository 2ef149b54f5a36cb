//! The messages between gateways: questions about a chat, and the answers of the gateway that knows the chat. JSON; a gateway does not
//! answer a question that it cannot read, such as one of a later version.

use serde::{Deserialize, Serialize};
use shared::id::{ChatId, ConversationId, UserId};

use super::ChatIds;
use crate::response::answer_piece::{Lengths, Piece};

/// A question of a user's request.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Question {
    pub(super) user: UserId,
    pub(super) ask: Wish,
}

/// The wish of a question.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wish {
    /// The end of a chat.
    Stop { chat: ChatId },
    /// The place of a chat.
    Find { chat: ChatId },
    /// The place of the latest running chat of a conversation.
    FindIn { conversation: ConversationId },
    /// What follows in an answer.
    Read { chat: ChatId, have: Lengths },
}

/// An answer.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The chat was stopped, or had ended before.
    Stopped { had_ended: bool },
    /// The chat runs at the gateway that listens to this subject.
    Runs { ids: ChatIds, subject: String },
    /// The chat has ended. Has the conversation of the chat.
    Ended { conversation: Option<ConversationId> },
    /// What follows.
    Piece(Piece),
}
