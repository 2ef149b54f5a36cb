//! `/api/chats`: the ledger of chats.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::event::AuditTargetKind;
use shared::id::ConversationId;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caller::{AdminCaller, Caller};
use super::error::ApiError;
use super::input::{DeletedToo, PathId, QueryParams, limit, text, time};
use super::state::ApiState;
use super::users::authorized_user;
use super::views::chat::{Chat, WholeChat};
use super::views::list::List;
use crate::cursor::TimeCursor;
use crate::reads::chats::{self, ChatQuery};

/// The filters and the page of a list of chats.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// The maximum number of chats: 1 to 100. The default is 50.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
    /// Only chats with this status.
    #[param(inline)]
    status: Option<StatusName>,
    /// Only chats with this model.
    model: Option<String>,
    /// Only calls of this kind, such as `chat` or `embeddings`.
    operation: Option<String>,
    /// Only chats of this conversation.
    conversation_id: Option<Uuid>,
    /// Only calls with this API key.
    key_id: Option<Uuid>,
    /// Only calls with API keys of this project.
    project_id: Option<Uuid>,
    /// Only chats with this tag in the header `x-stenograph-tags`.
    tag: Option<String>,
    /// Only chats whose request named this user in its member `user`.
    caller_user: Option<String>,
    /// Only chats that started at this time or later.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Only chats that started before this time.
    #[param(format = DateTime)]
    to: Option<String>,
    /// The owner of the chats. The default is the caller, and on `/api/admin/chats` every user; another user is for admins.
    user_id: Option<String>,
    /// True to list the chats of deleted conversations too: for admins, and logged.
    #[serde(default)]
    deleted: bool,
}

/// The status of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StatusName {
    Started,
    Completed,
    Failed,
    Orphaned,
}

/// Chats, newest first.
#[utoipa::path(get, path = "/api/chats", tag = "chats", params(ListParams),
    responses((status = 200, body = List<Chat>)))]
pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    QueryParams(params): QueryParams<ListParams>,
) -> Result<Json<List<Chat>>, ApiError> {
    let user = params.user_id.clone().unwrap_or_else(|| caller.id.as_str().to_owned());
    user.parse::<shared::id::UserId>().map_err(|_| ApiError::not_found())?;
    let user = authorized_user(&caller, user)?;
    page(&api, &caller, Some(&user), &params).await
}

/// Chats of all users, newest first.
#[utoipa::path(get, path = "/api/admin/chats", tag = "admin", params(ListParams),
    responses((status = 200, body = List<Chat>)))]
pub(super) async fn list_all(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    QueryParams(params): QueryParams<ListParams>,
) -> Result<Json<List<Chat>>, ApiError> {
    let user = params.user_id.as_deref();
    user.map_or(Ok(()), |user| user.parse::<shared::id::UserId>().map(drop)).map_err(|_| ApiError::not_found())?;
    page(&api, &caller, user, &params).await
}

async fn page(
    api: &ApiState,
    caller: &Caller,
    user: Option<&str>,
    params: &ListParams,
) -> Result<Json<List<Chat>>, ApiError> {
    let deleted = caller.deleted_in(&format!("the chats of {}", user.unwrap_or("all users")), params.deleted)?;
    let to = time("to", params.to.as_deref())?.map(|at| TimeCursor { at, id: Uuid::nil() });
    let cursor = params.cursor.as_deref().map(TimeCursor::decode).transpose()?;
    // The page begins at the earlier of `to` and the cursor.
    let before = [to, cursor].into_iter().flatten().min_by_key(|cursor| (cursor.at, cursor.id));
    let query = ChatQuery {
        user,
        status: params.status.map(|status| match status {
            StatusName::Started => "started",
            StatusName::Completed => "completed",
            StatusName::Failed => "failed",
            StatusName::Orphaned => "orphaned",
        }),
        model: params.model.as_deref().map(|model| text("model", model, 256)).transpose()?,
        operation: params.operation.as_deref().map(|operation| text("operation", operation, 32)).transpose()?,
        conversation: params.conversation_id.map(ConversationId),
        key: params.key_id,
        project: params.project_id,
        tag: params.tag.as_deref().map(|tag| text("tag", tag, 64)).transpose()?,
        caller_user: params.caller_user.as_deref().map(|user| text("callerUser", user, 256)).transpose()?,
        from: time("from", params.from.as_deref())?.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        before: before.unwrap_or_else(TimeCursor::newest),
        deleted,
        limit: limit(params.limit)?,
    };
    caller.note_read(api, user, user.map(|user| (AuditTargetKind::User, user.to_owned())), deleted).await?;
    let page = chats::page(&api.pool, query).await?;
    let next_cursor = page.next.map(|cursor| cursor.encode());
    Ok(Json(List { data: page.rows.into_iter().map(Chat::from).collect(), next_cursor }))
}

/// One chat.
#[utoipa::path(get, path = "/api/chats/{id}", tag = "chats", params(("id" = Uuid, Path, description = "The chat"), DeletedToo),
    responses((status = 200, body = WholeChat)))]
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(params): QueryParams<DeletedToo>,
) -> Result<Json<WholeChat>, ApiError> {
    let deleted = caller.deleted_in(&format!("the chat {id}"), params.deleted)?;
    let chat = chats::by_ids(&api.pool, &[id], deleted).await?.pop();
    let chat = chat.filter(|chat| caller.may_read(&chat.user_id)).ok_or_else(ApiError::not_found)?;
    let target = Some((AuditTargetKind::Chat, id.to_string()));
    caller.note_read(&api, Some(&chat.user_id), target, deleted).await?;
    let raw_usage = chats::raw_usage(&api.pool, id).await?;
    Ok(Json(WholeChat { chat: chat.into(), raw_usage }))
}
