//! The routes of OpenAI's API that are no chats and take JSON: text completions, embeddings, moderations, rankings, images
//! from a prompt, speech, and the compaction of responses.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use shared::event::DialectName;

use crate::call::body::CallBody;
use crate::error::ApiError;
use crate::request::call::CallRequest;
use crate::request::endpoint::Endpoint;
use crate::server::gateway::Gateway;
use crate::server::routes::openai_path::{ALL, VERSIONED};

/// The endpoints that take JSON, with their paths below the version.
pub(super) const ENDPOINTS: [(&str, Endpoint); 6] = [
    ("/completions", Endpoint::Completions),
    ("/embeddings", Endpoint::Embeddings),
    ("/moderations", Endpoint::Moderations),
    ("/rerank", Endpoint::Rerank),
    ("/images/generations", Endpoint::ImageGenerations),
    ("/audio/speech", Endpoint::Speech),
];

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    let below_version = ENDPOINTS
        .into_iter()
        .flat_map(|(path, endpoint)| VERSIONED.map(|version| (format!("{version}{path}"), endpoint)));
    // Azure's clients for dated versions compact responses, too.
    let compaction = ALL.map(|prefix| (format!("{prefix}/responses/compact"), Endpoint::ResponseCompaction));
    let all = below_version.chain(compaction).chain([("/v2/rerank".to_owned(), Endpoint::Rerank)]);
    all.fold(Router::new(), |router, (path, endpoint)| {
        let serve = move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
            gateway.call(endpoint, None, request).await
        };
        router.route(&path, post(serve))
    })
}

impl Gateway {
    /// Serves a call. `model` is the model that the path names, which replaces the model in the body. `None` if the body names
    /// the model.
    pub(super) async fn call(
        &self,
        endpoint: Endpoint,
        model: Option<&str>,
        request: Request,
    ) -> Result<Response, ApiError> {
        let served = async {
            let (caller, headers, mut body, permit) = self.read_chat(request).await?;
            let is_in_upstream_path = endpoint.dialect() == DialectName::GoogleGemini;
            if let Some(model) = model
                && !is_in_upstream_path
            {
                body = self.with_model(&caller.user, body, model)?;
            }
            let call = CallRequest::parse(&body, endpoint, model)?;
            let body = if is_in_upstream_path { CallBody::PathModel(body) } else { CallBody::Whole(body) };
            Box::pin(self.chats.serve_call(caller, &headers, (endpoint, call), body, permit)).await
        };
        served.await.map_err(|error| self.count_refusal(error))
    }
}
