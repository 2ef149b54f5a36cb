//! Endpoints whose contents belong to the provider's account: files, batches, vector stores, fine-tuning, assistants and
//! others. All users of the gateway share the account, so the endpoints are refused, unless a rule of the routes file lets
//! the path pass for the caller. A request that passes is recorded with method, path, status and sizes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http::request::Parts;
use http_body::Body as _;

use crate::call::PassThroughRequest;
use crate::call::body::{CallBody, StreamedBody};
use crate::call::upload::UploadBody;
use crate::error::ApiError;
use crate::server::gateway::Gateway;
use crate::server::routes::openai_path;

/// The families of endpoints, below the version. All paths below are refused, too.
const FAMILIES: [&str; 13] = [
    "assistants",
    "batches",
    "containers",
    "conversations",
    "evals",
    "files",
    "fine_tuning",
    "organization",
    "skills",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    let all = FAMILIES.into_iter().flat_map(|family| openai_path::ALL.map(|prefix| format!("{prefix}/{family}")));
    all.fold(Router::new(), |router, family| {
        router.route(&family, any(serve)).route(&format!("{family}/{{*rest}}"), any(serve))
    })
}

async fn serve(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    gateway.pass_through(&head, body).await.map_err(|error| gateway.count_refusal(error))
}

impl Gateway {
    async fn pass_through(&self, head: &Parts, body: Body) -> Result<Response, ApiError> {
        let uri = openai_path::as_openai(&head.uri);
        let admitted = self.authenticate(&head.method, &head.headers).and_then(|caller| {
            let snapshot = self.chats.upstreams.snapshot();
            let path = uri.path();
            let rule = snapshot.table.pass_through.iter().position(|rule| rule.admits(path, caller.user.as_str()));
            let rule = rule.ok_or_else(|| ApiError::shared_endpoint(path))?;
            let limit = self.chats.limits.max_body_bytes;
            if body.size_hint().lower() > limit as u64 {
                return Err(ApiError::body_too_large(limit));
            }
            let place = self.chats.places.take(&caller.user)?;
            Ok((caller, snapshot, rule, place))
        });
        let (caller, snapshot, rule, permit) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                self.discard_body(&head.headers, body);
                return Err(error);
            }
        };
        let body = if body.is_end_stream() {
            CallBody::Whole(Bytes::new())
        } else {
            let (length, limits) = (body.size_hint().exact(), &self.chats.limits);
            let rest = UploadBody::new(body, limits.max_body_bytes as u64, limits.read_timeout);
            CallBody::Streamed(StreamedBody::arriving(Bytes::new(), None, rest, length))
        };
        let request = PassThroughRequest { method: head.method.clone(), uri: &uri, snapshot, rule, body };
        Box::pin(self.chats.serve_pass_through(caller, &head.headers, request, permit)).await
    }
}
