//! The result of recording an event: a future that resolves when the event is durable.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::durability::Durability;
use super::error::JournalError;

/// A future that resolves when the event is as durable as the configured level demands, or to the reason of a refusal.
/// An event stays recorded if the future is dropped.
#[derive(Debug)]
pub struct Recorded {
    pub(super) outcome: Result<oneshot::Receiver<Durability>, Result<Durability, JournalError>>,
    /// True if the event was in the log when the journal returned the future.
    pub(super) is_written: bool,
}

impl Recorded {
    pub(super) fn resolved(outcome: Result<Durability, JournalError>) -> Self {
        Self { outcome: Err(outcome), is_written: false }
    }

    /// Returns true if the event survives the death of the process already, or if recording is disabled.
    pub fn is_written(&self) -> bool {
        self.is_written || matches!(self.outcome, Err(Ok(Durability::Disabled)))
    }

    /// Returns the reason if the journal has refused the event, and `None` if the event was accepted.
    pub fn refusal(&self) -> Option<JournalError> {
        match &self.outcome {
            Err(Err(refusal)) => Some(*refusal),
            _ => None,
        }
    }
}

impl Future for Recorded {
    type Output = Result<Durability, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.outcome {
            Ok(recorded) => ready!(Pin::new(recorded).poll(cx)).map_err(|_| JournalError::Closed),
            Err(known) => *known,
        })
    }
}
