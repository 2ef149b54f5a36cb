//! The state machine of an answer in progress: upstream bytes pass through the tap, the end is held back until the chat's
//! end is durable, and then the body ends, breaks off, or passes trailing bytes.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use shared::event::{ChatError, FailureStage};
use shared::usage::UsageSource;
use tokio::task::JoinHandle;

use super::coalescer::Coalescer;
use super::keep_alive_comments::KeepAliveComments;
use super::timeouts::{TOTAL_TIMEOUT, Timeouts};
use crate::chat::chat_ending::ChatEnding;
use crate::chat::ended_chat::EndedChat;
use crate::chat::open_chat::OpenChat;
use crate::journal::{Durability, JournalError};
use crate::limits::Limits;
use crate::response::dialect;
use crate::response::early_end::EarlyEnd;
use crate::response::redaction::Redactor;
use crate::response::tap::{FeedStatus, Tap};
use crate::upstream::body::UpstreamBody;
use crate::upstream::endpoint::Upstream;

/// The size in bytes at which a chunk goes to the client without reading more from the upstream first.
const MAX_CHUNK_BYTES: usize = 64 << 10;

const TOOK_TOO_LONG: &str = "the answer took too long";

/// An answer in progress, with all parts that the state machine drives.
#[derive(Debug)]
pub(super) struct BodyState {
    /// The upstream's body. `None` after the gateway has ended the answer itself.
    pub(super) upstream: Option<UpstreamBody>,
    pub(super) tap: Tap,
    pub(super) chat: OpenChat,
    pub(super) framing: BodyFraming,
    pub(super) client: ClientPresence,
    pub(super) phase: BodyPhase,
    timeouts: Timeouts,
    keep_alive_comments: Option<KeepAliveComments>,
    coalescer: Coalescer,
    /// Redacts an error with which the answer ends.
    redactor: Arc<Redactor>,
    /// The upstream that was not asked for usage, to learn if it reports usage by itself.
    pub(super) usage_probe: Option<Arc<Upstream>>,
    /// Another connection has read the answer, and may wait for news.
    pub(super) was_read: bool,
    /// Wakes the task that drives the answer.
    pub(super) waker: Option<Waker>,
}

/// The presence of the client that asked for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientPresence {
    /// The client reads the answer.
    Connected,
    /// The client has disconnected, and the answer is drained for the record alone.
    Disconnected,
}

/// Facts about the body from the head of the upstream's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFraming {
    /// The HTTP status of the upstream's response.
    pub status: u16,
    /// Only the end of the connection marks the end of the body, so that a broken connection looks like an end.
    pub ends_with_connection: bool,
    /// The client receives an event stream, so keep-alive comments are possible.
    pub is_event_stream: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "each answer has one phase, in a state that is boxed already")]
pub(super) enum BodyPhase {
    /// The upstream is sending the answer.
    Streaming,
    /// The end is being recorded. The second field says how the body goes on when the end is durable.
    Ending(EndedChat, AfterEnd),
    /// The gateway has ended the answer itself, and a task records the end. The second field says how the body goes on.
    Stopping(JoinHandle<Result<Durability, JournalError>>, AfterEnd),
    /// The end is recorded and has been released to the client. Later bytes of the upstream pass unread.
    Trailing,
    /// The body breaks off with an error, after the chunks before the error have been written.
    Aborting(BodyError, Flushed),
    /// The body is complete. No chunk follows after those that are ready.
    Ended,
}

/// The write state of the chunks before an error. An error makes the server drop all chunks that are not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    No,
    Yes,
}

/// The result of one step of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepResult {
    Progressed,
    /// No further step is possible.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterEnd {
    /// The upstream has not closed the body yet, so trailing bytes may pass.
    PassTrailing,
    /// The body ends cleanly: the upstream has closed the body, or the client has received the failure as an event.
    Close,
    /// The body breaks off like the upstream's, because a clean end would look like success to every client.
    Abort,
}

/// The reason why a body broke off. The client sees a broken connection; hyper does not log the error.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's answer failed, or the user stopped an answer that cannot be ended cleanly. The end is recorded.
    #[error("the answer broke off")]
    Upstream,
    /// The answer has reached the total timeout. The failure is recorded, and the client's connection is to be reset: a slow
    /// client would leave megabytes in the kernel.
    #[error("the answer took longer than the total timeout")]
    TotalTimeout,
    /// The chat's end could not be recorded, so the client must not see the end.
    #[error("the end of the chat could not be recorded")]
    Unrecorded,
}

impl BodyState {
    /// Creates the state before the first byte of the answer.
    pub(super) fn new(
        upstream: UpstreamBody,
        tap: Tap,
        chat: OpenChat,
        framing: BodyFraming,
        (limits, redactor): (&Limits, Arc<Redactor>),
    ) -> Self {
        let interval = limits.keep_alive_comments.filter(|_| framing.is_event_stream);
        Self {
            upstream: Some(upstream),
            tap,
            chat,
            framing,
            client: ClientPresence::Connected,
            phase: BodyPhase::Streaming,
            timeouts: Timeouts::new(limits),
            keep_alive_comments: interval.map(KeepAliveComments::new),
            coalescer: Coalescer::default(),
            redactor,
            usage_probe: None,
            was_read: false,
            waker: None,
        }
    }

    /// Returns true if the body is complete and every chunk has been handed out.
    pub(super) fn is_end_stream(&self) -> bool {
        matches!(self.phase, BodyPhase::Ended) && self.coalescer.bytes() == 0
    }

    pub(super) fn poll_streaming(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(upstream) = &mut self.upstream else { return Poll::Pending };
        match upstream.poll_chunk(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                self.timeouts.record_activity();
                if !self.chat.is_recorded() && !self.tap.is_translated() {
                    self.tap.forward_unread(chunk);
                    return Poll::Ready(());
                }
                let fed = self.tap.feed(chunk);
                self.chat.observe_answer(self.tap.transcript());
                if fed == FeedStatus::End {
                    self.end(AfterEnd::PassTrailing, None);
                } else if self.chat.is_over_budget(self.tap.transcript()) {
                    self.end_early(EarlyEnd::CutByBudget);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                let failure = ChatError::new("upstream_broken", &format!("the answer broke off: {error}"));
                self.end(AfterEnd::Abort, Some(failure));
            }
            Poll::Ready(None) => {
                self.tap.finish();
                let is_cut_off = self.framing.ends_with_connection
                    && self.framing.status < 300
                    && !self.tap.transcript().is_ended
                    && !self.tap.is_whole_document();
                if is_cut_off {
                    self.end(
                        AfterEnd::Abort,
                        Some(ChatError::new("upstream_broken", "the connection ended before the answer did")),
                    );
                } else {
                    self.end(AfterEnd::Close, None);
                }
            }
            Poll::Pending => {
                let timeout = ready!(self.timeouts.poll_expired(cx));
                self.end(AfterEnd::Abort, Some(ChatError::new(timeout, TOOK_TOO_LONG)));
            }
        }
        Poll::Ready(())
    }

    /// Advances by at most one chunk or one wait.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<StepResult> {
        match &mut self.phase {
            BodyPhase::Streaming => ready!(self.poll_streaming(cx)),
            BodyPhase::Ending(ended, after_end) => {
                let durable = ready!(pin!(&mut ended.pending).poll(cx));
                ended.log_line.log(durable);
                let after_end = *after_end;
                self.go_on_after_end(durable.is_ok(), after_end);
            }
            BodyPhase::Stopping(recording, after_end) => {
                let durable = ready!(Pin::new(recording).poll(cx));
                let after_end = *after_end;
                self.go_on_after_end(durable.is_ok_and(|durable| durable.is_ok()), after_end);
            }
            BodyPhase::Trailing => match self.upstream.as_mut().map_or(Poll::Ready(None), |body| body.poll_chunk(cx)) {
                Poll::Ready(Some(Ok(chunk))) => self.tap.forward_unread(chunk),
                // The answer is complete and recorded, so an error of the connection changes nothing.
                Poll::Ready(Some(Err(_)) | None) => self.phase = BodyPhase::Ended,
                Poll::Pending => {
                    ready!(self.timeouts.poll_expired(cx));
                    self.phase = BodyPhase::Ended;
                }
            },
            BodyPhase::Aborting(..) | BodyPhase::Ended => return Poll::Ready(StepResult::Finished),
        }
        Poll::Ready(StepResult::Progressed)
    }

    /// Goes on after the end was recorded, or could not be recorded.
    fn go_on_after_end(&mut self, is_recorded: bool, after_end: AfterEnd) {
        self.phase = match (is_recorded, after_end) {
            (false, _) => BodyPhase::Aborting(BodyError::Unrecorded, Flushed::No),
            (true, AfterEnd::Abort) if self.timeouts.is_total_exceeded() => {
                BodyPhase::Aborting(BodyError::TotalTimeout, Flushed::No)
            }
            (true, AfterEnd::Abort) => BodyPhase::Aborting(BodyError::Upstream, Flushed::No),
            (true, AfterEnd::PassTrailing) => BodyPhase::Trailing,
            (true, AfterEnd::Close) => BodyPhase::Ended,
        };
        if !matches!(self.phase, BodyPhase::Aborting(..)) {
            self.tap.release();
        }
    }

    /// Returns the end of the body after the last chunk: `None` or the error. An error is delayed by one poll, so that the
    /// server writes earlier chunks first.
    fn poll_end<T>(&mut self, cx: &Context<'_>) -> Poll<Option<Result<T, BodyError>>> {
        match &mut self.phase {
            BodyPhase::Aborting(_, flushed @ Flushed::No) => {
                *flushed = Flushed::Yes;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            BodyPhase::Aborting(error, Flushed::Yes) => Poll::Ready(Some(Err(*error))),
            _ => Poll::Ready(None),
        }
    }

    /// True if the upstream has not said how the answer ends.
    pub(super) fn is_unended(&self) -> bool {
        let transcript = self.tap.transcript();
        !transcript.is_ended && transcript.error.is_none()
    }

    /// True if another connection follows the answer.
    fn is_followed(&self) -> bool {
        self.chat.running().is_some_and(|running| running.is_followed())
    }

    /// Ends the chat. The outcome depends on the status, on `failure`, and otherwise on the transcript.
    fn end(&mut self, mut after_end: AfterEnd, failure: Option<ChatError>) {
        if self.is_unended() && self.chat.hand_over() {
            let error = match self.timeouts.is_total_exceeded() {
                true => BodyError::TotalTimeout,
                false => BodyError::Upstream,
            };
            self.phase = BodyPhase::Aborting(error, Flushed::No);
            return;
        }
        self.tap.redact_error(&self.redactor);
        if self.tap.finish_ui_stream(failure.as_ref()) && after_end == AfterEnd::Abort {
            // The UI message stream carries the failure as an event, so the body can end cleanly.
            after_end = AfterEnd::Close;
        }
        let (mut transcript, usage) = self.tap.take_transcript();
        let ending = match failure.or_else(|| transcript.error.take()) {
            _ if self.framing.status >= 300 => {
                let body_error = dialect::parse_error_body(self.framing.status, self.tap.error_body());
                ChatEnding::Failed(FailureStage::UpstreamStatus, body_error)
            }
            failure if self.client == ClientPresence::Disconnected && !self.is_followed() => {
                transcript.note(if failure.is_some() { "broke_off_while_drained" } else { "drained_to_its_end" });
                ChatEnding::ClientGone
            }
            Some(failure) => ChatEnding::Failed(FailureStage::UpstreamStream, failure),
            None if transcript.is_empty() => {
                ChatEnding::Failed(FailureStage::UpstreamStream, ChatError::new("empty_answer", "the answer was empty"))
            }
            None => {
                if self.client == ClientPresence::Disconnected {
                    transcript.note("resumed");
                }
                if !transcript.is_ended {
                    transcript.note("ended_without_finish_reason");
                } else if !transcript.has_any_content() && transcript.finish_reason.is_some() {
                    transcript.note("no_content");
                }
                if transcript.has_any_content() && !transcript.has_content() {
                    transcript.note("content_not_recorded");
                }
                if let Some(upstream) = self.usage_probe.take() {
                    upstream.record_usage_probe(usage.source == UsageSource::Reported);
                }
                ChatEnding::Completed
            }
        };
        self.phase = BodyPhase::Ending(self.chat.end(ending, transcript, usage), after_end);
    }
}

impl BodyState {
    /// Returns the next chunk for the client. All bytes that the upstream has sent already are read first, up to 64 KiB,
    /// and go out as one chunk.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        // An upstream that always has bytes ready never reaches the timer of `poll_streaming`, so the deadline is checked
        // here.
        if matches!(self.phase, BodyPhase::Streaming) && self.timeouts.is_total_exceeded() {
            self.end(AfterEnd::Abort, Some(ChatError::new(TOTAL_TIMEOUT, TOOK_TOO_LONG)));
        }
        while self.coalescer.bytes() < MAX_CHUNK_BYTES {
            let step = self.poll_step(cx);
            while let Some(chunk) = self.tap.next_chunk() {
                self.coalescer.push(chunk);
            }
            match step {
                Poll::Ready(StepResult::Progressed) => {}
                Poll::Ready(StepResult::Finished) | Poll::Pending if self.coalescer.bytes() > 0 => break,
                Poll::Ready(StepResult::Finished) => return self.poll_end(cx),
                Poll::Pending => {
                    let comment = ready!(self.poll_comment(cx));
                    self.coalescer.push(comment);
                }
            }
        }
        let chunk = self.coalescer.take();
        if let (Some(keep_alive_comments), Some(chunk)) = (&mut self.keep_alive_comments, &chunk) {
            keep_alive_comments.record_written(chunk);
        }
        Poll::Ready(chunk.map(Ok))
    }

    /// Resolves with a keep-alive comment when one is due. Never resolves if comments are switched off.
    fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        match &mut self.keep_alive_comments {
            Some(keep_alive_comments) if matches!(self.phase, BodyPhase::Streaming) => keep_alive_comments.poll_due(cx),
            _ => Poll::Pending,
        }
    }
}
