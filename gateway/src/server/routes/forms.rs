//! The routes of OpenAI's API that take `multipart/form-data`: edits and variations of images, transcriptions and
//! translations. A form is read until the model is known; from then on its files stream through.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::auth::Caller;
use crate::call::body::{CallBody, StreamedBody};
use crate::call::upload::UploadBody;
use crate::error::ApiError;
use crate::request::InvalidRequest;
use crate::request::call::CallRequest;
use crate::request::endpoint::Endpoint;
use crate::request::multipart::MultipartReader;
use crate::server::gateway::Gateway;

/// The endpoints that take forms, with their paths.
const ENDPOINTS: [(&str, Endpoint); 4] = [
    ("/v1/images/edits", Endpoint::ImageEdits),
    ("/v1/images/variations", Endpoint::ImageVariations),
    ("/v1/audio/transcriptions", Endpoint::Transcriptions),
    ("/v1/audio/translations", Endpoint::Translations),
];

/// The size up to which a form is read as a whole, so that it can be sent again after a failed attempt.
const MAX_WHOLE_BYTES: usize = 256 << 10;

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    ENDPOINTS.into_iter().fold(Router::new(), |router, (path, endpoint)| {
        let serve = move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
            gateway.form_call(endpoint, request).await
        };
        router.route(path, post(serve))
    })
}

impl Gateway {
    async fn form_call(&self, endpoint: Endpoint, request: Request) -> Result<Response, ApiError> {
        let served = async {
            let (head, body) = request.into_parts();
            let (caller, call, body, permit) = self.read_form(endpoint, &head, body).await?;
            Box::pin(self.chats.serve_call(caller, &head.headers, (endpoint, call), body, permit)).await
        };
        served.await.map_err(|error| self.count_refusal(error))
    }

    /// Authenticates the caller, takes the call's place, and reads the form until the model is known. The rest of the form
    /// is read while the upstream takes it.
    async fn read_form(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        mut body: Body,
    ) -> Result<(Caller, CallRequest, CallBody, OwnedSemaphorePermit), ApiError> {
        match self.read_form_start(endpoint, head, &mut body).await {
            Ok((caller, call, start, permit)) => {
                let FormStart { bytes, reader, is_whole } = start;
                let model = reader.text("model").map(|(_, range)| range);
                let form = if is_whole {
                    StreamedBody::whole(bytes, model)
                } else {
                    let announced = body.size_hint().exact();
                    let allowed = self.chats.limits.max_body_bytes.saturating_sub(bytes.len());
                    let rest = UploadBody::new(body, allowed as u64, self.chats.limits.read_timeout).following(reader);
                    StreamedBody::arriving(bytes, model, rest, announced)
                };
                Ok((caller, call, CallBody::Streamed(form), permit))
            }
            Err(error) => {
                self.discard_body(&head.headers, body);
                Err(error)
            }
        }
    }

    async fn read_form_start(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        body: &mut Body,
    ) -> Result<(Caller, CallRequest, FormStart, OwnedSemaphorePermit), ApiError> {
        let caller = self.authenticate(&head.method, &head.headers)?;
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_form = content_type.trim_start().to_ascii_lowercase().starts_with("multipart/form-data");
        if !is_form || head.headers.contains_key(CONTENT_ENCODING) {
            return Err(ApiError::expected_form());
        }
        let mut reader = MultipartReader::new(content_type)?;
        let limit = self.chats.limits.max_body_bytes;
        if body.size_hint().lower() > limit as u64 {
            return Err(ApiError::body_too_large(limit));
        }
        let permit = self.chats.take_place()?;
        let mut charge = self.body_memory.open(Some(caller.user.clone()));
        charge.wait()?;
        let mut bytes = Vec::new();
        let is_whole = loop {
            // Forms without a model are read as a whole, because the name may still come.
            let is_known = reader.text("model").is_some() && reader.files() > 0;
            if is_known && bytes.len() >= MAX_WHOLE_BYTES {
                break false;
            }
            let frame = timeout(self.chats.limits.read_timeout, body.frame()).await;
            let Some(frame) = frame.map_err(|_| ApiError::body_timeout())? else { break true };
            let Ok(data) = frame.map_err(|_| ApiError::body_unreadable())?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(ApiError::body_too_large(limit));
            }
            charge.add(data.len())?;
            reader.push(&data)?;
            bytes.extend_from_slice(&data);
        };
        if is_whole && !reader.is_complete() {
            let message = "malformed multipart/form-data: the body ends before its last boundary".to_owned();
            return Err(InvalidRequest { message, param: None }.into());
        }
        let mut call = CallRequest::from_form(reader.parts(), endpoint)?;
        call.text_was_mended = reader.has_broken_text();
        Ok((caller, call, FormStart { bytes: charge.attach(bytes.into()), reader, is_whole }, permit))
    }
}

/// The beginning of a form.
struct FormStart {
    bytes: Bytes,
    reader: MultipartReader,
    /// True if `bytes` is the whole form.
    is_whole: bool,
}
