//! An answer under way: the upstream's bytes through the tap, its end held back until the chat's end is durable, and what is
//! left to do then.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use shared::event::{ChatError, FailureStage};

use super::coalescer::Coalescer;
use super::keep_alive_comments::KeepAliveComments;
use super::timeouts::{TOTAL_TIMEOUT, Timeouts};
use crate::chat::ended_chat::EndedChat;
use crate::chat::open_chat::{ChatEnding, OpenChat};
use crate::limits::Limits;
use crate::response::dialect;
use crate::response::tap::{FeedStatus, Tap};
use crate::response::transcript::Transcript;
use crate::upstream::body::UpstreamBody;

/// How much of what is ready goes to the client in one piece.
const MAX_CHUNK_BYTES: usize = 64 << 10;

const TOOK_TOO_LONG: &str = "the answer took too long";

/// An answer under way.
#[derive(Debug)]
pub(super) struct BodyState {
    upstream: UpstreamBody,
    pub(super) tap: Tap,
    pub(super) chat: OpenChat,
    framing: BodyFraming,
    pub(super) client: ClientPresence,
    pub(super) phase: BodyPhase,
    timeouts: Timeouts,
    keep_alive_comments: Option<KeepAliveComments>,
    coalescer: Coalescer,
}

/// Whether anyone listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientPresence {
    /// Someone does.
    Connected,
    /// The client has left, and the answer is read on for the record alone.
    Disconnected,
}

/// What the upstream's response head says about the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFraming {
    /// The upstream's status.
    pub status: u16,
    /// The body has no other end than that of the connection.
    pub ends_with_connection: bool,
    /// The client gets an event stream.
    pub is_event_stream: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an answer has one, and is in a box already")]
pub(super) enum BodyPhase {
    /// The answer is coming.
    Streaming,
    /// The end is on its way to the record; what comes after it is this.
    Ending(EndedChat, AfterEnd),
    /// The end is on the record and with the client; whatever else the upstream sends passes.
    Trailing,
    /// There will be no end. What came before has to be written first.
    Aborting(BodyError, Flushed),
    /// Everything has been said.
    Ended,
}

/// Whether what has been handed over is also written. An error makes the server drop what it has not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    No,
    Yes,
}

/// How far a step led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepResult {
    Progressed,
    /// There is nothing after this.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterEnd {
    /// The upstream has not closed the body yet.
    PassTrailing,
    /// It has.
    Close,
    /// It broke off, and so do we: a clean end would look like success to every client.
    Abort,
}

/// Why the body broke off. The client sees a broken connection; hyper logs nothing of it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's fault, and on the record.
    #[error("the upstream's answer broke off")]
    Upstream,
    /// The end could not be recorded, so it is not shown.
    #[error("the end of the chat could not be recorded")]
    Unrecorded,
}

impl BodyState {
    /// An answer that has not begun.
    pub(super) fn new(upstream: UpstreamBody, tap: Tap, chat: OpenChat, framing: BodyFraming, limits: &Limits) -> Self {
        let interval = limits.keep_alive_comments.filter(|_| framing.is_event_stream);
        Self {
            upstream,
            tap,
            chat,
            framing,
            client: ClientPresence::Connected,
            phase: BodyPhase::Streaming,
            timeouts: Timeouts::new(limits),
            keep_alive_comments: interval.map(KeepAliveComments::new),
            coalescer: Coalescer::default(),
        }
    }

    /// Whether everything has been said and handed over.
    pub(super) fn is_end_stream(&self) -> bool {
        matches!(self.phase, BodyPhase::Ended) && self.coalescer.bytes() == 0
    }

    pub(super) fn poll_streaming(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.upstream.poll_chunk(cx) {
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
                }
            }
            Poll::Ready(Some(Err(error))) => {
                let failure = ChatError::new("upstream_broken", &format!("the answer broke off: {error}"));
                self.end(AfterEnd::Abort, Some(failure));
            }
            Poll::Ready(None) => {
                self.tap.finish();
                let is_cut_off =
                    self.framing.ends_with_connection && self.framing.status < 300 && !self.tap.transcript().is_ended;
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

    /// Goes on by as much as one chunk, or one wait.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<StepResult> {
        match &mut self.phase {
            BodyPhase::Streaming => ready!(self.poll_streaming(cx)),
            BodyPhase::Ending(ended, after_end) => {
                let durable = ready!(pin!(&mut ended.pending).poll(cx));
                ended.log_line.log(durable);
                self.phase = match (durable, *after_end) {
                    (Err(_), _) => BodyPhase::Aborting(BodyError::Unrecorded, Flushed::No),
                    (Ok(_), AfterEnd::Abort) => BodyPhase::Aborting(BodyError::Upstream, Flushed::No),
                    (Ok(_), AfterEnd::PassTrailing) => BodyPhase::Trailing,
                    (Ok(_), AfterEnd::Close) => BodyPhase::Ended,
                };
                if !matches!(self.phase, BodyPhase::Aborting(..)) {
                    self.tap.release();
                }
            }
            BodyPhase::Trailing => match self.upstream.poll_chunk(cx) {
                Poll::Ready(Some(Ok(chunk))) => self.tap.forward_unread(chunk),
                // The answer is complete, whatever became of the connection.
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

    /// The last word, when nothing is ready any more.
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

    /// Ends the chat. With a failure it failed; else what the transcript says decides.
    fn end(&mut self, mut after_end: AfterEnd, failure: Option<ChatError>) {
        if self.tap.finish_ui_stream(failure.as_ref()) && after_end == AfterEnd::Abort {
            // The client has been told in words.
            after_end = AfterEnd::Close;
        }
        let (mut transcript, usage) = self.tap.take_transcript();
        let ending = match failure.or_else(|| transcript.error.take()) {
            _ if self.framing.status >= 300 => {
                let body_error = dialect::parse_error_body(self.framing.status, self.tap.error_body());
                ChatEnding::Failed(FailureStage::UpstreamStatus, body_error)
            }
            failure if self.client == ClientPresence::Disconnected => {
                transcript.note(if failure.is_some() { "broke_off_while_drained" } else { "drained_to_its_end" });
                ChatEnding::ClientGone
            }
            Some(failure) => ChatEnding::Failed(FailureStage::UpstreamStream, failure),
            None if is_empty(&transcript) => {
                ChatEnding::Failed(FailureStage::UpstreamStream, ChatError::new("empty_answer", "the answer was empty"))
            }
            None => {
                if !transcript.is_ended {
                    transcript.note("ended_without_finish_reason");
                }
                ChatEnding::Completed
            }
        };
        self.phase = BodyPhase::Ending(self.chat.end(ending, transcript, usage), after_end);
    }
}

/// Whether nothing came that could be called an answer, not even its end.
fn is_empty(transcript: &Transcript) -> bool {
    !transcript.has_content() && !transcript.is_ended
}

impl BodyState {
    /// What is ready together goes out together: whatever the upstream has sent is read before anything is handed over.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        // With something ready whenever it is asked for, nothing else would notice.
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

    /// A comment, when the upstream has been silent for long and comments are wanted.
    fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        match &mut self.keep_alive_comments {
            Some(keep_alive_comments) if matches!(self.phase, BodyPhase::Streaming) => keep_alive_comments.poll_due(cx),
            _ => Poll::Pending,
        }
    }
}
