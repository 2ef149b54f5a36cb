//! `/api/chats/{id}/answer`: the answer of a chat. The gateway asks here when a client resumes an answer that has ended. For the gateway
//! alone, so not in the document.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use shared::id::ChatId;

use super::caller::ModelCaller;
use super::error::ApiError;
use super::input::PathId;
use super::state::ApiState;
use super::views::answer::Answer;
use crate::reads::answers;

/// Returns one of the caller's own chats with its answer, with an access token or an API key.
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    ModelCaller(user): ModelCaller,
    PathId(id): PathId,
) -> Result<Json<Answer>, ApiError> {
    let id = ChatId(id);
    let answer = answers::of_chat(&api.pool, user.as_str(), id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Json(Answer::new(id, answer)))
}
