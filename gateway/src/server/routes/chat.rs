//! The chat routes: `POST /api/chat` for frontends, and one route per dialect: `/v1/chat/completions`, `/v1/responses` and
//! `/v1/messages`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::error::ApiError;
use crate::request::ApiSurface;
use crate::server::gateway::Gateway;

/// `POST /api/chat`: chats of web frontends.
pub(super) async fn frontend(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::Frontend, request).await
}

/// `POST /v1/chat/completions`: clients of OpenAI's Chat Completions API.
pub(super) async fn chat_completions(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::ChatCompletions, request).await
}

/// `POST /v1/responses`: clients of OpenAI's newer Responses API.
pub(super) async fn responses(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::Responses, request).await
}

/// `POST /v1/messages`: clients of Anthropic's Messages API.
pub(super) async fn messages(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.chat(ApiSurface::Messages, request).await
}

impl Gateway {
    async fn chat(&self, surface: ApiSurface, request: Request) -> Result<Response, ApiError> {
        self.chat_with_model(surface, None, request).await
    }

    /// Serves a chat. A model in the path replaces the model in the body.
    pub(super) async fn chat_with_model(
        &self,
        surface: ApiSurface,
        model: Option<&str>,
        request: Request,
    ) -> Result<Response, ApiError> {
        let served = async {
            let (caller, headers, mut body, place) = self.read_chat(request).await?;
            if let Some(model) = model {
                body = self.with_model(&caller.user, body, model)?;
            }
            // Boxed: the future is large, and every layer around the route would move it.
            Box::pin(self.chats.serve(caller, surface, &headers, &body, place)).await
        };
        served.await.map_err(|error| self.count_refusal(error))
    }
}
