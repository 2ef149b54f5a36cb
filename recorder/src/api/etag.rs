//! Conditional requests: unchanged responses are not sent again.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;

/// The maximum size of a response with an `ETag`, in bytes. Every page is smaller: pages of messages end soon after 8
/// MiB of text.
const MAX_BODY_BYTES: usize = 256 << 20;

/// Adds an `ETag` to successful reads, and answers 304 without a body if the client already has the response.
pub(super) async fn conditional(request: Request, next: Next) -> Response {
    let known = request.headers().get(IF_NONE_MATCH).cloned();
    let is_read = *request.method() == Method::GET;
    let response = next.run(request).await;
    if !is_read || response.status() != StatusCode::OK {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else { return ApiError::no_such_route().into_response() };
    let hash = Sha256::digest(&body);
    let tag = hash.iter().take(12).fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}")) + "\"";
    let Ok(tag) = HeaderValue::try_from(tag) else { return Response::from_parts(head, body.into()) };
    head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    head.headers.insert(VARY, HeaderValue::from_static("authorization, cookie"));
    let is_known = known.is_some_and(|known| {
        known.to_str().is_ok_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
    });
    head.headers.insert(ETAG, tag);
    if is_known {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(CONTENT_TYPE);
        head.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(head, Body::empty());
    }
    Response::from_parts(head, body.into())
}
