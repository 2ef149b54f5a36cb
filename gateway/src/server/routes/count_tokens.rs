//! `POST /v1/messages/count_tokens`: the upstream counts what a message would cost. No chat, so nothing is recorded.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use serde::Deserialize;
use shared::event::DialectName;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::headers;
use crate::json::edit;
use crate::json::lenient::{Object, Text};
use crate::request::InvalidRequest;
use crate::server::gateway::Gateway;
use crate::upstream::dispatch::{Candidates, Outgoing};

/// The longest answer that is passed on.
const MAX_BYTES: usize = 1 << 20;

/// Passes the question on, and the answer back.
pub(super) async fn count(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, ApiError> {
    gateway.count_tokens(request).await.map_err(|error| gateway.refuse(error))
}

impl Gateway {
    async fn count_tokens(&self, request: Request) -> Result<Response, ApiError> {
        let (_, headers, body) = self.read_json(request).await?;
        let model = model(&body)?;
        let in_force = self.chats.upstreams.in_force();
        let route = in_force.route(&model).ok_or_else(|| ApiError::model_not_found(&model))?;
        let candidates = Candidates::new(&in_force, route, DialectName::AnthropicMessages)
            .ok_or_else(|| ApiError::model_not_found(&model))?;
        let outgoing = Outgoing {
            method: &Method::POST,
            path: "/messages/count_tokens",
            headers: &headers::to_upstream(&headers),
            may_ask_for_usage: false,
            body: &|choice, _| match &choice.model {
                Some(model) => edit::with_member(&body, "model", &model.as_str().into()),
                None => body.clone(),
            },
        };
        let answered =
            candidates.send(&outgoing, &self.metrics, &mut Vec::new()).await.map_err(|error| ApiError::from(&error))?;
        let answer = answered.response;
        if let Some(instead) = ApiError::in_place_of(answer.status()) {
            return Err(instead);
        }
        let (head, body) = answer.into_parts();
        let body = timeout(self.chats.limits.idle_timeout, body.collect(MAX_BYTES)).await;
        let body = body.ok().flatten().ok_or_else(ApiError::answer_unreadable)?;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = headers::to_client(head.headers);
        Ok(response)
    }
}

/// The model that is asked for. Everything else is the upstream's to judge.
fn model(body: &[u8]) -> Result<String, InvalidRequest> {
    #[derive(Deserialize)]
    struct Question<'a> {
        #[serde(default, borrow)]
        model: Text<'a>,
    }
    let question = serde_json::from_slice::<Object<Question<'_>>>(body);
    let model =
        question.ok().and_then(|question| question.0).and_then(|question| question.model.filled().map(str::to_owned));
    model.ok_or_else(|| InvalidRequest {
        message: "model: expected a JSON object with a model name".to_owned(),
        param: Some("model"),
    })
}
