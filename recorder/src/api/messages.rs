//! `/api/conversations/{id}/messages`: the messages of a conversation, with the chats of the messages.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::id::ConversationId;
use utoipa::{IntoParams, ToSchema};

use super::caller::Caller;
use super::conversations::readable_conversation;
use super::error::ApiError;
use super::input::{PathId, QueryParams, limit};
use super::state::ApiState;
use super::views::chat::Chat;
use super::views::message::{Message, Messages};
use crate::cursor::IdCursor;
use crate::reads::{chats, messages};

/// Which messages.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// How many: 1 to 100, 50 unless given.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// Oldest first (asc, unless given), or newest first.
    #[param(inline)]
    order: Option<OrderName>,
    /// True to read a deleted conversation too: for admins, and logged.
    #[serde(default)]
    deleted: bool,
}

/// Which way a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OrderName {
    Asc,
    Desc,
}

/// A conversation's messages, with the chats they belong to.
#[utoipa::path(get, path = "/api/conversations/{id}/messages", tag = "conversations",
    params(("id" = uuid::Uuid, Path, description = "The conversation"), ListParams),
    responses((status = 200, body = Messages)))]
pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(params): QueryParams<ListParams>,
) -> Result<Json<Messages>, ApiError> {
    let limit = limit(params.limit)?;
    let (order, first) = match params.order.unwrap_or(OrderName::Asc) {
        OrderName::Asc => (messages::SortOrder::Ascending, IdCursor::first()),
        OrderName::Desc => (messages::SortOrder::Descending, IdCursor::last()),
    };
    let after = params.cursor.as_deref().map_or(Ok(first), IdCursor::decode)?;
    let deleted = caller.deleted_in(&format!("the messages of the conversation {id}"), params.deleted)?;
    let conversation = readable_conversation(&api, &caller, ConversationId(id), deleted).await?;
    let of = (ConversationId(id), conversation.user_id.as_str());
    let (rows, has_more) = messages::page(&api.pool, of, order, after, limit).await?;
    let last = rows.last().filter(|_| has_more).map(|row| IdCursor { id: row.chat_id, number: row.position });
    let mut ids: Vec<_> = rows.iter().map(|row| row.chat_id).collect();
    ids.dedup();
    let chats = if ids.is_empty() { Vec::new() } else { chats::by_ids(&api.pool, &ids, deleted).await? };
    Ok(Json(Messages {
        data: rows.into_iter().map(Message::from).collect(),
        chats: chats.into_iter().filter(|chat| chat.user_id == conversation.user_id).map(Chat::from).collect(),
        next_cursor: last.map(|cursor| cursor.encode()),
    }))
}
