//! The rest of an answer whose client has disconnected: cancelled, or drained for the record.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::shared_body::SharedBody;
use super::state::{BodyPhase, BodyState, ClientPresence};
use crate::chat::chat_ending::ChatEnding;

/// The interval between two looks if an answer is still followed, after the time of its drain is over.
const FOLLOWED_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl BodyState {
    /// Ends the chat with the part of the answer that has arrived. The upstream's body is dropped together with the state.
    pub(super) fn cancel_upstream(&mut self) {
        if self.is_unended() && self.chat.hand_over() {
            return;
        }
        let (transcript, usage) = self.tap.take_transcript();
        self.chat.end(ChatEnding::ClientGone, transcript, usage).detach();
    }
}

impl SharedBody {
    /// Handles the end of the client's interest. Before the end of the answer: starts a drain in the background if the policy and the
    /// limits permit, and cancels the upstream request otherwise.
    pub(super) fn client_disconnected(this: &Arc<Self>) {
        let mut locked = this.lock();
        if let Some(state) = &mut *locked
            && matches!(state.phase, BodyPhase::Streaming)
            && let Some((drain_for, permit)) = state.chat.acquire_drain()
        {
            state.client = ClientPresence::Disconnected;
            let drains = state.chat.drains().clone();
            drop(locked);
            let (shared, stop) = (Arc::clone(this), drains.clone());
            drains.spawn(async move { drain(&shared, drain_for, permit, stop.stopped()).await });
            return;
        }
        let Some(mut state) = locked.take() else { return };
        drop(locked);
        match std::mem::replace(&mut state.phase, BodyPhase::Ended) {
            BodyPhase::Streaming => state.cancel_upstream(),
            BodyPhase::Ending(ended, _) => ended.detach(),
            BodyPhase::Stopping(..) | BodyPhase::Trailing | BodyPhase::Aborting(..) | BodyPhase::Ended => {}
        }
    }
}

/// Reads the rest of an answer for the record, until `stop` resolves, and for `bound` at most unless another connection follows the answer.
pub(super) async fn drain(
    shared: &SharedBody,
    bound: Duration,
    _permit: OwnedSemaphorePermit,
    stop: impl Future<Output = ()>,
) {
    let reading = poll_fn(|cx| {
        let mut locked = shared.lock();
        let Some(state) = &mut *locked else { return Poll::Ready(()) };
        while matches!(state.phase, BodyPhase::Streaming) {
            if state.poll_streaming(cx).is_pending() {
                state.wake_later(cx);
                drop(locked);
                shared.tell_followers();
                return Poll::Pending;
            }
            while state.tap.next_chunk().is_some() {}
        }
        drop(locked);
        shared.tell_followers();
        Poll::Ready(())
    });
    tokio::select! {
        () = reading => {}
        () = time_is_up(shared, bound) => {}
        () = stop => {}
    }
    let Some(mut state) = shared.lock().take().map(Box::new) else { return };
    let ended = match std::mem::replace(&mut state.phase, BodyPhase::Ended) {
        BodyPhase::Ending(ended, _) => ended,
        // The task of the stop records the end, and is waited for when the gateway stops.
        BodyPhase::Stopping(..) => return,
        _ if state.chat.is_ended() || (state.is_unended() && state.chat.hand_over()) => return,
        _ => {
            let (mut transcript, usage) = state.tap.take_transcript();
            transcript.note("drain_cut_short");
            state.chat.end(ChatEnding::ClientGone, transcript, usage)
        }
    };
    ended.log_line.log(ended.pending.await);
}

/// Resolves when the time of a drain is over and nobody follows the answer. The timeouts of the upstream hold for a followed answer too.
async fn time_is_up(shared: &SharedBody, bound: Duration) {
    tokio::time::sleep(bound).await;
    while shared.is_followed() {
        tokio::time::sleep(FOLLOWED_CHECK_INTERVAL).await;
    }
}
