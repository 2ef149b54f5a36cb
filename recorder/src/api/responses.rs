//! `/api/responses`: the chats that made responses of OpenAI's Responses API, by the provider's id. The gateway asks here for the
//! upstream of a response before it passes a request for the response on. For the gateway alone, so not in the document.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::caller::ModelCaller;
use super::error::ApiError;
use super::state::ApiState;
use super::views::response::MadeResponse;
use crate::reads::responses;

/// The maximum length of a response id, in bytes. Events have no longer ones.
const MAX_ID_BYTES: usize = 1024;

/// Returns one of the caller's own responses, with an access token or an API key. An admin, too, reaches only the admin's own.
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    ModelCaller(user): ModelCaller,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<MadeResponse>, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::not_found())?;
    if id.len() > MAX_ID_BYTES || id.contains('\0') {
        return Err(ApiError::not_found());
    }
    let response = responses::by_id(&api.pool, user.as_str(), &id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Json(MadeResponse::new(id, response)))
}
