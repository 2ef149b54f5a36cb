//! The state of an answer behind a lock: the client's connection drives the state, and requests about the running chat reach it too, also
//! while the client accepts no bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::state::{BodyError, BodyPhase, BodyState};
use crate::response::answer_piece::{Lengths, Piece};
use crate::response::early_end::EarlyEnd;
use crate::running::{RunningAnswer, RunningChat};

/// The state of an answer. `None` after the end.
#[derive(Debug)]
pub(super) struct SharedBody {
    /// In the same allocation as its lock, so that a chunk touches no further memory.
    state: Mutex<Option<BodyState>>,
    /// The entry among the running chats. `None` for a call that is no chat.
    running: Option<Arc<RunningChat>>,
}

impl SharedBody {
    /// Shares a state, and makes the answer reachable by the id of its chat.
    pub(super) fn new(state: BodyState) -> Arc<Self> {
        let running = state.chat.running().cloned();
        let shared = Arc::new(Self { state: Mutex::new(Some(state)), running });
        if let Some(running) = &shared.running {
            running.set_answer(Arc::downgrade(&shared) as Weak<dyn RunningAnswer>);
        }
        shared
    }

    /// Locks the state. The lock is held for one step of the answer at a time.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<BodyState>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next chunk for the client. `is_at_end` is set when the body is complete and every chunk has been handed out.
    pub(super) fn poll_chunk(
        &self,
        cx: &mut Context<'_>,
        is_at_end: &mut bool,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut locked = self.lock();
        let Some(state) = &mut *locked else { return Poll::Ready(None) };
        let chunk = state.poll_chunk(cx);
        if chunk.is_pending() {
            state.wake_later(cx);
        }
        *is_at_end = state.is_end_stream();
        let was_read = state.was_read;
        drop(locked);
        if was_read {
            self.tell_followers();
        }
        chunk
    }

    /// True if another connection follows the answer.
    pub(super) fn is_followed(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_followed())
    }

    /// Tells the followers of the answer that there may be news.
    pub(super) fn tell_followers(&self) {
        if let Some(running) = &self.running {
            running.tell_followers();
        }
    }
}

impl RunningAnswer for SharedBody {
    fn end_early(self: Arc<Self>, why: EarlyEnd) {
        if let Some(state) = &mut *self.lock() {
            state.end_early(why);
        }
        self.tell_followers();
    }

    fn read(&self, have: &Lengths) -> Option<Piece> {
        let mut locked = self.lock();
        let state = locked.as_mut().filter(|state| matches!(state.phase, BodyPhase::Streaming))?;
        state.was_read = true;
        Some(Piece::after(have, state.tap.transcript()))
    }
}
