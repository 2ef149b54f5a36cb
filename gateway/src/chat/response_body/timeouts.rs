//! The timeouts of an answer: the idle timeout limits silence, the total timeout limits the whole duration.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::limits::Limits;

/// The error code of an answer that exceeded the total timeout.
pub(super) const TOTAL_TIMEOUT: &str = "upstream_total_timeout";

/// The idle timeout and the total timeout of one answer.
#[derive(Debug)]
pub(super) struct Timeouts {
    last_activity: Instant,
    /// Bytes have arrived after `last_activity`. The clock is read once for all bytes that arrive together.
    has_new_activity: bool,
    idle_timeout: Duration,
    deadline: Instant,
    /// Fires at the earliest time at which a timeout can expire. The next time is computed then, so that chunks move no
    /// timer.
    timer: Pin<Box<Sleep>>,
}

impl Timeouts {
    pub(super) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        let first = limits.idle_timeout.min(limits.total_timeout);
        Self {
            last_activity: now,
            has_new_activity: false,
            idle_timeout: limits.idle_timeout,
            deadline: now + limits.total_timeout,
            timer: Box::pin(tokio::time::sleep(first)),
        }
    }

    /// Restarts the idle timeout, because bytes have arrived.
    pub(super) fn record_activity(&mut self) {
        self.has_new_activity = true;
    }

    /// Returns true if the answer has reached the total timeout.
    pub(super) fn is_total_exceeded(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Resolves with the error code of the timeout that has expired.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if std::mem::take(&mut self.has_new_activity) {
            self.last_activity = Instant::now();
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(TOTAL_TIMEOUT);
            }
            if now >= self.last_activity + self.idle_timeout {
                return Poll::Ready("upstream_idle_timeout");
            }
            let next = (self.last_activity + self.idle_timeout).min(self.deadline);
            self.timer.as_mut().reset(next.into());
        }
    }
}
