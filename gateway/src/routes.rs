//! The routes. Each checks the caller before anything else happens: `Gateway::prove` is where a [`Caller`] comes from.
//!
//! Every layer costs each request some allocations and moves, so what only some routes need is on no others' way.

mod chat;
mod conversations;
mod count_tokens;
mod health;
mod models;
mod reads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::auth::{Authenticator, Caller, same_origin};
use crate::chat::Chats;
use crate::error::{self, ApiError};
use crate::forward::{CHAT_ID, CONVERSATION_ID, REQUEST_ID};
use crate::metrics::{Metrics, Status};
use crate::pages;
use crate::reads::Reads;

/// How long the rest of a refused request is read.
const READ_AWAY_WITHIN: Duration = Duration::from_secs(2);

/// What the routes need.
#[derive(Debug)]
pub struct Gateway {
    /// Who asks.
    pub auth: Arc<Authenticator>,
    /// What serves chats.
    pub chats: Arc<Chats>,
    /// The way to the recorder's API, where there is one.
    pub reads: Option<Reads>,
    /// The origins whose pages may act with cookies, besides the gateway's own.
    pub cors_origins: Vec<HeaderValue>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Every route.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let cors = cors(&gateway.cors_origins);
    // Anthropic's clients read errors in another shape than OpenAI's, and the request's id in another header.
    let anthropic = Router::new()
        .route("/v1/messages", post(chat::anthropic))
        .route("/v1/messages/count_tokens", post(count_tokens::count))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(map_response(async |response: Response| error::for_anthropic(response)));
    Router::new()
        .route("/api/chat", post(chat::frontend))
        .route("/v1/chat/completions", post(chat::openai))
        .route("/v1/responses", post(chat::responses))
        .merge(anthropic)
        .route("/v1/models", get(models::list))
        .route("/api/conversations", post(conversations::create).get(reads::pass_proven))
        .route(
            "/api/conversations/{id}",
            patch(conversations::change).delete(conversations::delete).get(reads::pass_proven),
        )
        .merge(pages::router())
        .merge(reads::router())
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(cors)
        .with_state(gateway)
}

async fn method_not_allowed(State(gateway): State<Arc<Gateway>>, request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    gateway.read_away(&head.headers, body);
    ApiError::method_not_allowed()
}

async fn no_such_route(State(gateway): State<Arc<Gateway>>, uri: Uri, request: Request) -> Response {
    let (head, body) = request.into_parts();
    gateway.read_away(&head.headers, body);
    let response = ApiError::no_such_route().into_response();
    if uri.path().starts_with("/v1/messages") { error::for_anthropic(response) } else { response }
}

impl Gateway {
    /// Counts a refusal.
    fn refuse(&self, error: ApiError) -> ApiError {
        self.metrics.refused.get_or_create(&Status { status: error.status.as_u16() }).inc();
        error
    }

    /// Who asks. Nothing else happens before this, and nothing at all without it.
    fn prove(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, ApiError> {
        same_origin(method, headers, &self.cors_origins).map_err(ApiError::cross_origin)?;
        Ok(self.auth.caller(headers)?)
    }

    /// Who asks, and the parts of a request with a JSON body, within bounds.
    async fn read_json(&self, request: Request) -> Result<(Caller, HeaderMap, Bytes), ApiError> {
        let (head, mut body) = request.into_parts();
        match self.read_body(&head, &mut body).await {
            Ok((caller, bytes)) => Ok((caller, head.headers, bytes)),
            Err(error) => {
                self.read_away(&head.headers, body);
                Err(error)
            }
        }
    }

    async fn read_body(&self, head: &Parts, body: &mut Body) -> Result<(Caller, Bytes), ApiError> {
        let caller = self.prove(&head.method, &head.headers)?;
        let is_json =
            head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                let essence = value.split(';').next().unwrap_or("").trim();
                essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
            });
        if !is_json {
            return Err(ApiError::unsupported_media_type());
        }
        let limit = self.chats.limits.body_bytes;
        let body = timeout(self.chats.limits.read_timeout, Limited::new(body, limit).collect())
            .await
            .map_err(|_| ApiError::body_timeout())?
            .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => ApiError::body_too_large(limit),
                None => ApiError::body_unreadable(),
            })?;
        Ok((caller, body.to_bytes()))
    }

    /// Reads what is left of the body of a request that is refused, within bounds, while the refusal is on its way: the
    /// connection of a client that writes everything before it reads would be reset otherwise, and the refusal lost. One that
    /// waits to be told to go on has sent nothing.
    fn read_away(&self, headers: &HeaderMap, mut body: Body) {
        if body.is_end_stream() || headers.contains_key(header::EXPECT) {
            return;
        }
        let mut left = self.chats.limits.body_bytes.saturating_mul(2);
        tokio::spawn(timeout(READ_AWAY_WITHIN, async move {
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let Some(rest) = left.checked_sub(bytes) else { return };
                left = rest;
            }
        }));
    }
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let exposed: [HeaderName; 10] = [
        header::ETAG,
        CHAT_ID,
        CONVERSATION_ID,
        REQUEST_ID,
        header::RETRY_AFTER,
        HeaderName::from_static("retry-after-ms"),
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ];
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(Duration::from_secs(3600));
    if origins.is_empty() {
        // Any page may call, but only with a token that it holds itself: cookies are not allowed to come along.
        layer.allow_origin(AllowOrigin::any())
    } else {
        layer.allow_origin(AllowOrigin::list(origins.iter().cloned())).allow_credentials(true)
    }
}
