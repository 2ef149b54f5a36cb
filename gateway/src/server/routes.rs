//! The HTTP routes. A route that acts for a user authenticates the caller before any other step: `Gateway::authenticate` is
//! the only source of a [`Caller`](crate::auth::Caller).
//!
//! Every middleware layer costs each request some allocations and moves, so a layer that only some routes need is applied
//! to those routes alone.

mod azure;
mod calls;
mod chat;
mod conversations;
mod count_tokens;
mod following;
mod forms;
mod gemini;
mod health;
mod models;
mod openai_path;
mod recorder_api;
mod responses;
mod resume;
mod running_chats;
mod shared_endpoints;
mod unknown_path;

use std::sync::Arc;

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, patch, post};

use crate::error_shapes;
use crate::server::cors::cors;
use crate::server::gateway::Gateway;
use crate::server::pages;

/// Builds the router with all routes of the gateway.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let cors = cors(&gateway.cors_origins);
    // Anthropic's clients expect errors in another shape than OpenAI's, and the request id in another header.
    let anthropic = Router::new()
        .route("/v1/messages", post(chat::messages))
        .route("/v1/messages/count_tokens", post(count_tokens::count))
        .method_not_allowed_fallback(unknown_path::method_not_allowed)
        .layer(map_response(async |response: Response| error_shapes::into_anthropic_shape(response)));
    Router::new()
        .route("/api/chat", post(chat::frontend))
        .route("/v1/chat/completions", post(chat::chat_completions))
        .route("/v1/responses", post(chat::responses))
        .route("/v1/responses/input_tokens", post(count_tokens::count_input))
        .merge(responses::router())
        .merge(running_chats::router())
        .merge(resume::router())
        .merge(calls::router())
        .merge(forms::router())
        .merge(shared_endpoints::router())
        .merge(anthropic)
        .merge(gemini::router())
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::get).post(gemini::call))
        .merge(azure::router())
        .route("/api/conversations", post(conversations::create).get(recorder_api::forward_authenticated))
        .route(
            "/api/conversations/{id}",
            patch(conversations::change).delete(conversations::delete).get(recorder_api::forward_authenticated),
        )
        .merge(pages::router())
        .merge(recorder_api::router())
        .fallback(unknown_path::no_such_route)
        .method_not_allowed_fallback(unknown_path::method_not_allowed)
        .layer(cors)
        // Load balancers probe the port to which they send requests. Pages of other origins read nothing here: these routes
        // come after the layer for CORS.
        .merge(health::probe_router())
        .with_state(gateway)
}

/// Builds the router of the listener for health checks and metrics.
pub fn health_router(gateway: Arc<Gateway>) -> Router {
    health::operations_router().with_state(gateway)
}
