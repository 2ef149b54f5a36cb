//! The rest of a form or file on the way from the client to the upstream, within the limits on size and time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use crate::request::multipart::MultipartReader;
use crate::upstream::request_body::UploadError;

/// The rest of a form or file. The body ends with an error if the client breaks off, is too slow, or sends too much.
#[derive(Debug)]
pub struct UploadBody {
    client: Body,
    /// The reader of the form that began before; none for a body that is no form.
    form: Option<MultipartReader>,
    progress: Arc<UploadProgress>,
    /// The number of bytes that may still come.
    allowed_bytes: u64,
    /// The maximum silence of the client.
    idle_timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// The upstream waits for the client, and the timer runs.
    is_waiting: bool,
}

/// The progress of an upload, shared with the call.
#[derive(Debug, Default)]
pub struct UploadProgress {
    bytes: AtomicU64,
    failure: AtomicU8,
}

/// The reason why the client's part of an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum UploadFailure {
    /// The body broke off.
    #[error("the client broke off its upload")]
    Broken = 1,
    /// The client sent nothing for too long.
    #[error("the client's upload stood still for too long")]
    TooSlow = 2,
    /// The body is larger than the limit.
    #[error("the client's upload is too large")]
    TooLarge = 3,
    /// The rest of the form is malformed, or names a field again on which the gateway has acted.
    #[error("the client's form is malformed or ambiguous")]
    BadForm = 4,
}

impl UploadBody {
    /// Wraps the rest of a client's body, of which at most `allowed_bytes` may come.
    pub fn new(client: Body, allowed_bytes: u64, idle_timeout: Duration) -> Self {
        let timer = Box::pin(tokio::time::sleep(idle_timeout));
        Self { client, form: None, progress: Arc::default(), allowed_bytes, idle_timeout, timer, is_waiting: false }
    }

    /// Follows the rest of a form, so that a field that would change the meaning of the request is refused wherever it stands.
    pub fn following(self, form: MultipartReader) -> Self {
        Self { form: Some(form), ..self }
    }

    /// The progress of the upload.
    pub(super) fn progress(&self) -> &Arc<UploadProgress> {
        &self.progress
    }

    fn fail(&self, failure: UploadFailure) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.progress.failure.store(failure as u8, Ordering::Relaxed);
        Poll::Ready(Some(Err(failure.into())))
    }
}

impl UploadProgress {
    /// The number of bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn failure(&self) -> Option<UploadFailure> {
        match self.failure.load(Ordering::Relaxed) {
            1 => Some(UploadFailure::Broken),
            2 => Some(UploadFailure::TooSlow),
            3 => Some(UploadFailure::TooLarge),
            4 => Some(UploadFailure::BadForm),
            _ => None,
        }
    }
}

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        loop {
            match Pin::new(&mut self.client).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not part of the body.
                    let Ok(data) = frame.into_data() else { continue };
                    let Some(left) = self.allowed_bytes.checked_sub(data.len() as u64) else {
                        return self.fail(UploadFailure::TooLarge);
                    };
                    if self.form.as_mut().is_some_and(|form| form.push(&data).is_err()) {
                        return self.fail(UploadFailure::BadForm);
                    }
                    self.allowed_bytes = left;
                    self.progress.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                    self.is_waiting = false;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(_))) => return self.fail(UploadFailure::Broken),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    // The time in which the upstream took no bytes is not the client's.
                    if !std::mem::replace(&mut self.is_waiting, true) {
                        let deadline = Instant::now() + self.idle_timeout;
                        self.timer.as_mut().reset(deadline);
                    }
                    if self.timer.as_mut().poll(cx).is_ready() {
                        return self.fail(UploadFailure::TooSlow);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.client.is_end_stream()
    }
}
