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
use shared::fair_share::Place;
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
use crate::server::routes::openai_path::VERSIONED;

/// The endpoints that take forms, with their paths below the version.
pub(super) const ENDPOINTS: [(&str, Endpoint); 4] = [
    ("/images/edits", Endpoint::ImageEdits),
    ("/images/variations", Endpoint::ImageVariations),
    ("/audio/transcriptions", Endpoint::Transcriptions),
    ("/audio/translations", Endpoint::Translations),
];

/// The size up to which a form is read as a whole, so that it can be sent again after a failed attempt.
const MAX_WHOLE_BYTES: usize = 256 << 10;

/// Builds the routes.
pub(super) fn router() -> Router<Arc<Gateway>> {
    let all = ENDPOINTS
        .into_iter()
        .flat_map(|(path, endpoint)| VERSIONED.map(|version| (format!("{version}{path}"), endpoint)));
    all.fold(Router::new(), |router, (path, endpoint)| {
        let serve = move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
            gateway.form_call(endpoint, None, request).await
        };
        router.route(&path, post(serve))
    })
}

impl Gateway {
    /// Serves a call with a form. `model` is the model that the path names, which replaces the model in the form. `None` if the
    /// form names the model.
    pub(super) async fn form_call(
        &self,
        endpoint: Endpoint,
        model: Option<&str>,
        request: Request,
    ) -> Result<Response, ApiError> {
        let served = async {
            let (head, body) = request.into_parts();
            let (caller, call, body, permit) = self.read_form(endpoint, model, &head, body).await?;
            Box::pin(self.chats.serve_call(caller, &head.headers, (endpoint, call), body, permit)).await
        };
        served.await.map_err(|error| self.count_refusal(error))
    }

    /// Authenticates the caller, takes the call's place, and reads the form until the model is known. The rest of the form
    /// is read while the upstream takes it.
    async fn read_form(
        &self,
        endpoint: Endpoint,
        path_model: Option<&str>,
        head: &Parts,
        mut body: Body,
    ) -> Result<(Caller, CallRequest, CallBody, Place), ApiError> {
        match self.read_form_start(endpoint, path_model, head, &mut body).await {
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
        path_model: Option<&str>,
        head: &Parts,
        body: &mut Body,
    ) -> Result<(Caller, CallRequest, FormStart, Place), ApiError> {
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
        let permit = self.chats.places.take(&caller.user)?;
        let mut charge = self.body_memory.open(Some(caller.user.clone()));
        charge.wait()?;
        let mut bytes = Vec::new();
        let is_whole = loop {
            // Forms without a model are read as a whole, because the name may still come.
            let is_named_by_path = path_model.is_some() && !reader.has_begun("model");
            let is_known = is_named_by_path || reader.text("model").is_some();
            if is_known && reader.files() > 0 && bytes.len() >= MAX_WHOLE_BYTES {
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
        if let Some(model) = path_model {
            let sent = bytes.len();
            reader.set_model(&mut bytes, model.trim())?;
            charge.release(sent.saturating_sub(bytes.len()));
            charge.add(bytes.len().saturating_sub(sent))?;
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
