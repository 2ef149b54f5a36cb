//! The first bytes of a success response, read ahead until it is known that an answer begins.
//!
//! Bounds: 64 KiB; 5 s without a byte, or 1 s after the first bytes of an event stream, or 10 s for a document. Past a bound
//! everything passes. A good stream is held until its first event is complete, which a client cannot use any earlier.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::headers::is_event_stream;
use crate::response::answer_start::{AnswerKind, AnswerStart, StartFailure, StartVerdict};
use crate::response::content_encoding::ContentEncoding;
use crate::upstream::body::{ChunkAhead, UpstreamBody};

/// The maximum time between the head and the first bytes of an event stream. After that the head passes.
const MAX_SILENCE: Duration = Duration::from_secs(5);
/// The maximum time for which the first bytes of an event stream are held: comments, pings, and the start of an event.
const MAX_HOLD: Duration = Duration::from_secs(1);
/// The maximum time between the head and the end of a document, which clients cannot use before the end.
const MAX_DOCUMENT_TIME: Duration = Duration::from_secs(10);

/// Reads the start of a success response ahead. Returns the failure of an answer that is an error, is empty, or breaks off
/// before any content. `None` for a good answer, and for responses that are no answers. Nothing is held back for longer than
/// `max_silence`.
pub(super) async fn start_failure(
    response: &mut Response<UpstreamBody>,
    kind: AnswerKind,
    max_silence: Duration,
) -> Option<StartFailure> {
    let status = response.status();
    if !status.is_success() || matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        return None;
    }
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.is_readable(content_type) {
        return None;
    }
    let mut start = AnswerStart::new(kind, ContentEncoding::from_headers(response.headers()));
    let may_be_stream = is_event_stream(response.headers());
    let since = Instant::now();
    let mut deadline = since + max_silence.min(if may_be_stream { MAX_SILENCE } else { MAX_DOCUMENT_TIME });
    loop {
        let had_bytes = start.has_bytes();
        let verdict = match timeout_at(deadline, response.body_mut().read_chunk_ahead()).await {
            Err(_) => return None,
            Ok(ChunkAhead::Chunk(chunk)) => start.feed(&chunk),
            Ok(ChunkAhead::Broken) => return Some(StartFailure::Broken),
            Ok(ChunkAhead::End) => {
                return match start.finish() {
                    StartVerdict::Failed(failure) => Some(failure),
                    StartVerdict::Begun | StartVerdict::Undecided => None,
                };
            }
        };
        match verdict {
            StartVerdict::Begun => return None,
            StartVerdict::Failed(failure) => return Some(failure),
            // A document is known by its first byte, whatever the header says.
            StartVerdict::Undecided if start.is_document() => {
                deadline = since + max_silence.min(MAX_DOCUMENT_TIME);
            }
            StartVerdict::Undecided if may_be_stream && !had_bytes => {
                deadline = deadline.min(Instant::now() + MAX_HOLD);
            }
            StartVerdict::Undecided => {}
        }
    }
}
