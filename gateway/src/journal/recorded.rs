//! The future of an event that was recorded: resolves when the event is durable.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::durability::Durability;
use super::error::JournalError;

/// Resolves when the event is durable.
#[derive(Debug)]
pub struct Recorded {
    pub(super) outcome: Result<oneshot::Receiver<Durability>, Result<Durability, JournalError>>,
    /// It is in the log already.
    pub(super) is_written: bool,
}

impl Recorded {
    pub(super) fn resolved(outcome: Result<Durability, JournalError>) -> Self {
        Self { outcome: Err(outcome), is_written: false }
    }

    /// Whether the event survives this process already, or is not to be recorded at all.
    pub fn is_written(&self) -> bool {
        self.is_written || matches!(self.outcome, Err(Ok(Durability::Disabled)))
    }

    /// Why the event was refused, if that is known already: nothing of it is recorded then.
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
