//! The body of a call on the way to an upstream: a whole document, or a form or file that streams through.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::call::upload::{UploadBody, UploadFailure, UploadProgress};
use crate::json::edit;
use crate::request::gemini;
use crate::routing::RouteUpstream;
use crate::upstream::request_body::{OutgoingBody, Upload, UploadError};

/// The body of a call.
#[derive(Debug)]
pub enum CallBody {
    /// A whole JSON document.
    Whole(Bytes),
    /// A whole JSON document whose model is named by the path.
    PathModel(Bytes),
    /// A form or another body of which at least the beginning is known.
    Streamed(StreamedBody),
}

/// A body of which at least the beginning is known.
#[derive(Debug)]
pub struct StreamedBody {
    start: Bytes,
    /// The place of the model's name in `start`. `None` if the body is no form, or names no model.
    model: Option<Range<usize>>,
    /// The rest of the body. `None` if `start` is the whole body.
    rest: Option<StreamedRest>,
}

/// The rest of a body, which is still arriving.
struct StreamedRest {
    body: Arc<Mutex<Option<UnsyncBoxBody<Bytes, UploadError>>>>,
    progress: Arc<UploadProgress>,
    /// The length of the rest in bytes, if the client has announced the length.
    length: Option<u64>,
}

impl CallBody {
    /// Returns the body for one upstream, with the upstream's own name for the model.
    pub(super) fn for_upstream(&self, upstream: &RouteUpstream) -> OutgoingBody {
        match (self, &upstream.model) {
            (Self::Whole(body), Some(model)) => edit::with_member(body, "model", &model.as_str().into()).into(),
            (Self::PathModel(body), Some(model)) => gemini::with_model_in_body(body, model).into(),
            (Self::Whole(body) | Self::PathModel(body), None) => body.clone().into(),
            (Self::Streamed(body), model) => body.with_model(model.as_deref()),
        }
    }

    /// Returns the bytes that are known before the call.
    pub(super) fn known_bytes(&self) -> &Bytes {
        match self {
            Self::Whole(body) | Self::PathModel(body) => body,
            Self::Streamed(body) => &body.start,
        }
    }

    /// Returns the length of the body in bytes: the announced length, or else the number of bytes so far.
    pub(super) fn length(&self) -> u64 {
        let known = self.known_bytes().len() as u64;
        match self {
            Self::Streamed(StreamedBody { rest: Some(rest), .. }) => {
                known + rest.length.unwrap_or_else(|| rest.progress.bytes())
            }
            _ => known,
        }
    }

    /// Returns the reason why the client's part of the exchange failed, if it did.
    pub(super) fn failure(&self) -> Option<UploadFailure> {
        match self {
            Self::Streamed(StreamedBody { rest: Some(rest), .. }) => rest.progress.failure(),
            _ => None,
        }
    }
}

impl StreamedBody {
    /// Makes a body that is known as a whole.
    pub fn whole(bytes: Bytes, model: Option<Range<usize>>) -> Self {
        Self { start: bytes, model, rest: None }
    }

    /// Makes a body whose rest is still arriving.
    pub fn arriving(start: Bytes, model: Option<Range<usize>>, rest: UploadBody, rest_length: Option<u64>) -> Self {
        let progress = Arc::clone(rest.progress());
        let body = Arc::new(Mutex::new(Some(UnsyncBoxBody::new(rest))));
        Self { start, model, rest: Some(StreamedRest { body, progress, length: rest_length }) }
    }

    /// The body with another name of the model. A body that names no model stays as it is.
    fn with_model(&self, model: Option<&str>) -> OutgoingBody {
        let start = match (model, &self.model) {
            (Some(model), Some(range)) => {
                [&self.start[..range.start], model.as_bytes(), &self.start[range.end..]].concat().into()
            }
            _ => self.start.clone(),
        };
        match &self.rest {
            None => start.into(),
            Some(rest) => {
                OutgoingBody::Upload(Upload { start, rest: Arc::clone(&rest.body), rest_length: rest.length })
            }
        }
    }
}

impl std::fmt::Debug for StreamedRest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamedRest").field("length", &self.length).finish_non_exhaustive()
    }
}
