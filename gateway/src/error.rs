//! Errors as callers see them: every status is chosen here, in the shape that the route's clients read: OpenAI's, and
//! Anthropic's on its own routes.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;
use shared::id::{ChatId, ConversationId};
use shared::token::TokenError;

use crate::auth::{CrossOrigin, Unauthenticated};
use crate::headers::{CHAT_ID, CONVERSATION_ID, REQUEST_ID};
use crate::idempotency::{KeyOwner, MalformedKey, Progress};
use crate::request::InvalidRequest;
use crate::upstream::dispatch::{is_key_refusal, is_withheld};
use crate::upstream::error::UpstreamError;

/// Where Anthropic's clients look for a request's id.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// What a caller is told instead of an answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: String,
    retry_after: Option<u64>,
    /// The chat that it is about, where it is another one than the request's, which there is none of.
    conflicting_chat: Option<Box<(ChatId, ConversationId)>>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None, conflicting_chat: None }
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// There is no such route.
    pub fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), "no such route")
    }

    /// There is, but not for this method.
    pub fn method_not_allowed() -> Self {
        let message = "this route does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_allowed"), message)
    }

    /// The body is no JSON by its own account.
    pub fn unsupported_media_type() -> Self {
        let message = "expected content-type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// The body is too large.
    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("body_too_large"), message)
    }

    /// The body broke off.
    pub fn body_unreadable() -> Self {
        let message = "the request body could not be read";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("body_unreadable"), message)
    }

    /// The body came too slowly.
    pub fn body_timeout() -> Self {
        let message = "the request body took too long to arrive";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("body_timeout"), message)
    }

    /// No conversation of this id was made for this user.
    pub fn no_such_conversation() -> Self {
        let message = "no such conversation";
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("conversation_not_found"), message)
    }

    /// No route answers for this model in this dialect.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("the model {model:?} does not exist, or is not served here");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message);
        Self { param: Some("model"), ..error }
    }

    /// The answer could not be fetched here, so it would be paid for and never be on the record.
    pub fn unsupported_background() -> Self {
        let message = "background: not supported here: an answer that is made later could not be fetched";
        let code = Some("unsupported_parameter");
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        Self { param: Some("background"), ..error }
    }

    /// The gateway stops, and this chat with it.
    pub fn gateway_stopped() -> Self {
        let message = "the gateway was stopped before there was an answer; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("gateway_stopped"), message).retry_after(1)
    }

    /// The idempotency key belongs to a chat already, of the same request: nothing was begun.
    pub fn idempotency_key_taken(taken: &KeyOwner) -> Self {
        let (code, state) = match taken.progress {
            Progress::UnderWay => ("idempotency_chat_under_way", "is under way"),
            Progress::Done => ("idempotency_chat_done", "is done"),
        };
        let message =
            format!("this idempotency key belongs to chat {}, which {state}; nothing new was begun", taken.chat);
        let error = Self::new(StatusCode::CONFLICT, "invalid_request_error", Some(code), message);
        Self { conflicting_chat: Some(Box::new((taken.chat, taken.conversation))), ..error }
    }

    /// The idempotency key belongs to a chat of another request.
    pub fn idempotency_key_reused(taken: &KeyOwner) -> Self {
        let message = format!("this idempotency key belongs to chat {}, whose request was another one", taken.chat);
        let code = Some("idempotency_key_reused");
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", code, message);
        Self { conflicting_chat: Some(Box::new((taken.chat, taken.conversation))), ..error }
    }

    /// As many chats as may run do.
    pub fn too_many_chats() -> Self {
        let message = "the gateway is serving as many chats as it may; try again shortly";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("overloaded"), message).retry_after(1)
    }

    /// Nothing new can be recorded, so nothing new is begun.
    pub fn journal_unavailable() -> Self {
        let message = "the chat could not be put on the record, so it was not begun; try again shortly";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("journal_unavailable"), message).retry_after(2)
    }

    /// An answer that is passed on whole broke off, or is beyond all bounds.
    pub fn response_unreadable() -> Self {
        let message = "the upstream's answer could not be read";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_broken"), message)
    }

    /// A page of another origin acts with this one's cookies.
    pub fn cross_origin(error: CrossOrigin) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some("cross_origin"), error.to_string())
    }

    /// The recorder's API is down, or not there at all.
    pub fn recorder_unavailable() -> Self {
        let message = "the record cannot be read at the moment; chats are not concerned";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("recorder_unavailable"), message).retry_after(2)
    }

    /// The upstream's list of models broke off, or is beyond all bounds.
    pub fn model_list_unreadable() -> Self {
        let message = "the upstream's list of models could not be read";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_broken"), message)
    }

    /// What the client is told in place of an upstream's response of this status, where that is none of its business.
    pub fn replacing_status(status: StatusCode) -> Option<Self> {
        if !is_withheld(status) {
            return None;
        }
        Some(if is_key_refusal(status) { Self::upstream_refused_key() } else { Self::upstream_redirected() })
    }

    /// The upstream is somewhere else, as it says. A client that went there would leave the record, and might take its token
    /// along.
    pub fn upstream_redirected() -> Self {
        let message = "the upstream answered with a redirect, which is not followed: its address here is wrong";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_redirected"), message)
    }

    /// The upstream does not accept the gateway's own key. That is not the caller's fault, nor can they mend it.
    pub fn upstream_refused_key() -> Self {
        let message = "the upstream refused the gateway's credentials";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_refused_credentials"), message)
    }
}

impl From<Unauthenticated> for ApiError {
    fn from(error: Unauthenticated) -> Self {
        match error {
            Unauthenticated::Token(TokenError::KeysUnknown) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("keys_unknown"), error.to_string())
                    .retry_after(5)
            }
            error => {
                Self::new(StatusCode::UNAUTHORIZED, "authentication_error", Some("invalid_api_key"), error.to_string())
            }
        }
    }
}

impl From<InvalidRequest> for ApiError {
    fn from(error: InvalidRequest) -> Self {
        let param = error.param;
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, error.message) }
    }
}

impl From<MalformedKey> for ApiError {
    fn from(error: MalformedKey) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, error.to_string())
    }
}

impl From<&UpstreamError> for ApiError {
    fn from(error: &UpstreamError) -> Self {
        let status = match error {
            UpstreamError::ConnectTimeout | UpstreamError::HeadTimeout => StatusCode::GATEWAY_TIMEOUT,
            UpstreamError::Connect(_) | UpstreamError::Tls(_) | UpstreamError::Http(_) => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, "upstream_error", Some(error.code()), error.public_message())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {
            "message": &self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((chat, conversation)) = self.conflicting_chat.as_deref() {
            let value = |id: String| HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static(""));
            response.headers_mut().insert(CHAT_ID, value(chat.to_string()));
            response.headers_mut().insert(CONVERSATION_ID, value(conversation.to_string()));
            // Clients retry a conflict by themselves; it would only come to the same.
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For whoever has to say it in another shape.
        response.extensions_mut().insert(self);
        response
    }
}

/// The response as Anthropic's clients read it.
pub fn into_anthropic_shape(mut response: Response) -> Response {
    let request_id = response.headers().get(REQUEST_ID).cloned();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let kind = match error.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        let body = json!({
            "type": "error",
            "error": {"type": kind, "message": error.message},
            "request_id": request_id.as_ref().and_then(|id| id.to_str().ok()),
        })
        .to_string();
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
    }
    if let Some(id) = request_id {
        response.headers_mut().entry(ANTHROPIC_REQUEST_ID).or_insert(id);
    }
    response
}
