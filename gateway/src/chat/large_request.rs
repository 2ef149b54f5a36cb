//! Turns for large requests. Reading and recording a request of megabytes takes a thread for up to a second and holds
//! copies of the messages, so that few large requests do this at once, and off the threads that serve streams.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::block_in_place;

/// The size of a body from which a request is large, in bytes. A smaller request is read in some milliseconds.
const LARGE_BYTES: usize = 1 << 20;

/// One permit for each large request that may be read and recorded at once.
static TURNS: Semaphore = Semaphore::const_new(4);

/// The turn of a request. Held until the start of the chat is in the journal.
#[derive(Debug)]
pub struct Turn(Option<SemaphorePermit<'static>>);

impl Turn {
    /// Waits for the turn of a request with a body of this size. A request that is not large does not wait.
    pub async fn of(body_bytes: usize) -> Self {
        // The semaphore is never closed.
        Self(if body_bytes < LARGE_BYTES { None } else { TURNS.acquire().await.ok() })
    }

    /// Does a step of the request. The step of a large request does not keep other tasks of the thread waiting.
    pub fn run<T>(&self, step: impl FnOnce() -> T) -> T {
        if self.0.is_some() { block_in_place(step) } else { step() }
    }
}
