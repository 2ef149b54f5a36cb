//! The state of an answer behind a lock: the client's connection drives the state, and requests about the running chat reach it too, also
//! while the client accepts no bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::state::{BodyError, BodyPhase, BodyState};
use crate::response::answer_piece::{Lengths, Piece};
use crate::running::{RunningAnswer, RunningChat};

/// The state of an answer. `None` after the end.
#[derive(Debug)]
pub(super) struct SharedBody {
    state: Mutex<Option<Box<BodyState>>>,
    /// The entry among the running chats. `None` for a call that is no chat.
    running: Option<Arc<RunningChat>>,
}

impl SharedBody {
    /// Shares a state, and makes the answer reachable by the id of its chat.
    pub(super) fn new(state: BodyState) -> Arc<Self> {
        let running = state.chat.running().cloned();
        let shared = Arc::new(Self { state: Mutex::new(Some(Box::new(state))), running });
        if let Some(running) = &shared.running {
            running.set_answer(Arc::downgrade(&shared) as Weak<dyn RunningAnswer>);
        }
        shared
    }

    /// Locks the state. The lock is held for one step of the answer at a time.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Box<BodyState>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next chunk for the client.
    pub(super) fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut locked = self.lock();
        let Some(state) = &mut *locked else { return Poll::Ready(None) };
        let chunk = state.poll_chunk(cx);
        if chunk.is_pending() {
            state.wake_later(cx);
        }
        drop(locked);
        self.tell_followers();
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

    /// Returns true if the body is complete and every chunk has been handed out.
    pub(super) fn is_end_stream(&self) -> bool {
        self.lock().as_ref().is_none_or(|state| state.is_end_stream())
    }
}

impl RunningAnswer for SharedBody {
    fn stop(self: Arc<Self>) {
        if let Some(state) = &mut *self.lock() {
            state.stop();
        }
        self.tell_followers();
    }

    fn read(&self, have: &Lengths) -> Option<Piece> {
        let locked = self.lock();
        let state = locked.as_ref().filter(|state| matches!(state.phase, BodyPhase::Streaming))?;
        Some(Piece::after(have, state.tap.transcript()))
    }
}
