//! Requests for paths without a route: the error names the path and, where a client's base URL has a part too much or too
//! little, the path that was meant.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::UPGRADE;
use http::{HeaderMap, Method};

use crate::error::ApiError;
use crate::error_shapes;
use crate::server::gateway::Gateway;
use crate::server::pages;

/// The paths that clients append to a base URL. A suggestion is the first of these with which the requested path ends, so
/// a longer path stands before its own end.
const KNOWN_PATHS: [&str; 6] =
    ["/v1/chat/completions", "/v1/messages/count_tokens", "/v1/messages", "/v1/responses", "/v1/models", "/api/chat"];

/// 404, as a page for browsers and as an error for programs; or 426 for a request that asks for a WebSocket.
pub(super) async fn no_such_route(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    gateway.discard_body(&head.headers, body);
    let path = head.uri.path();
    if pages::is_for_page(&head.method, &head.uri, &head.headers) && !asks_for_websocket(&head.method, &head.headers) {
        return pages::unknown_page(&head.uri, &head.headers);
    }
    let error = match asks_for_websocket(&head.method, &head.headers) {
        true => ApiError::websocket_unsupported(),
        false => ApiError::unknown_path(&head.method, path, suggestion(path)),
    };
    let response = error.into_response();
    if path.contains("/messages") {
        error_shapes::into_anthropic_shape(response)
    } else if path.starts_with("/v1beta/") {
        error_shapes::into_google_shape(response)
    } else {
        response
    }
}

/// 405, or 426 for a request that asks for a WebSocket.
pub(super) async fn method_not_allowed(State(gateway): State<Arc<Gateway>>, request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    gateway.discard_body(&head.headers, body);
    match asks_for_websocket(&head.method, &head.headers) {
        true => ApiError::websocket_unsupported(),
        false => ApiError::method_not_allowed(),
    }
}

/// Returns true if a request asks to go on as a WebSocket. Clients fall back to HTTP after 426, and give up after 405.
fn asks_for_websocket(method: &Method, headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).into_iter().filter_map(|value| value.to_str().ok());
    method == Method::GET && protocols.any(|value| value.to_ascii_lowercase().contains("websocket"))
}

/// Returns the path that was most likely meant.
fn suggestion(path: &str) -> Option<&'static str> {
    let mut asked = path.to_ascii_lowercase();
    while asked.contains("//") {
        asked = asked.replace("//", "/");
    }
    let asked = asked.trim_end_matches('/');
    KNOWN_PATHS.into_iter().find(|known| {
        let appended = known.strip_prefix("/v1").or_else(|| known.strip_prefix("/api")).unwrap_or(known);
        asked.ends_with(appended) && asked != *known || path != *known && asked == *known
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_that_was_meant_is_suggested() {
        let cases = [
            ("/chat/completions", Some("/v1/chat/completions")),
            ("/v1/v1/chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completions/chat/completions", Some("/v1/chat/completions")),
            ("/api/v1/chat/completions", Some("/v1/chat/completions")),
            ("/v1/chat/completions/", Some("/v1/chat/completions")),
            ("//v1//responses", Some("/v1/responses")),
            ("/responses", Some("/v1/responses")),
            ("/messages/count_tokens", Some("/v1/messages/count_tokens")),
            ("/v1/messages/v1/messages", Some("/v1/messages")),
            ("/models", Some("/v1/models")),
            ("/V1/Models", Some("/v1/models")),
            ("/", None),
            ("/v1/files", None),
        ];
        for (path, expected) in cases {
            assert_eq!(suggestion(path), expected, "{path}");
        }
    }
}
