//! What becomes of an answer whose client has left: nothing more, or it is read on for the record.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::state::{Client, Course, State};
use crate::chat::open_chat::Ending;

impl Course {
    /// The client has left before the end.
    pub(super) fn left(mut self: Box<Self>) {
        match self.chat.place_to_drain() {
            None => self.let_go(),
            Some((drain_for, place)) => {
                self.client = Client::HasLeft;
                let drains = self.chat.drains().clone();
                let stop = drains.clone();
                drains.spawn(async move { self.drain(drain_for, place, stop.stopped()).await });
            }
        }
    }

    /// What has come is all there will be.
    fn let_go(&mut self) {
        let (transcript, usage) = self.tap.take_transcript();
        self.chat.end(Ending::ClientGone, transcript, usage).detach();
    }

    async fn drain(mut self: Box<Self>, bound: Duration, _place: OwnedSemaphorePermit, stop: impl Future<Output = ()>) {
        let reading = poll_fn(|cx| {
            while matches!(self.state, State::Streaming) {
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
        let ended = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ending(ended, _) => ended,
            _ => {
                let (mut transcript, usage) = self.tap.take_transcript();
                transcript.note("drain_cut_short");
                self.chat.end(Ending::ClientGone, transcript, usage)
            }
        };
        ended.line.log(ended.recorded.await);
    }
}
