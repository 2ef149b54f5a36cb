//! The body of an answer on the way to the client. The upstream's bytes pass through the tap, the end is held back until
//! the chat's end is durable, and a failure of the upstream breaks the client's connection too.

mod coalescer;
mod drain;
mod early_end;
mod keep_alive_comments;
mod shared_body;
mod state;
mod timeouts;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use self::shared_body::SharedBody;
use self::state::BodyState;
use crate::chat::open_chat::OpenChat;
use crate::limits::Limits;
use crate::response::redaction::Redactor;
use crate::response::tap::Tap;
use crate::upstream::body::UpstreamBody;
use crate::upstream::endpoint::Upstream;

pub use self::state::{BodyError, BodyFraming};

/// The body of an answer. Dropping the body before the end means that the client has disconnected.
#[derive(Debug)]
pub struct ResponseBody {
    shared: Arc<SharedBody>,
    /// True after the last chunk has been handed out.
    is_at_end: bool,
}

impl ResponseBody {
    /// Creates the body of the answer to `chat`. The redactor is for an error within the answer. `probed` is the upstream that learns,
    /// at a good end of the answer, if the answer has usage that nobody asked for.
    pub fn new(
        upstream: UpstreamBody,
        tap: Tap,
        chat: OpenChat,
        framing: BodyFraming,
        (limits, redactor): (&Limits, Arc<Redactor>),
        probed: Option<Arc<Upstream>>,
    ) -> Self {
        let mut state = BodyState::new(upstream, tap, chat, framing, (limits, redactor));
        state.usage_probe = probed;
        Self { shared: SharedBody::new(state), is_at_end: false }
    }

    /// Reads the whole body and waits until the chat's end is durable. Used for answers whose head announces an empty body:
    /// the server does not poll the body of such a response, so the chat's end would be neither noticed nor waited for.
    pub async fn collect(mut self) -> Result<Vec<u8>, BodyError> {
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            if let Ok(chunk) = frame?.into_data() {
                whole.extend_from_slice(&chunk);
            }
        }
        Ok(whole)
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let chunk = this.shared.poll_chunk(cx, &mut this.is_at_end);
        chunk.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    /// Returns true as soon as the last chunk has been handed out, so that the server writes the end together with that
    /// chunk.
    fn is_end_stream(&self) -> bool {
        self.is_at_end
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        SharedBody::client_disconnected(&self.shared);
    }
}
