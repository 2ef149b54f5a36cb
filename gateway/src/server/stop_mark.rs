//! The mark of a gateway that was told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The mark that is set when the gateway is told to stop. Until the listener closes, readiness is then 503, and every answer
/// asks the client to close the connection.
#[derive(Clone, Debug, Default)]
pub struct StopMark(Arc<AtomicBool>);

impl StopMark {
    /// Sets the mark for good.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns true if the mark is set.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
