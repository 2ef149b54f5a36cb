//! A chat that has ended, on its way to the record, and its one line in the log.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use shared::event::ConversationOrigin;
use shared::id::{ChatId, ConversationId, UserId};
use tokio::task::JoinHandle;

use crate::journal::{Durability, JournalError, Recorded};

/// A chat that has ended: its terminal event is on its way.
#[derive(Debug)]
pub struct EndedChat {
    /// Resolves when the start and the end are durable.
    pub pending: PendingRecord,
    /// What is to be logged then.
    pub log_line: ChatLogLine,
}

/// A chat that has ended on its way to the record.
#[derive(Debug)]
pub struct PendingRecord {
    /// The start, unless it is known to be durable.
    pub(super) start: Option<Recorded>,
    pub(super) end: PendingEnd,
}

/// The end of a chat on its way to the record.
#[derive(Debug)]
pub(super) enum PendingEnd {
    /// The journal has it.
    Recorded(Recorded),
    /// Its usage is estimated first, by a task of its own, which hands it over whoever waits.
    Estimating(JoinHandle<Recorded>),
}

/// The one line in the log about a chat. No text, no secret.
#[derive(Debug)]
pub struct ChatLogLine {
    pub(super) chat: ChatId,
    pub(super) conversation: ConversationId,
    pub(super) origin: ConversationOrigin,
    pub(super) user: UserId,
    pub(super) model: String,
    pub(super) outcome: &'static str,
    pub(super) status: Option<u16>,
    pub(super) first_token_ms: Option<u64>,
    pub(super) duration_ms: u64,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) attempts: usize,
}

impl Future for PendingRecord {
    type Output = Result<Durability, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(start) = &mut self.start {
            let durable = ready!(Pin::new(start).poll(cx));
            self.start = None;
            // The end says who it was, and what came of it: it goes to the record whatever became of the start.
            if let Err(error) = durable {
                tracing::error!(%error, "a chat's start could not be made durable");
            }
        }
        Pin::new(&mut self.end).poll(cx)
    }
}

impl Future for PendingEnd {
    type Output = Result<Durability, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Self::Estimating(task) = &mut *self {
            match ready!(Pin::new(task).poll(cx)) {
                Ok(recorded) => *self = Self::Recorded(recorded),
                Err(_) => return Poll::Ready(Err(JournalError::Closed)),
            }
        }
        match &mut *self {
            Self::Recorded(recorded) => Pin::new(recorded).poll(cx),
            Self::Estimating(_) => Poll::Pending,
        }
    }
}

impl EndedChat {
    /// Nobody waits for the end to be durable; it is logged when it is.
    pub fn detach(self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { self.log_line.log(self.pending.await) });
        }
    }
}

impl ChatLogLine {
    /// Writes the line.
    pub fn log(&self, durable: Result<Durability, JournalError>) {
        let Self { chat, conversation, user, model, outcome, status, .. } = self;
        let conversation_origin = match self.origin {
            ConversationOrigin::Minted => "new",
            ConversationOrigin::Given => "given",
            ConversationOrigin::Derived => "derived",
        };
        let durable = match durable {
            Ok(how) => {
                if !how.is_durable() {
                    tracing::error!(%chat, %user, durable = how.as_str(), "a chat's end was seen and is not durable");
                }
                how.as_str()
            }
            Err(error) => {
                tracing::error!(%chat, %user, %error, "a chat's end could not be recorded");
                return;
            }
        };
        tracing::info!(
            %chat, %user, %conversation, conversation_origin, model, outcome, status,
            first_token_ms = self.first_token_ms, duration_ms = self.duration_ms,
            prompt_tokens = self.prompt_tokens, completion_tokens = self.completion_tokens,
            attempts = self.attempts, durable, "chat"
        );
    }
}
