//! An answer under way: the upstream's bytes through the tap, its end held back until the chat's end is durable, and what is
//! left to do then.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use shared::event::{ChatError, FailureStage};

use super::coalesce::Ready;
use super::keep_alive::KeepAlive;
use super::timeouts::{Silence, TOTAL_TIMEOUT};
use crate::chat::ended_chat::EndedChat;
use crate::chat::open_chat::{Ending, OpenChat};
use crate::limits::Limits;
use crate::response::dialect;
use crate::response::tap::{Fed, Tap};
use crate::response::transcript::Transcript;
use crate::upstream::body::UpstreamBody;

/// How much of what is ready goes to the client in one piece.
const MOST_AT_ONCE: usize = 64 << 10;

const TOOK_TOO_LONG: &str = "the answer took too long";

/// An answer under way.
#[derive(Debug)]
pub(super) struct Course {
    upstream: UpstreamBody,
    pub(super) tap: Tap,
    pub(super) chat: OpenChat,
    kind: AnswerKind,
    pub(super) client: Client,
    pub(super) state: State,
    silence: Silence,
    keep_alive: Option<KeepAlive>,
    ready: Ready,
}

/// Whether anyone listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// Someone does.
    Listens,
    /// The client has left, and the answer is read on for the record alone.
    HasLeft,
}

/// What the upstream's response head says about the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerKind {
    /// The upstream's status.
    pub status: u16,
    /// The body has no other end than that of the connection.
    pub ends_with_connection: bool,
    /// The client gets an event stream.
    pub is_event_stream: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an answer has one, and is in a box already")]
pub(super) enum State {
    /// The answer is coming.
    Streaming,
    /// The end is on its way to the record; what comes after it is this.
    Ending(EndedChat, Then),
    /// The end is on the record and with the client; whatever else the upstream sends passes.
    Trailing,
    /// There will be no end. What came before has to be written first.
    Breaking(BrokenAnswer, Written),
    /// Everything has been said.
    Ended,
}

/// Whether what has been handed over is also written. An error makes the server drop what it has not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    NotYet,
    Yes,
}

/// How far a step led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Further,
    /// There is nothing after this.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The upstream has not closed the body yet.
    Trail,
    /// It has.
    End,
    /// It broke off, and so do we: a clean end would look like success to every client.
    Break,
}

/// Why the body broke off. The client sees a broken connection; hyper logs nothing of it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum BrokenAnswer {
    /// The upstream's fault, and on the record.
    #[error("the upstream's answer broke off")]
    Upstream,
    /// The end could not be recorded, so it is not shown.
    #[error("the end of the chat could not be recorded")]
    Unrecorded,
}

impl Course {
    /// An answer that has not begun.
    pub(super) fn new(upstream: UpstreamBody, tap: Tap, chat: OpenChat, kind: AnswerKind, limits: &Limits) -> Self {
        let every = limits.keep_alive_comments.filter(|_| kind.is_event_stream);
        Self {
            upstream,
            tap,
            chat,
            kind,
            client: Client::Listens,
            state: State::Streaming,
            silence: Silence::new(limits),
            keep_alive: every.map(KeepAlive::new),
            ready: Ready::default(),
        }
    }

    /// Whether everything has been said and handed over.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended) && self.ready.bytes() == 0
    }

    pub(super) fn poll_streaming(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.upstream.poll_chunk(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                self.silence.was_broken();
                if !self.chat.is_recorded() && !self.tap.translates() {
                    self.tap.pass(chunk);
                    return Poll::Ready(());
                }
                let fed = self.tap.feed(chunk);
                self.chat.saw(self.tap.transcript());
                if fed == Fed::End {
                    self.end(Then::Trail, None);
                }
            }
            Poll::Ready(Some(Err(broken))) => {
                let failure = ChatError::new("upstream_broken", &format!("the answer broke off: {broken}"));
                self.end(Then::Break, Some(failure));
            }
            Poll::Ready(None) => {
                self.tap.finish();
                let is_cut = self.kind.ends_with_connection && self.kind.status < 300 && !self.tap.transcript().ended;
                if is_cut {
                    self.end(
                        Then::Break,
                        Some(ChatError::new("upstream_broken", "the connection ended before the answer did")),
                    );
                } else {
                    self.end(Then::End, None);
                }
            }
            Poll::Pending => {
                let timeout = ready!(self.silence.poll_over(cx));
                self.end(Then::Break, Some(ChatError::new(timeout, TOOK_TOO_LONG)));
            }
        }
        Poll::Ready(())
    }

    /// Goes on by as much as one chunk, or one wait.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        match &mut self.state {
            State::Streaming => ready!(self.poll_streaming(cx)),
            State::Ending(ended, then) => {
                let durable = ready!(pin!(&mut ended.recorded).poll(cx));
                ended.line.log(durable);
                self.state = match (durable, *then) {
                    (Err(_), _) => State::Breaking(BrokenAnswer::Unrecorded, Written::NotYet),
                    (Ok(_), Then::Break) => State::Breaking(BrokenAnswer::Upstream, Written::NotYet),
                    (Ok(_), Then::Trail) => State::Trailing,
                    (Ok(_), Then::End) => State::Ended,
                };
                if !matches!(self.state, State::Breaking(..)) {
                    self.tap.release();
                }
            }
            State::Trailing => match self.upstream.poll_chunk(cx) {
                Poll::Ready(Some(Ok(chunk))) => self.tap.pass(chunk),
                // The answer is complete, whatever became of the connection.
                Poll::Ready(Some(Err(_)) | None) => self.state = State::Ended,
                Poll::Pending => {
                    ready!(self.silence.poll_over(cx));
                    self.state = State::Ended;
                }
            },
            State::Breaking(..) | State::Ended => return Poll::Ready(Step::Over),
        }
        Poll::Ready(Step::Further)
    }

    /// The last word, when nothing is ready any more.
    fn poll_last_word<T>(&mut self, cx: &Context<'_>) -> Poll<Option<Result<T, BrokenAnswer>>> {
        match &mut self.state {
            State::Breaking(_, written @ Written::NotYet) => {
                *written = Written::Yes;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            State::Breaking(broken, Written::Yes) => Poll::Ready(Some(Err(*broken))),
            _ => Poll::Ready(None),
        }
    }

    /// Ends the chat. With a failure it failed; else what the transcript says decides.
    fn end(&mut self, mut then: Then, failure: Option<ChatError>) {
        if self.tap.tell_end(failure.as_ref()) && then == Then::Break {
            // The client has been told in words.
            then = Then::End;
        }
        let (mut transcript, usage) = self.tap.take_transcript();
        let ending = match failure.or_else(|| transcript.error.take()) {
            _ if self.kind.status >= 300 => {
                let said = dialect::error_body(self.kind.status, self.tap.error_body());
                Ending::Failed(FailureStage::UpstreamStatus, said)
            }
            failure if self.client == Client::HasLeft => {
                transcript.note(if failure.is_some() { "broke_off_while_drained" } else { "drained_to_its_end" });
                Ending::ClientGone
            }
            Some(failure) => Ending::Failed(FailureStage::UpstreamStream, failure),
            None if is_empty(&transcript) => {
                Ending::Failed(FailureStage::UpstreamStream, ChatError::new("empty_answer", "the answer was empty"))
            }
            None => {
                if !transcript.ended {
                    transcript.note("ended_without_finish_reason");
                }
                Ending::Completed
            }
        };
        self.state = State::Ending(self.chat.end(ending, transcript, usage), then);
    }
}

/// Whether nothing came that could be called an answer, not even its end.
fn is_empty(transcript: &Transcript) -> bool {
    !transcript.has_answer() && !transcript.ended
}

impl Course {
    /// What is ready together goes out together: whatever the upstream has sent is read before anything is handed over.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenAnswer>>> {
        // With something ready whenever it is asked for, nothing else would notice.
        if matches!(self.state, State::Streaming) && self.silence.is_over_for_good() {
            self.end(Then::Break, Some(ChatError::new(TOTAL_TIMEOUT, TOOK_TOO_LONG)));
        }
        while self.ready.bytes() < MOST_AT_ONCE {
            let step = self.poll_step(cx);
            while let Some(chunk) = self.tap.next_chunk() {
                self.ready.push(chunk);
            }
            match step {
                Poll::Ready(Step::Further) => {}
                Poll::Ready(Step::Over) | Poll::Pending if self.ready.bytes() > 0 => break,
                Poll::Ready(Step::Over) => return self.poll_last_word(cx),
                Poll::Pending => {
                    let comment = ready!(self.poll_comment(cx));
                    self.ready.push(comment);
                }
            }
        }
        let chunk = self.ready.take();
        if let (Some(keep_alive), Some(chunk)) = (&mut self.keep_alive, &chunk) {
            keep_alive.wrote(chunk);
        }
        Poll::Ready(chunk.map(Ok))
    }

    /// A comment, when the upstream has been silent for long and comments are wanted.
    fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        match &mut self.keep_alive {
            Some(keep_alive) if matches!(self.state, State::Streaming) => keep_alive.poll_due(cx),
            _ => Poll::Pending,
        }
    }
}
