//! A chat that has ended: the terminal event on the way to durability, and the chat's line in the log.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use shared::event::ConversationOrigin;
use shared::id::{ChatId, ConversationId, UserId};
use tokio::task::JoinHandle;

use crate::journal::{Durability, JournalError, Recorded};
use crate::spans::{CallSpan, EndedCall};

/// A chat that has ended. The terminal event is on the way to durability.
#[derive(Debug)]
pub struct EndedChat {
    /// A future that resolves when the start and the end are durable.
    pub pending: PendingRecord,
    /// The log line to write when `pending` has resolved.
    pub log_line: ChatLogLine,
}

/// A future that resolves when the start and the end of a chat are durable, with the outcome of the end.
#[derive(Debug)]
pub struct PendingRecord {
    /// The pending start. `None` if the start is known to be durable.
    pub(super) start: Option<Recorded>,
    pub(super) end: PendingEnd,
}

/// The terminal event of a chat on the way to durability.
#[derive(Debug)]
pub(super) enum PendingEnd {
    /// The event has been handed to the journal.
    Recorded(Recorded),
    /// A task estimates the usage and then hands the event to the journal, even if this future is dropped.
    Estimating(JoinHandle<Recorded>),
}

/// The single log line of a chat. Contains no prompt, answer, key or token.
#[derive(Debug)]
pub struct ChatLogLine {
    pub(super) chat: ChatId,
    pub(super) conversation: Option<ConversationId>,
    pub(super) origin: Option<ConversationOrigin>,
    pub(super) user: UserId,
    pub(super) model: String,
    pub(super) outcome: &'static str,
    pub(super) status: Option<u16>,
    pub(super) first_token_ms: Option<u64>,
    pub(super) duration_ms: u64,
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) attempts: usize,
    /// The span of the chat, if it belongs to a trace that is kept.
    pub(super) span: Option<Box<CallSpan>>,
}

impl Future for PendingRecord {
    type Output = Result<Durability, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(start) = &mut self.start {
            let durable = ready!(Pin::new(start).poll(cx));
            self.start = None;
            // The end is recorded even without the start: the terminal event also names the user and the outcome.
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
    /// Writes the log line from a background task when the end is durable, so that the caller does not wait.
    pub fn detach(self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { self.log_line.log(self.pending.await) });
        }
    }
}

impl ChatLogLine {
    /// Writes the log line, or an error if the end could not be recorded or is not durable.
    pub fn log(&self, durable: Result<Durability, JournalError>) {
        let Self { chat, user, model, outcome, status, .. } = self;
        let conversation = self.conversation.map(tracing::field::display);
        let conversation_origin = self.origin.map(|origin| match origin {
            ConversationOrigin::Minted => "new",
            known => known.label(),
        });
        if let Some(span) = &self.span {
            span.send(&EndedCall {
                chat: *chat,
                conversation: self.conversation,
                user,
                model,
                outcome,
                durable: durable.as_ref().ok().map(|how| how.as_str()),
            });
        }
        let durable = match durable {
            Ok(how) => {
                if !how.is_durable() {
                    tracing::error!(%chat, %user, durable = how.as_str(), "a chat's end reached the client but is not durable");
                }
                how.as_str()
            }
            Err(error) => {
                tracing::error!(%chat, %user, %error, "a chat's end could not be recorded");
                return;
            }
        };
        tracing::info!(
            %chat, %user, conversation, conversation_origin, model, outcome, status,
            first_token_ms = self.first_token_ms, duration_ms = self.duration_ms,
            prompt_tokens = self.prompt_tokens, completion_tokens = self.completion_tokens,
            attempts = self.attempts, durable, trace_id = self.span.as_ref().map(|span| span.trace_id()), "chat"
        );
    }
}
