//! The shapes of errors for clients of Anthropic's and Google's APIs. Errors are made in OpenAI's shape, and rewritten here.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use serde_json::json;

use crate::error::ApiError;
use crate::headers::REQUEST_ID;

/// The header in which Anthropic's clients expect the request id.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Rewrites an error response into the shape that Google's clients expect. Bodies that are not an [`ApiError`] stay unchanged.
pub fn into_google_shape(mut response: Response) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let status = match error.status {
            StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
            StatusCode::FORBIDDEN => "PERMISSION_DENIED",
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
            StatusCode::CONFLICT => "ABORTED",
            StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
            StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
            status if status.is_client_error() => "INVALID_ARGUMENT",
            _ => "INTERNAL",
        };
        let body =
            json!({"error": {"code": error.status.as_u16(), "message": error.message(), "status": status}}).to_string();
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
    }
    response
}

/// Rewrites an error response into the shape that Anthropic's clients expect, and repeats the request id in the header
/// `request-id`. Bodies that are not an [`ApiError`] stay unchanged.
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
            "error": {"type": kind, "message": error.message()},
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
