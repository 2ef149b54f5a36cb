//! The routes of OpenAI's API that are no chats and take JSON: text completions, embeddings, moderations, rankings, images
//! from a prompt, speech, and the compaction of responses.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;

use crate::call::body::CallBody;
use crate::error::ApiError;
use crate::request::call::CallRequest;
use crate::request::endpoint::Endpoint;
use crate::server::gateway::Gateway;

/// The endpoints that take JSON, with their paths.
const ENDPOINTS: [(&str, Endpoint); 8] = [
    ("/v1/completions", Endpoint::Completions),
    ("/v1/embeddings", Endpoint::Embeddings),
    ("/v1/moderations", Endpoint::Moderations),
    ("/v1/rerank", Endpoint::Rerank),
    ("/v2/rerank", Endpoint::Rerank),
    ("/v1/images/generations", Endpoint::ImageGenerations),
    ("/v1/audio/speech", Endpoint::Speech),
    ("/v1/responses/compact", Endpoint::ResponseCompaction),
];

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    ENDPOINTS.into_iter().fold(Router::new(), |router, (path, endpoint)| {
        let serve = move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
            gateway.call(endpoint, None, request).await
        };
        router.route(path, post(serve))
    })
}

impl Gateway {
    /// Serves a call. `model` is the model that the path names. `None` if the body names the model.
    pub(super) async fn call(
        &self,
        endpoint: Endpoint,
        model: Option<&str>,
        request: Request,
    ) -> Result<Response, ApiError> {
        let served = async {
            let (caller, headers, body, permit) = self.read_chat(request).await?;
            let call = CallRequest::parse(&body, endpoint, model)?;
            let body = if model.is_some() { CallBody::PathModel(body) } else { CallBody::Whole(body) };
            Box::pin(self.chats.serve_call(caller, &headers, (endpoint, call), body, permit)).await
        };
        served.await.map_err(|error| self.count_refusal(error))
    }
}
