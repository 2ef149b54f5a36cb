//! The HTTP API over the tables, served by `recorder serve`. docs/API.md describes the API for clients.
//!
//! Each kind of object has a file. Callers are authenticated here, before anything else, and not only in the gateway.
//! An object of another user is answered like an object that does not exist.

#![expect(unused_qualifications, reason = "the macros of utoipa generate qualified paths")]

pub mod error;

mod admin;
mod answers;
mod api_keys;
mod audit;
mod auth;
mod caller;
mod change_waits;
mod chats;
mod conversations;
mod cookies;
mod docs;
mod etag;
mod events;
mod gateway_routes;
mod input;
mod limits;
mod live;
mod messages;
mod openapi;
mod own_limits;
mod projects;
mod responses;
mod searches;
mod state;
mod usage;
mod users;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, map_response};
use axum::response::Response;
use axum::routing::{get, patch, post};
use http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};

use error::ApiError;

pub use change_waits::ChangeWaits;
pub use live::LiveSubscriptions;
pub use openapi::openapi_document;
pub use searches::Searches;
pub use state::{ApiState, TokenKeys};

/// The maximum size of a request body, in bytes. Requests hold a few short fields.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Returns the routes of the API, without the routes for health and metrics.
pub fn router(api: Arc<ApiState>) -> Router {
    let reads = Router::new()
        .route("/api/users/{id}", get(users::profile))
        .route("/api/users/{id}/usage", get(usage::of_user))
        .route("/api/conversations", get(conversations::list))
        .route("/api/conversations/{id}", get(conversations::one))
        .route("/api/conversations/{id}/messages", get(messages::list))
        .route("/api/chats", get(chats::list))
        .route("/api/admin/chats", get(chats::list_all))
        .route("/api/chats/{id}", get(chats::one))
        .route("/api/chats/{id}/answer", get(answers::one))
        .route("/api/responses/{id}", get(responses::one))
        .route("/api/auth/me", get(users::me))
        .route("/api/admin/usage", get(usage::of_all))
        .route("/api/admin/failures", get(admin::failures))
        .route("/api/openapi.json", get(openapi::document))
        .layer(from_fn(etag::conditional));
    Router::new()
        .merge(reads)
        .route("/api/limits", get(own_limits::list))
        .route("/api/projects", get(projects::list))
        .route("/api/projects/{id}", get(projects::one))
        .route("/api/projects/{id}/keys", get(projects::keys))
        .route("/api/projects/{id}/usage", get(projects::usage))
        .route("/api/keys", get(api_keys::list).post(api_keys::issue))
        .route("/api/keys/{id}", get(api_keys::one).patch(api_keys::change).delete(api_keys::revoke))
        .route("/api/auth/register", post(auth::register))
        .route("/api/auth/login", post(auth::login))
        .route("/api/auth/refresh", post(auth::refresh))
        .route("/api/auth/logout", post(auth::logout))
        .route("/api/auth/password", post(auth::password))
        .route("/api/conversations/{id}/changes", get(conversations::await_change))
        .route("/api/events", get(events::stream))
        .route("/api/admin/audit", get(audit::list))
        .route("/api/admin/users", get(admin::users))
        .route("/api/admin/users/{id}", patch(admin::change_user))
        .route("/api/admin/invites", get(admin::invites).post(admin::create_invite))
        .route("/api/admin/invites/{id}", axum::routing::delete(admin::revoke_invite))
        .route("/api/admin/keys", get(api_keys::list_all))
        .route("/api/admin/projects", get(projects::list_all).post(projects::create))
        .route("/api/admin/projects/{id}", patch(projects::change))
        .route("/api/admin/limits", get(limits::list))
        .route("/api/admin/limits/{scope}", get(limits::one).put(limits::set).delete(limits::clear))
        .route("/api/docs", get(docs::page))
        .route("/api/docs/{file}", get(docs::file))
        .route("/.well-known/jwks.json", get(docs::keys))
        .fallback(|| async { ApiError::no_such_route() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(map_response(set_default_headers))
        .with_state(api)
}

/// Forbids caching, unless the route has set `Cache-Control`, and forbids browsers to guess another content type.
async fn set_default_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
