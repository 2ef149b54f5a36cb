//! A page that shows the OpenAPI document, and the public keys of access tokens.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use super::error::ApiError;
use super::state::ApiState;

/// The Content-Security-Policy of the page, which loads script, style and document from this server and nothing from
/// elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// The public keys that access tokens are signed with: a JSON Web Key Set.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "about", security(()), responses((status = 200, body = Object)))]
pub(super) async fn keys(State(api): State<Arc<ApiState>>) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=60")];
    (headers, api.keys.published().to_string()).into_response()
}

/// Serves the page that shows the OpenAPI document.
pub(super) async fn page() -> Response {
    asset("text/html; charset=utf-8", include_str!("docs/page.html"))
}

/// Serves the script and the style sheet of the page.
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    match name.as_str() {
        "page.js" => Ok(asset("text/javascript; charset=utf-8", include_str!("docs/page.js"))),
        "page.css" => Ok(asset("text/css; charset=utf-8", include_str!("docs/page.css"))),
        _ => Err(ApiError::no_such_route()),
    }
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache")], text).into_response()
}
