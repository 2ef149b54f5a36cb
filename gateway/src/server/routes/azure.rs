//! The paths of Azure's clients that are not OpenAI's with another beginning: `/openai/deployments/{deployment}/...`, where the
//! deployment is the model, and paths of chats and models. The query (`api-version`) is ignored: the routes decide about
//! upstreams.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};

use crate::error::ApiError;
use crate::request::ApiSurface;
use crate::server::gateway::Gateway;
use crate::server::routes::{calls, chat, count_tokens, forms, models};

/// Builds the routes of Azure's clients.
pub(super) fn router() -> Router<Arc<Gateway>> {
    deployments()
        .route("/openai/v1/chat/completions", post(chat::chat_completions))
        .route("/openai/v1/responses", post(chat::responses))
        .route("/openai/responses", post(chat::responses))
        .route("/openai/v1/responses/input_tokens", post(count_tokens::count_input))
        .route("/openai/responses/input_tokens", post(count_tokens::count_input))
        .route("/openai/v1/models", get(models::list))
        .route("/openai/v1/models/{*id}", get(models::get))
        .route("/openai/models", get(models::list))
        .route("/openai/models/{*id}", get(models::get))
}

/// The endpoints of a deployment. The path names the model, whatever model the body names.
fn deployments() -> Router<Arc<Gateway>> {
    let below = |path: &str| format!("/openai/deployments/{{deployment}}{path}");
    let chats = Router::new().route(&below("/chat/completions"), post(chat_completions));
    let with_calls = calls::ENDPOINTS.into_iter().fold(chats, |router, (path, endpoint)| {
        let serve = move |State(gateway): State<Arc<Gateway>>, Path(model): Path<String>, request: Request| async move {
            gateway.call(endpoint, Some(&model), request).await
        };
        router.route(&below(path), post(serve))
    });
    forms::ENDPOINTS.into_iter().fold(with_calls, |router, (path, endpoint)| {
        let serve = move |State(gateway): State<Arc<Gateway>>, Path(model): Path<String>, request: Request| async move {
            gateway.form_call(endpoint, Some(&model), request).await
        };
        router.route(&below(path), post(serve))
    })
}

/// `POST /openai/deployments/{deployment}/chat/completions`: a chat with the deployment as its model.
async fn chat_completions(
    State(gateway): State<Arc<Gateway>>,
    Path(deployment): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.chat_with_model(ApiSurface::ChatCompletions, Some(&deployment), request).await
}
