//! The rest of an answer whose client has disconnected: cancelled, or drained for the record.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::state::{BodyPhase, BodyState, ClientPresence};
use crate::chat::open_chat::ChatEnding;

impl BodyState {
    /// Handles a disconnect before the end of the answer: starts a drain in the background if the policy and the limits
    /// permit, and cancels the upstream request otherwise.
    pub(super) fn client_disconnected(mut self: Box<Self>) {
        match self.chat.acquire_drain() {
            None => self.cancel_upstream(),
            Some((drain_for, permit)) => {
                self.client = ClientPresence::Disconnected;
                let drains = self.chat.drains().clone();
                let stop = drains.clone();
                drains.spawn(async move { self.drain(drain_for, permit, stop.stopped()).await });
            }
        }
    }

    /// Ends the chat with the part of the answer that has arrived. The upstream's body is dropped together with the state.
    fn cancel_upstream(&mut self) {
        let (transcript, usage) = self.tap.take_transcript();
        self.chat.end(ChatEnding::ClientGone, transcript, usage).detach();
    }

    async fn drain(
        mut self: Box<Self>,
        bound: Duration,
        _permit: OwnedSemaphorePermit,
        stop: impl Future<Output = ()>,
    ) {
        let reading = poll_fn(|cx| {
            while matches!(self.phase, BodyPhase::Streaming) {
                if self.poll_streaming(cx).is_pending() {
                    return Poll::Pending;
                }
                while self.tap.next_chunk().is_some() {}
            }
            Poll::Ready(())
        });
        tokio::select! {
            () = reading => {}
            () = tokio::time::sleep(bound) => {}
            () = stop => {}
        }
        let ended = match std::mem::replace(&mut self.phase, BodyPhase::Ended) {
            BodyPhase::Ending(ended, _) => ended,
            _ => {
                let (mut transcript, usage) = self.tap.take_transcript();
                transcript.note("drain_cut_short");
                self.chat.end(ChatEnding::ClientGone, transcript, usage)
            }
        };
        ended.log_line.log(ended.pending.await);
    }
}
