//! `/api/conversations`: lists and shows conversations. Changes are events and therefore go through the gateway; here,
//! the gateway waits until a change is visible in the tables.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use shared::event::AuditTargetKind;
use shared::id::{ChangeId, ConversationId};
use tokio::time::timeout;
use utoipa::IntoParams;
use uuid::Uuid;

use super::caller::Caller;
use super::error::ApiError;
use super::input::{DeletedToo, PathId, QueryParams, limit, text};
use super::state::ApiState;
use super::views::conversation::Conversation;
use super::views::list::List;
use crate::cursor::TimeCursor;
use crate::reads::Deleted;
use crate::reads::conversations::{self, AwaitedChange, ConversationQuery, ExpectedChange};

/// The maximum time to wait for a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Which conversations.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// How many: 1 to 100, 50 unless given.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// Words in titles and messages, 1 to 200 characters.
    q: Option<String>,
    /// Those that are put away, those that are not (unless given), or all.
    #[param(inline)]
    archived: Option<Archived>,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Archived {
    True,
    False,
    All,
}

/// The change to wait for. Without an id, the deletion of the conversation.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ChangeParams {
    change_id: Option<Uuid>,
    title: bool,
    archived: bool,
}

/// The caller's conversations, the latest used first.
#[utoipa::path(get, path = "/api/conversations", tag = "conversations", params(ListParams),
    responses((status = 200, body = List<Conversation>)))]
pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    QueryParams(params): QueryParams<ListParams>,
) -> Result<Json<List<Conversation>>, ApiError> {
    let words = params.q.as_deref().filter(|words| !words.is_empty());
    let query = ConversationQuery {
        user: &caller.id,
        archived: match params.archived.unwrap_or(Archived::False) {
            Archived::True => Some(true),
            Archived::False => Some(false),
            Archived::All => None,
        },
        words: words.map(|words| text("q", words, 200)).transpose()?,
        before: params.cursor.as_deref().map_or(Ok(TimeCursor::newest()), TimeCursor::decode)?,
        limit: limit(params.limit)?,
    };
    let _place = match query.words {
        Some(_) => Some(api.searches.place(&caller.id).await?),
        None => None,
    };
    let page = conversations::page(&api.pool, query).await?;
    let next_cursor = page.next.map(|cursor| cursor.encode());
    Ok(Json(List { data: page.rows.into_iter().map(Conversation::from).collect(), next_cursor }))
}

/// One of them.
#[utoipa::path(get, path = "/api/conversations/{id}", tag = "conversations",
    params(("id" = Uuid, Path, description = "The conversation"), DeletedToo),
    responses((status = 200, body = Conversation)))]
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(params): QueryParams<DeletedToo>,
) -> Result<Json<Conversation>, ApiError> {
    let deleted = caller.deleted_in(&format!("the conversation {id}"), params.deleted)?;
    readable_conversation(&api, &caller, ConversationId(id), deleted).await.map(|row| Json(row.into()))
}

/// Returns the conversation, or fails with 404 if the caller may not read the conversation. A read by an admin is noted.
pub(super) async fn readable_conversation(
    api: &ApiState,
    caller: &Caller,
    id: ConversationId,
    deleted: Deleted,
) -> Result<conversations::ConversationRecord, ApiError> {
    let row = conversations::by_id(&api.pool, id, deleted).await?;
    let row = row.filter(|row| caller.may_read(&row.user_id)).ok_or_else(ApiError::not_found)?;
    let target = Some((AuditTargetKind::Conversation, id.to_string()));
    caller.note_read(api, Some(&row.user_id), target, deleted).await?;
    Ok(row)
}

/// Waits until a change is visible in the tables. The gateway calls the route after recording the change, and passes
/// the result on: 200 with the conversation, 204 if the conversation is deleted, 202 if the change is still not visible
/// after [`CHANGE_TIMEOUT`]. Only the owner's conversations count: a conversation of another user, deleted or not, gets the
/// same answer after the same time as one that nobody has.
pub(super) async fn await_change(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(params): QueryParams<ChangeParams>,
) -> Result<Response, ApiError> {
    let conversation = ConversationId(id);
    let change = match params.change_id {
        Some(change_id) => {
            ExpectedChange::Changed { change_id: ChangeId(change_id), title: params.title, archived: params.archived }
        }
        None => ExpectedChange::Deleted,
    };
    let wait = api.changes.add(AwaitedChange { conversation, user: caller.id.clone(), change })?;
    if timeout(CHANGE_TIMEOUT, wait.until_visible()).await.is_err() {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let row = conversations::by_id(&api.pool, conversation, Deleted::Hidden).await?;
    match row.filter(|row| row.user_id == caller.id.as_str()) {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(row) => Ok(Json(Conversation::from(row)).into_response()),
    }
}
