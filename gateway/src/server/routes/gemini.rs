//! The routes of Google's clients: `POST /v1beta/models/{model}:{method}`, and the same below `/v1`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http::{HeaderName, HeaderValue};
use shared::event::DialectName;

use super::count_tokens::TokenCount;
use crate::error::ApiError;
use crate::error_shapes;
use crate::request::ApiSurface;
use crate::request::endpoint::Endpoint;
use crate::request::gemini::{self, GeminiMethod};
use crate::server::gateway::Gateway;

const GOOGLE_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Builds the router for Google's clients, but for `/v1`, whose paths are those of models in OpenAI's API too. Errors have
/// Google's shape.
pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/v1beta/models/{*target}", post(call))
        .method_not_allowed_fallback(super::unknown_path::method_not_allowed)
        .layer(map_response(async |response: Response| error_shapes::into_google_shape(response)))
}

/// `POST /v1beta/models/{model}:{method}`: a chat, a count of tokens, or a call for vectors.
pub(super) async fn call(
    State(gateway): State<Arc<Gateway>>,
    Path(target): Path<String>,
    mut request: Request,
) -> Response {
    take_credentials(&mut request);
    let query = request.uri().query().unwrap_or("");
    let has_sse = query.split('&').any(|pair| pair == "alt=sse");
    let served = match gemini::split_path(&target) {
        Some((model, "generateContent")) => {
            gateway.chat_with_model(ApiSurface::Gemini(GeminiMethod::Generate), Some(model), request).await
        }
        Some((model, "streamGenerateContent")) => {
            let method = if has_sse { GeminiMethod::StreamEvents } else { GeminiMethod::StreamList };
            gateway.chat_with_model(ApiSurface::Gemini(method), Some(model), request).await
        }
        Some((model, "countTokens")) => {
            let path = gemini::path(model, "countTokens");
            let count = TokenCount { dialect: DialectName::GoogleGemini, path: &path, model: Some(model) };
            gateway.count_tokens(request, &count).await.map_err(|error| gateway.count_refusal(error))
        }
        Some((model, "embedContent")) => gateway.call(Endpoint::GeminiEmbedding, Some(model), request).await,
        Some((model, "batchEmbedContents")) => gateway.call(Endpoint::GeminiEmbeddings, Some(model), request).await,
        _ => {
            let (head, body) = request.into_parts();
            gateway.discard_body(&head.headers, body);
            Err(ApiError::no_such_route())
        }
    };
    error_shapes::into_google_shape(served.into_response())
}

/// Moves the caller's token from `x-goog-api-key`, or from the query, to the header from which the gateway reads it.
fn take_credentials(request: &mut Request) {
    let query = request.uri().query().unwrap_or("");
    let in_query = query.split('&').find_map(|pair| pair.strip_prefix("key="));
    let token = request.headers().get(GOOGLE_API_KEY).cloned();
    let token = token.or_else(|| in_query.and_then(|key| HeaderValue::try_from(key).ok()));
    if let Some(mut token) = token {
        token.set_sensitive(true);
        request.headers_mut().entry(API_KEY).or_insert(token);
    }
}
