//! The answer's body on its way to the client: the upstream's bytes through the tap, the end held back until the chat's end
//! is durable, and the connection broken where the upstream broke it.

mod drain;
mod keep_alive;
mod ready;
mod whole;

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use shared::event::{ChatError, FailureStage};
use tokio::time::Sleep;

use self::keep_alive::KeepAlive;
use self::ready::Ready;
use crate::config::Limits;
use crate::dialect;
use crate::open_chat::{EndedChat, Ending, OpenChat, error};
use crate::tap::{Fed, Tap};
use crate::transcript::Transcript;
use crate::upstream::UpstreamBody;

/// How much of what is ready goes to the client in one piece.
const MOST_AT_ONCE: usize = 64 << 10;

const TOTAL_TIMEOUT: &str = "upstream_total_timeout";
const TOOK_TOO_LONG: &str = "the answer took too long";

/// The body of an answer. Dropped before the end, the client has left.
#[derive(Debug)]
pub struct Answer(Option<Box<Course>>);

/// An answer under way.
#[derive(Debug)]
struct Course {
    upstream: UpstreamBody,
    tap: Tap,
    chat: OpenChat,
    kind: AnswerKind,
    client: Client,
    state: State,
    silence: Silence,
    keep_alive: Option<KeepAlive>,
    ready: Ready,
}

/// Whether anyone listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
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
enum State {
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
enum Written {
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
enum Then {
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

impl Answer {
    /// The answer to this chat.
    pub fn new(upstream: UpstreamBody, tap: Tap, chat: OpenChat, kind: AnswerKind, limits: &Limits) -> Self {
        let every = limits.keep_alive_comments.filter(|_| kind.is_event_stream);
        Self(Some(Box::new(Course {
            upstream,
            tap,
            chat,
            kind,
            client: Client::Listens,
            state: State::Streaming,
            silence: Silence::new(limits),
            keep_alive: every.map(KeepAlive::new),
            ready: Ready::default(),
        })))
    }
}

impl Course {
    fn poll_streaming(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.upstream.poll_chunk(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                self.silence.is_broken = true;
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
                let failure = error("upstream_broken", &format!("the answer broke off: {broken}"));
                self.end(Then::Break, Some(failure));
            }
            Poll::Ready(None) => {
                self.tap.finish();
                let is_cut = self.kind.ends_with_connection && self.kind.status < 300 && !self.tap.transcript().ended;
                if is_cut {
                    self.end(Then::Break, Some(error("upstream_broken", "the connection ended before the answer did")));
                } else {
                    self.end(Then::End, None);
                }
            }
            Poll::Pending => {
                let timeout = ready!(self.silence.poll_over(cx));
                self.end(Then::Break, Some(error(timeout, TOOK_TOO_LONG)));
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
                Ending::Failed(FailureStage::UpstreamStream, error("empty_answer", "the answer was empty"))
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

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BrokenAnswer;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenAnswer>>> {
        match &mut self.get_mut().0 {
            Some(course) => course.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
            None => Poll::Ready(None),
        }
    }

    /// So the end is written together with what comes before it.
    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|course| matches!(course.state, State::Ended) && course.ready.bytes() == 0)
    }
}

impl Course {
    /// What is ready together goes out together: whatever the upstream has sent is read before anything is handed over.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenAnswer>>> {
        // With something ready whenever it is asked for, nothing else would notice.
        if matches!(self.state, State::Streaming) && self.silence.is_over_for_good() {
            self.end(Then::Break, Some(error(TOTAL_TIMEOUT, TOOK_TOO_LONG)));
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

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(mut course) = self.0.take() else { return };
        match std::mem::replace(&mut course.state, State::Ended) {
            State::Streaming => {
                course.state = State::Streaming;
                course.left();
            }
            State::Ending(ended, _) => ended.detach(),
            State::Trailing | State::Breaking(..) | State::Ended => {}
        }
    }
}

/// How long the answer has been silent, and how long it has been going on.
#[derive(Debug)]
struct Silence {
    last: Instant,
    /// Something came since; when, is looked up once for all that came together.
    is_broken: bool,
    idle: Duration,
    until: Instant,
    /// Set to when, at the earliest, a bound can be passed, and looked at anew then: no timer is moved per chunk.
    alarm: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        let first = limits.idle_timeout.min(limits.total_timeout);
        Self {
            last: now,
            is_broken: false,
            idle: limits.idle_timeout,
            until: now + limits.total_timeout,
            alarm: Box::pin(tokio::time::sleep(first)),
        }
    }

    /// Whether the answer has been going on for as long as one may.
    fn is_over_for_good(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Ready when a bound is passed: which one.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if std::mem::take(&mut self.is_broken) {
            self.last = Instant::now();
        }
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.until {
                return Poll::Ready(TOTAL_TIMEOUT);
            }
            if now >= self.last + self.idle {
                return Poll::Ready("upstream_idle_timeout");
            }
            let next = (self.last + self.idle).min(self.until);
            self.alarm.as_mut().reset(next.into());
        }
    }
}
