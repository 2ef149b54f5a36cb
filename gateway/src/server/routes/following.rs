//! One client that follows the answer of a chat: first the running answer, wherever it runs, then the record, which has the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use shared::fair_share::Place;
use shared::id::{ChatId, UserId};
use tokio::time::sleep;

use crate::response::answer_events::{AnswerEnd, AnswerEvents};
use crate::response::answer_piece::{Lengths, Piece};
use crate::response::transcript::Transcript;
use crate::response::ui_stream::UiStream;
use crate::running::News;
use crate::running::peers::{Source, Whereabouts};
use crate::server::gateway::Gateway;

/// The time between two pieces. Pieces that arrive closer together go out as one.
const PIECE_INTERVAL: Duration = Duration::from_millis(15);
/// The silence after which a comment is sent.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);
/// The first and the longest time between two questions to the record.
const RECORD_INTERVALS: (Duration, Duration) = (Duration::from_millis(40), Duration::from_secs(1));
/// The time between two questions to all gateways about a chat that has not ended on the record.
const FIND_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum time for which a chat that a gateway knew may be missing on the record.
const MISSING_FOR: Duration = Duration::from_secs(30);

/// The connection is to be broken off, so that the client comes back.
#[derive(Debug, thiserror::Error)]
#[error("the answer goes on elsewhere")]
struct BrokenOff;

/// A client that follows an answer.
pub(super) struct Following {
    pub(super) gateway: Arc<Gateway>,
    pub(super) user: UserId,
    pub(super) headers: HeaderMap,
    pub(super) chat: ChatId,
    pub(super) phase: Phase,
    pub(super) writer: Writer,
    /// What has been read of the running answer.
    pub(super) read: Transcript,
    pub(super) last_write: Instant,
    pub(super) _place: Place,
}

/// The place where the answer is read.
pub(super) enum Phase {
    /// The running answer.
    Running(Source),
    /// The record, which has the end or will have it.
    Recorded { interval: Duration, since: Instant, found_at: Instant },
    /// The client has everything.
    Done,
}

/// The format of the client's stream.
pub(super) enum Writer {
    /// Events that can be resumed after each event.
    Events(AnswerEvents),
    /// The format of `useChat`.
    Ui(Box<UiStream>),
}

impl Phase {
    /// Returns the phase in which the record is asked.
    pub(super) fn recorded() -> Self {
        let now = Instant::now();
        Self::Recorded { interval: RECORD_INTERVALS.0, since: now, found_at: now }
    }
}

impl Following {
    /// Returns the body of the response: `first`, then the rest of the answer as it arrives.
    pub(super) fn into_body(self, first: Bytes) -> Body {
        Body::from_stream(stream::unfold(
            (self, Some(first).filter(|first| !first.is_empty())),
            |(mut this, first)| async {
                if let Some(first) = first {
                    return Some((Ok(first), (this, None)));
                }
                let chunk = this.next().await.transpose()?;
                if chunk.is_err() {
                    this.phase = Phase::Done;
                }
                Some((chunk, (this, None)))
            },
        ))
    }

    /// Returns the next bytes. `None` after the end. An error breaks the connection off.
    async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        loop {
            if matches!(self.phase, Phase::Done) {
                return Ok(None);
            }
            // The session may have ended meanwhile, or the key may have been revoked.
            if self.gateway.auth.caller(&self.headers).is_err() || self.gateway.stop_mark.is_set() {
                return Err(BrokenOff);
            }
            let bytes = match &self.phase {
                Phase::Running(source) => {
                    match self.gateway.peers.news(source, &self.user, &Lengths::of(&self.read)).await {
                        News::Piece(piece) => self.write(piece).await,
                        News::Ended => {
                            self.phase = Phase::recorded();
                            continue;
                        }
                    }
                }
                Phase::Recorded { .. } => self.read_record().await?,
                Phase::Done => return Ok(None),
            };
            if !bytes.is_empty() {
                self.last_write = Instant::now();
                return Ok(Some(bytes));
            }
            if self.last_write.elapsed() >= COMMENT_INTERVAL {
                self.last_write = Instant::now();
                return Ok(Some(Bytes::from_static(b": keep-alive\n\n")));
            }
        }
    }

    async fn write(&mut self, piece: Piece) -> Bytes {
        if piece.is_empty() {
            return Bytes::new();
        }
        piece.append_to(&mut self.read);
        sleep(PIECE_INTERVAL).await;
        match &mut self.writer {
            Writer::Events(events) => events.advance(&self.read),
            Writer::Ui(ui_stream) => ui_stream.advance(&self.read),
        }
    }

    /// Asks the record for the end. Returns nothing while the end is on its way.
    async fn read_record(&mut self) -> Result<Bytes, BrokenOff> {
        let Phase::Recorded { interval, since, found_at } = &mut self.phase else { return Ok(Bytes::new()) };
        let recorded = match &self.gateway.recorder_api {
            Some(recorder_api) => recorder_api.answer(&self.user, self.chat, &self.headers).await,
            None => return Err(BrokenOff),
        };
        match recorded {
            Ok(Some(answer)) if answer.has_ended() => {
                let (answer, end) = answer.into_parts();
                self.phase = Phase::Done;
                return Ok(self.finish(answer, &end));
            }
            Ok(Some(_)) if found_at.elapsed() >= FIND_INTERVAL => {
                *found_at = Instant::now();
                // The gateway may have been out of reach.
                if let Whereabouts::Runs(source) = self.gateway.peers.find(self.chat, &self.user).await {
                    self.phase = Phase::Running(source);
                    return Ok(Bytes::new());
                }
            }
            Ok(None) if since.elapsed() >= MISSING_FOR => return Err(BrokenOff),
            Ok(_) => {}
            // The recorder's API is away. The client waits for the end, as for the answer.
            Err(_) => *interval = RECORD_INTERVALS.1,
        }
        let pause = *interval;
        *interval = (pause * 2).min(RECORD_INTERVALS.1);
        sleep(pause).await;
        Ok(Bytes::new())
    }

    fn finish(&mut self, answer: Option<Transcript>, end: &AnswerEnd) -> Bytes {
        match &mut self.writer {
            Writer::Events(events) => events.finish(&self.read, answer.as_ref(), end),
            Writer::Ui(ui_stream) => ui_stream.finish_recorded(&self.read, answer, end),
        }
    }
}
