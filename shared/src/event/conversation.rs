//! The events for creating, changing and deleting a conversation.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::id::{ChangeId, ConversationId, UserId};

/// A conversation was opened ahead of its first chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConversationCreated {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub created_at: OffsetDateTime,
    /// The title that the client gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The model that the client means to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The temperature that the client means to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// A user changed something about a conversation. Of two changes of the same thing, the one with the greater id stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConversationChanged {
    /// The change.
    pub change_id: ChangeId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was changed.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub changed_at: OffsetDateTime,
    /// Its new title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether it is put away from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// A user deleted a conversation: no reading of the record shows it any more, and what it used stays counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConversationDeleted {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// When it was deleted.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub deleted_at: OffsetDateTime,
}
