//! HTTP error responses. Every error status of the gateway is chosen in this file and its folder. The body has the shape that the clients
//! of the route expect: OpenAI's error object, or Anthropic's on Anthropic's routes.

mod idempotency;
mod limit;
mod overload;
mod running_chat;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::json;
use shared::id::{ChatId, ConversationId};
use shared::token::TokenError;

use crate::access::key::NotAllowed;
use crate::access::state::AccessRefusal;
use crate::auth::{CrossOrigin, Unauthenticated};
use crate::headers::{CHAT_ID, CONVERSATION_ID};
use crate::limit_headers::LimitHeaders;
use crate::request::InvalidRequest;
use crate::upstream::dispatch::{is_key_refusal, is_withheld};
use crate::upstream::error::UpstreamError;

/// The content encodings of request bodies that the gateway decodes.
const ACCEPTED_ENCODINGS: &str = "gzip, deflate, br, zstd";

/// The value of `param` in errors about the encoding of the body.
const CONTENT_ENCODING_PARAM: &str = "content-encoding";

/// An error response, sent to the client in place of an answer.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status of the response.
    pub status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: String,
    retry_after: Option<u64>,
    /// The response tells client libraries not to send the request again, which they do by default after 409 and 5xx.
    forbids_retry: bool,
    /// The earlier chat that holds the request's idempotency key, with the conversation. Sent in the id headers of the
    /// response. Set for idempotency conflicts only; such a request starts no chat.
    conflicting_chat: Option<Box<(ChatId, ConversationId)>>,
    /// The limits of the caller, for a call that a limit refused.
    limits: Option<Box<LimitHeaders>>,
}

impl ApiError {
    /// Returns the message for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the code of the error, or else its type.
    pub fn code(&self) -> &'static str {
        self.code.unwrap_or(self.kind)
    }

    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code,
            param: None,
            message: message.into(),
            retry_after: None,
            forbids_retry: false,
            conflicting_chat: None,
            limits: None,
        }
    }

    fn forbid_retry(mut self) -> Self {
        self.forbids_retry = true;
        self
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 404: there is nothing at a path below one of the gateway's routes.
    pub fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), "no such route")
    }

    /// 404: the gateway has no route for the path. The message names method and path, at most 200 bytes of it, and the path
    /// that was most likely meant.
    pub fn unknown_path(method: &Method, path: &str, suggestion: Option<&str>) -> Self {
        let path = &path[..path.floor_char_boundary(200)];
        let meant = suggestion.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        let message = format!("{method} {path}: no such route{meant} (all routes are listed in docs/API.md)");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("unknown_url"), message)
    }

    /// 426: the request asks for a WebSocket. Clients that can do without fall back to HTTP.
    pub fn websocket_unsupported() -> Self {
        let message =
            "WebSockets are not supported here: send the request as an HTTP POST, with \"stream\": true to stream";
        let code = Some("websocket_unsupported");
        Self::new(StatusCode::UPGRADE_REQUIRED, "invalid_request_error", code, message)
    }

    /// 400: an HTTP/1.1 request without a `Host` header, or a request with several.
    pub fn invalid_host() -> Self {
        let message = "Host: expected exactly one header";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("invalid_host"), message)
    }

    /// 405: the route exists, but does not accept the method.
    pub fn method_not_allowed() -> Self {
        let message = "this route does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_allowed"), message)
    }

    /// 415: the `content-type` of the request body is not JSON.
    pub fn unsupported_media_type() -> Self {
        let message = "expected content-type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// 415: the request body is no form, or is compressed.
    pub fn expected_form() -> Self {
        let message = "expected content-type: multipart/form-data, without a content-encoding";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// 413: the request body is larger than `limit` bytes.
    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("body_too_large"), message)
    }

    /// 415: the request body has an encoding that the gateway cannot decode. The response names the encodings that the gateway
    /// accepts in `accept-encoding` (RFC 9110, 15.5.16).
    pub fn unsupported_content_encoding(found: &str) -> Self {
        let found: String = found.chars().take(64).collect();
        let message = format!("content-encoding: expected {ACCEPTED_ENCODINGS} or identity, found {found:?}");
        let code = Some("unsupported_content_encoding");
        let error = Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", code, message);
        Self { param: Some(CONTENT_ENCODING_PARAM), ..error }
    }

    /// 400: the compressed request body is damaged or cut off.
    pub fn body_undecodable(encoding: &str) -> Self {
        let message = format!("content-encoding: the request body is not valid {encoding}: damaged or cut off");
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("body_undecodable"), message);
        Self { param: Some(CONTENT_ENCODING_PARAM), ..error }
    }

    /// 400: the request body could not be read to the end.
    pub fn body_unreadable() -> Self {
        let message = "the request body could not be read";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("body_unreadable"), message)
    }

    /// 400: the rest of a form is malformed, or names a field again on which the gateway has acted.
    pub fn bad_form() -> Self {
        let message = "the form is malformed, or has the field model or stream twice";
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("bad_form"), message)
    }

    /// 408: the request body did not arrive within the read timeout, or not at the minimum rate.
    pub fn body_timeout() -> Self {
        let message = "the request body took too long to arrive";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("body_timeout"), message)
    }

    /// 404: the conversation id was not made for the calling user.
    pub fn no_such_conversation() -> Self {
        let message = "no such conversation";
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("conversation_not_found"), message)
    }

    /// 403: a conversation cannot be renamed, because texts are not recorded.
    pub fn title_not_recorded() -> Self {
        let message = "title: titles are not recorded here, because the recording mode is metadata or none";
        let error = Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("title_not_recorded"), message);
        Self { param: Some("title"), ..error }
    }

    /// 404: no such response of OpenAI's Responses API, or another user's.
    pub fn response_not_found() -> Self {
        let message = "no such response: only your own responses, made here, can be read, cancelled and deleted";
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("response_not_found"), message)
    }

    /// 404: no route serves the model in the dialect of the request.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("the model {model:?} does not exist, or is not served here");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message);
        Self { param: Some("model"), ..error }
    }

    /// 403: the contents of the endpoint are shared by all users of the gateway, so the endpoint is closed to the caller.
    pub fn shared_endpoint(path: &str) -> Self {
        let message = format!(
            "{path} is not open to you: its contents belong to the provider's account, which all users of this gateway \
             share; the operator can let the path pass for you with a pass_through rule in the routes file"
        );
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some("shared_endpoint"), message)
    }

    /// 400: a response in the background is asked for as a stream before it has ended.
    pub fn background_not_streamed() -> Self {
        let message =
            "this response is still being made in the background: ask for it without `stream` until it has ended";
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("unsupported_parameter"), message);
        Self { param: Some("stream"), ..error }
    }

    /// 503: the gateway stopped before the answer began. Clients may retry after 1 s.
    pub fn gateway_stopped() -> Self {
        let message = "the gateway was stopped before there was an answer; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("gateway_stopped"), message).retry_after(1)
    }

    /// 503: the journal cannot record events, or an event did not become durable in time. Clients may retry after 2 s.
    pub fn journal_unavailable() -> Self {
        let message = "the chat could not be put on the record, so it was not begun; try again shortly";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("journal_unavailable"), message).retry_after(2)
    }

    /// 502: an upstream's answer that is forwarded in one piece broke off, took too long, or is too large.
    pub fn response_unreadable() -> Self {
        let message = "the upstream's answer could not be read";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_broken"), message)
    }

    /// 403: a page of an origin that is not allowed sent a request with the session cookie.
    pub fn cross_origin(error: CrossOrigin) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some("cross_origin"), error.to_string())
    }

    /// 503: the recorder's API is not configured, not reachable, or has too many requests waiting. Clients may retry after
    /// 2 s.
    pub fn recorder_unavailable() -> Self {
        let message = "the record cannot be read at the moment; chats are not affected";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("recorder_unavailable"), message).retry_after(2)
    }

    /// 502: an upstream's model list broke off, took too long, or is too large.
    pub fn model_list_unreadable() -> Self {
        let message = "the upstream's list of models could not be read";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_broken"), message)
    }

    /// Returns the error that the client gets in place of an upstream response with this status. `None` if the response may
    /// reach the client: see [`is_withheld`].
    pub fn replacing_status(status: StatusCode) -> Option<Self> {
        if !is_withheld(status) {
            return None;
        }
        Some(if is_key_refusal(status) { Self::upstream_refused_key() } else { Self::upstream_redirected() })
    }

    /// 502: the upstream answered with a redirect. A client that followed the redirect would bypass the record, and might
    /// send the session token to another host.
    pub fn upstream_redirected() -> Self {
        let message = "the upstream answered with a redirect, which is not followed: its configured address is wrong";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_redirected"), message).forbid_retry()
    }

    /// 502: the upstream does not accept the gateway's own key. The caller is not at fault and cannot correct the key.
    pub fn upstream_refused_key() -> Self {
        let message = "the upstream refused the gateway's credentials";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_error", Some("upstream_refused_credentials"), message)
            .forbid_retry()
    }
}

impl From<Unauthenticated> for ApiError {
    fn from(error: Unauthenticated) -> Self {
        match error {
            Unauthenticated::Token(TokenError::KeysUnknown) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("keys_unknown"), error.to_string())
                    .retry_after(5)
            }
            Unauthenticated::Refused(AccessRefusal::NotKnownYet) => {
                let code = Some("access_unknown");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, error.to_string()).retry_after(1)
            }
            error => {
                Self::new(StatusCode::UNAUTHORIZED, "authentication_error", Some("invalid_api_key"), error.to_string())
            }
        }
    }
}

impl From<NotAllowed> for ApiError {
    /// 403: the API key may not make this kind of call, or not with this model.
    fn from(error: NotAllowed) -> Self {
        let (code, param) = match &error {
            NotAllowed::Operation(_) => ("operation_not_allowed", None),
            NotAllowed::Model(_) | NotAllowed::NoModel => ("model_not_allowed", Some("model")),
        };
        let refused = Self::new(StatusCode::FORBIDDEN, "permission_error", Some(code), error.to_string());
        Self { param, ..refused }
    }
}

impl From<InvalidRequest> for ApiError {
    fn from(error: InvalidRequest) -> Self {
        let param = error.param;
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, error.message) }
    }
}

impl From<&UpstreamError> for ApiError {
    fn from(error: &UpstreamError) -> Self {
        let status = match error {
            UpstreamError::ConnectTimeout | UpstreamError::HeadTimeout => StatusCode::GATEWAY_TIMEOUT,
            UpstreamError::Connect(_)
            | UpstreamError::Tls(_)
            | UpstreamError::Tunnel(_)
            | UpstreamError::Http(_)
            | UpstreamError::TwoFramings => StatusCode::BAD_GATEWAY,
        };
        let response = Self::new(status, "upstream_error", Some(error.code()), error.public_message());
        // After a timeout the upstream may still be working on the request, and a certificate does not become valid by
        // waiting.
        let is_futile = status == StatusCode::GATEWAY_TIMEOUT || matches!(error, UpstreamError::Tls(_));
        if is_futile { response.forbid_retry() } else { response }
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
            // A call that is no chat has no conversation.
            if !conversation.0.is_nil() {
                response.headers_mut().insert(CONVERSATION_ID, value(conversation.to_string()));
            }
        }
        if let Some(limits) = self.limits.clone() {
            limits.insert_into(response.headers_mut());
        }
        if self.forbids_retry {
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE && self.param == Some(CONTENT_ENCODING_PARAM) {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED_ENCODINGS));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // Kept for the functions of `error_shapes`, which rewrite the body.
        response.extensions_mut().insert(self);
        response
    }
}
