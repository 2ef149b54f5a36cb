//! The state of an answer behind a lock: the client's connection drives the state, and requests about the running chat reach it too, also
//! while the client accepts no bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::state::{BodyError, BodyState};
use crate::running::RunningAnswer;

/// The state of an answer. `None` after the end.
#[derive(Debug)]
pub(super) struct SharedBody(Mutex<Option<Box<BodyState>>>);

impl SharedBody {
    /// Shares a state, and makes the answer reachable by the id of its chat.
    pub(super) fn new(state: BodyState) -> Arc<Self> {
        let running = state.chat.running().cloned();
        let shared = Arc::new(Self(Mutex::new(Some(Box::new(state)))));
        if let Some(running) = running {
            running.set_answer(Arc::downgrade(&shared) as Weak<dyn RunningAnswer>);
        }
        shared
    }

    /// Locks the state. The lock is held for one step of the answer at a time.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Box<BodyState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next chunk for the client.
    pub(super) fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut locked = self.lock();
        let Some(state) = &mut *locked else { return Poll::Ready(None) };
        let chunk = state.poll_chunk(cx);
        if chunk.is_pending() {
            state.wake_later(cx);
        }
        chunk
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
    }
}
