//! The end of an answer before the upstream's end, because its user stops it or a budget is used up: the upstream is let go of, the part that
//! has arrived is recorded, and the client's stream ends as the dialect ends a stream.

use std::task::Context;

use super::state::{AfterEnd, BodyPhase, BodyState, ClientPresence};
use crate::chat::chat_ending::ChatEnding;
use crate::response::early_end::EarlyEnd;

impl BodyState {
    /// Ends the answer, if it is still arriving. The end is recorded in the background, so that a client that accepts no bytes does not
    /// delay it.
    pub(super) fn end_early(&mut self, why: EarlyEnd) {
        if !matches!(self.phase, BodyPhase::Streaming) {
            return;
        }
        if why == EarlyEnd::CutByBudget && self.tap.transcript().is_ended {
            // The answer is complete already.
            return;
        }
        let is_clean = self.tap.finish_early(self.framing.is_event_stream, why);
        let after_end =
            if is_clean && self.client == ClientPresence::Connected { AfterEnd::Close } else { AfterEnd::Abort };
        let (transcript, usage) = self.tap.take_transcript();
        // Closes the connection to the upstream, or resets the stream.
        self.upstream = None;
        let ended = self.chat.end(ChatEnding::Early(why), transcript, usage);
        let running = self.chat.running().cloned();
        let recording = self.chat.drains().spawn(async move {
            let durable = ended.pending.await;
            ended.log_line.log(durable);
            if let Some(running) = running {
                running.mark_ended();
            }
            durable
        });
        self.phase = BodyPhase::Stopping(recording, after_end);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Notes the task that drives the answer, for [`Self::end_early`].
    pub(super) fn wake_later(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}
