//! The body of a request to an upstream: bytes that can be sent again, or an upload that streams through once.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};

/// The error of an upload: the client's part of the exchange failed.
pub type UploadError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request before it is sent.
#[derive(Clone, Debug)]
pub enum OutgoingBody {
    /// The whole body.
    Whole(Bytes),
    /// A body whose rest is still arriving from the client.
    Upload(Upload),
}

/// A body whose beginning is known and whose rest is still arriving. The rest can be sent once.
#[derive(Clone)]
pub struct Upload {
    /// The beginning of the body.
    pub start: Bytes,
    /// The rest of the body, until it is sent.
    pub rest: Arc<Mutex<Option<UnsyncBoxBody<Bytes, UploadError>>>>,
    /// The length of the rest in bytes, if the client has announced the length.
    pub rest_length: Option<u64>,
}

/// The body of a request that is being sent.
#[derive(Debug)]
pub(super) enum RequestBody {
    Whole(Full<Bytes>),
    Upload(UploadInProgress),
}

/// An upload that is being sent.
pub(super) struct UploadInProgress {
    start: Option<Bytes>,
    rest: UnsyncBoxBody<Bytes, UploadError>,
    /// The number of bytes that are left, if the client has announced the length.
    left: Option<u64>,
}

impl From<Bytes> for OutgoingBody {
    fn from(body: Bytes) -> Self {
        Self::Whole(body)
    }
}

impl OutgoingBody {
    /// Returns true if the body can be sent, or sent again.
    pub fn is_available(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Upload(upload) => upload.rest.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }

    /// Returns true if the body can be sent again after an attempt.
    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// Takes the body for one attempt. An upload that has been sent already is empty.
    pub(super) fn take(&self) -> RequestBody {
        match self {
            Self::Whole(bytes) => RequestBody::Whole(Full::new(bytes.clone())),
            Self::Upload(upload) => {
                let rest = upload.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
                match rest {
                    Some(rest) => RequestBody::Upload(UploadInProgress {
                        left: upload.rest_length.map(|rest| rest + upload.start.len() as u64),
                        start: Some(upload.start.clone()).filter(|start| !start.is_empty()),
                        rest,
                    }),
                    None => RequestBody::Whole(Full::default()),
                }
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Upload(upload) => upload.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Upload(upload) => upload.start.is_none() && upload.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Upload(upload) => upload.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl UploadInProgress {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let frame = match self.start.take() {
            Some(start) => Poll::Ready(Some(Ok(Frame::data(start)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let (Some(left), Some(data)) = (&mut self.left, frame.data_ref())
        {
            *left = left.saturating_sub(data.len() as u64);
        }
        frame
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("rest_length", &self.rest_length).finish_non_exhaustive()
    }
}

impl fmt::Debug for UploadInProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadInProgress").field("left", &self.left).finish_non_exhaustive()
    }
}
