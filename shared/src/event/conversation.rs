//! The events for creating, changing and deleting a conversation.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::restored::Restored;
use crate::id::{ChangeId, ConversationId, UserId};

/// The opening of a conversation ahead of its first chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConversationCreated {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The user of the conversation.
    pub user_id: UserId,
    /// The time of opening.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub created_at: OffsetDateTime,
    /// The title that the client gave the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The model that the client intends to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The sampling temperature that the client intends to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// A change of a conversation by its user. Of two changes of the same property, the change with the greater id applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConversationChanged {
    /// The id of the change.
    pub change_id: ChangeId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The user of the conversation.
    pub user_id: UserId,
    /// The time of the change.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub changed_at: OffsetDateTime,
    /// The new title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// True archives the conversation; false takes the conversation out of the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The deletion of a conversation by its user. Reads no longer show the conversation; its usage stays counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConversationDeleted {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The user of the conversation.
    pub user_id: UserId,
    /// The time of deletion.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub deleted_at: OffsetDateTime,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}
