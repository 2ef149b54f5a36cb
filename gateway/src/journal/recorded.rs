//! The result of recording an event: a future that resolves when the event is durable.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::durability::Durability;
use super::error::JournalError;

/// A future that resolves when the event is as durable as the configured level demands, or to the reason of a refusal.
/// An event stays recorded if the future is dropped.
#[derive(Debug)]
pub struct Recorded {
    outcome: Outcome,
    /// Receives a value when the event is in the log. `None` if the event is known to be in the log, or if `outcome`
    /// resolves no later.
    written: Option<oneshot::Receiver<()>>,
    /// True if the journal may refuse the event later, because room for it has to be found on the disk.
    may_be_refused: bool,
}

#[derive(Debug)]
enum Outcome {
    Known(Result<Durability, JournalError>),
    Pending(oneshot::Receiver<Result<Durability, JournalError>>),
}

impl Recorded {
    pub(super) fn resolved(outcome: Result<Durability, JournalError>) -> Self {
        Self { outcome: Outcome::Known(outcome), written: None, may_be_refused: false }
    }

    pub(super) fn pending(
        outcome: oneshot::Receiver<Result<Durability, JournalError>>,
        written: Option<oneshot::Receiver<()>>,
        may_be_refused: bool,
    ) -> Self {
        Self { outcome: Outcome::Pending(outcome), written, may_be_refused }
    }

    /// Waits until the event is in the log, and so survives the death of the process, or is durable otherwise. Returns the
    /// reason of a refusal.
    pub async fn written(&mut self) -> Result<(), JournalError> {
        poll_fn(|cx| self.poll_written(cx)).await
    }

    /// Waits until the journal has accepted the event, and returns the reason of a refusal. Does not wait for the disk if
    /// room has been found before.
    pub async fn accepted(&mut self) -> Result<(), JournalError> {
        match self.outcome {
            Outcome::Known(outcome) => outcome.map(drop),
            Outcome::Pending(_) if self.may_be_refused => self.written().await,
            Outcome::Pending(_) => Ok(()),
        }
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), JournalError>> {
        if let Some(written) = &mut self.written
            && let Poll::Ready(received) = Pin::new(written).poll(cx)
        {
            self.written = None;
            if received.is_ok() {
                self.may_be_refused = false;
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_outcome(cx).map(|outcome| outcome.map(drop))
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<Durability, JournalError>> {
        let outcome = match &mut self.outcome {
            Outcome::Known(outcome) => *outcome,
            Outcome::Pending(pending) => ready!(Pin::new(pending).poll(cx)).unwrap_or(Err(JournalError::Closed)),
        };
        self.outcome = Outcome::Known(outcome);
        Poll::Ready(outcome)
    }
}

impl Future for Recorded {
    type Output = Result<Durability, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_outcome(cx)
    }
}
