//! The paths of Azure's clients: `/openai/deployments/{deployment}/...`, where the deployment is the model, and
//! `/openai/v1/...`, which are the paths of OpenAI. The query (`api-version`) is ignored: the routes decide about upstreams.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};

use crate::error::ApiError;
use crate::request::ApiSurface;
use crate::server::gateway::Gateway;
use crate::server::routes::{chat, models};

/// Builds the routes of Azure's clients.
pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/openai/deployments/{deployment}/chat/completions", post(chat_completions))
        .route("/openai/v1/chat/completions", post(chat::chat_completions))
        .route("/openai/v1/responses", post(chat::responses))
        .route("/openai/responses", post(chat::responses))
        .route("/openai/v1/models", get(models::list))
        .route("/openai/v1/models/{*id}", get(models::get))
        .route("/openai/models", get(models::list))
}

/// `POST /openai/deployments/{deployment}/chat/completions`: a chat with the deployment as its model.
async fn chat_completions(
    State(gateway): State<Arc<Gateway>>,
    Path(deployment): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.chat_with_model(ApiSurface::ChatCompletions, Some(&deployment), request).await
}
