//! Routes that the gateway serves, declared here for the OpenAPI document only. Changes of conversations are events,
//! and the gateway records events.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::views::conversation::Conversation;

/// A conversation to be opened.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "the gateway parses the body; the type only describes the body")]
pub(super) struct NewConversation {
    /// Its title.
    #[schema(max_length = 200)]
    title: Option<String>,
    /// The model that will be used.
    #[schema(min_length = 1, max_length = 256)]
    model: Option<String>,
    /// The temperature that will be used.
    temperature: Option<f64>,
}

/// A conversation that was opened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    /// Its id.
    id: Uuid,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// What changes about a conversation: at least one thing.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "the gateway parses the body; the type only describes the body")]
pub(super) struct ConversationChange {
    /// The new title.
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
    /// Whether it is put away.
    archived: Option<bool>,
}

/// A change that is on the record, and will be seen when the recorder has caught up.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pending {
    /// The conversation.
    id: Uuid,
    /// The change; null: the deletion.
    change_id: Option<Uuid>,
    /// That it is not to be seen yet.
    pending: bool,
}

/// Opens a conversation ahead of its first chat.
#[utoipa::path(post, path = "/api/conversations", tag = "conversations", request_body = NewConversation,
    responses((status = 201, body = Created), (status = 408, description = "The body took too long")))]
#[expect(dead_code, reason = "the gateway serves the route; the function only describes the route")]
pub(super) fn create() {}

/// Renames a conversation, puts it away or takes it out again.
#[utoipa::path(patch, path = "/api/conversations/{id}", tag = "conversations", request_body = ConversationChange,
    params(("id" = Uuid, Path, description = "The conversation")),
    responses((status = 200, body = Conversation), (status = 202, body = Pending),
        (status = 204, description = "It has been deleted meanwhile"),
        (status = 408, description = "The body took too long")))]
#[expect(dead_code, reason = "the gateway serves the route; the function only describes the route")]
pub(super) fn change() {}

/// Deletes a conversation for good.
#[utoipa::path(delete, path = "/api/conversations/{id}", tag = "conversations",
    params(("id" = Uuid, Path, description = "The conversation")),
    responses((status = 204, description = "It is gone"), (status = 202, body = Pending)))]
#[expect(dead_code, reason = "the gateway serves the route; the function only describes the route")]
pub(super) fn delete() {}

/// Stops a running chat, whichever gateway runs it. The part of the answer that has arrived is on the record.
#[utoipa::path(post, path = "/api/chats/{id}/stop", tag = "chats",
    params(("id" = Uuid, Path, description = "The chat")),
    responses((status = 204, description = "The chat has ended, now or before"),
        (status = 503, description = "The gateway that runs the chat does not answer")))]
#[expect(dead_code, reason = "the gateway serves the route; the function only describes the route")]
pub(super) fn stop_chat() {}

/// The answer of a chat as server-sent events, running or ended: `start`, `delta`, `reset` and `end`. `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/api/chats/{id}/stream", tag = "chats",
    params(("id" = Uuid, Path, description = "The chat"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that the client has")),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 204, description = "The client has the end")))]
#[expect(dead_code, reason = "the gateway serves the route; the function only describes the route")]
pub(super) fn stream_answer() {}
