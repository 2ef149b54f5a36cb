//! Keep-alive comments: SSE comments that are sent while the upstream is silent, so that proxies and clients do not close
//! the connection as dead.
//!
//! A comment is written only between two events, because clients would read a comment inside an event as part of the event.
//! The comment does not begin with `: ping`, which some clients take for an event of their own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::Sleep;

/// The bytes of a keep-alive comment.
pub(super) const COMMENT: &[u8] = b": keep-alive\n\n";

/// The schedule of keep-alive comments on one event stream.
#[derive(Debug)]
pub(super) struct KeepAliveComments {
    interval: Duration,
    last_write: Instant,
    timer: Pin<Box<Sleep>>,
    /// The last four bytes that were written to the client.
    tail: [u8; 4],
}

impl KeepAliveComments {
    /// Creates a schedule with a comment after each silence of length `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        // The start of the stream counts as the end of an event.
        Self { interval, last_write: Instant::now(), timer: Box::pin(tokio::time::sleep(interval)), tail: *b"\n\n\n\n" }
    }

    /// Records a chunk that was written to the client. The silence starts anew.
    pub(super) fn record_written(&mut self, chunk: &[u8]) {
        self.last_write = Instant::now();
        for byte in &chunk[chunk.len().saturating_sub(self.tail.len())..] {
            self.tail.rotate_left(1);
            self.tail[3] = *byte;
        }
    }

    /// Resolves with a comment when the stream has been silent for the interval. If the last bytes do not end an event, no
    /// comment is due before another interval has passed.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let is_due = now >= self.last_write + self.interval;
            if is_due {
                self.last_write = now;
            }
            self.timer.as_mut().reset((self.last_write + self.interval).into());
            if is_due && self.is_between_events() {
                return Poll::Ready(Bytes::from_static(COMMENT));
            }
        }
    }

    fn is_between_events(&self) -> bool {
        self.tail.ends_with(b"\n\n") || self.tail == *b"\r\n\r\n" || self.tail.ends_with(b"\r\r")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_written_between_events_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let mut comments = KeepAliveComments::new(Duration::from_secs(1));
        assert!(comments.is_between_events(), "before the first event");
        for (chunk, expected) in [
            ("data: x", false),
            ("\n", false),
            ("\n", true),
            ("data: y\r\n\r", false),
            ("\n", true),
            ("data: z\r\r", true),
            ("event: a\ndata: b\n", false),
            (": c\n\n", true),
        ] {
            comments.record_written(chunk.as_bytes());
            assert_eq!(comments.is_between_events(), expected, "{chunk:?}");
        }
    }
}
