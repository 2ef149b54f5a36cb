//! The answer's body on its way to the client: the upstream's bytes through the tap, the end held back until the chat's end
//! is durable, and the connection broken where the upstream broke it.

mod coalescer;
mod drain;
mod keep_alive_comments;
mod state;
mod timeouts;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use self::state::{BodyPhase, BodyState};
use crate::chat::open_chat::OpenChat;
use crate::limits::Limits;
use crate::response::tap::Tap;
use crate::upstream::body::UpstreamBody;

pub use self::state::{BodyError, BodyFraming};

/// The body of an answer. Dropped before the end, the client has left.
#[derive(Debug)]
pub struct ResponseBody(Option<Box<BodyState>>);

impl ResponseBody {
    /// The answer to this chat.
    pub fn new(upstream: UpstreamBody, tap: Tap, chat: OpenChat, framing: BodyFraming, limits: &Limits) -> Self {
        Self(Some(Box::new(BodyState::new(upstream, tap, chat, framing, limits))))
    }

    /// All of it, when its end is as durable as the end of any. For an answer whose head says that nothing follows: a server
    /// does not ask for the body of such a response, so nobody would see its end come, nor wait for it.
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
        match &mut self.get_mut().0 {
            Some(state) => state.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
            None => Poll::Ready(None),
        }
    }

    /// So the end is written together with what comes before it.
    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|state| state.is_end_stream())
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let Some(mut state) = self.0.take() else { return };
        match std::mem::replace(&mut state.phase, BodyPhase::Ended) {
            BodyPhase::Streaming => {
                state.phase = BodyPhase::Streaming;
                state.client_disconnected();
            }
            BodyPhase::Ending(ended, _) => ended.detach(),
            BodyPhase::Trailing | BodyPhase::Aborting(..) | BodyPhase::Ended => {}
        }
    }
}
