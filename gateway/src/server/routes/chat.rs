//! `POST /api/chat`, and the three dialects' own routes: `/v1/chat/completions`, `/v1/responses`, `/v1/messages`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::error::ApiError;
use crate::request::ApiSurface;
use crate::server::gateway::Gateway;

/// What frontends call.
pub(super) async fn frontend(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::Frontend, request).await
}

/// What OpenAI's clients call.
pub(super) async fn chat_completions(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::ChatCompletions, request).await
}

/// What OpenAI's newer clients call.
pub(super) async fn responses(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::Responses, request).await
}

/// What Anthropic's clients call.
pub(super) async fn messages(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::Messages, request).await
}

impl Gateway {
    async fn chat(&self, surface: ApiSurface, request: Request) -> Result<Response, ApiError> {
        let served = async {
            let (caller, headers, body) = self.read_json(request).await?;
            // In a place of its own: it is large, and each layer around this would move it.
            Box::pin(self.chats.serve(caller, surface, &headers, &body)).await
        };
        served.await.map_err(|error| self.count_refusal(error))
    }
}
