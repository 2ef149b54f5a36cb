//! The bounds of time of an answer: how long it may be silent, and how long it may take altogether.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::limits::Limits;

/// The word for an answer that took longer than one may.
pub(super) const TOTAL_TIMEOUT: &str = "upstream_total_timeout";

/// How long the answer has been silent, and how long it has been going on.
#[derive(Debug)]
pub(super) struct Timeouts {
    last_activity: Instant,
    /// Something came since; when, is looked up once for all that came together.
    has_new_activity: bool,
    idle_timeout: Duration,
    deadline: Instant,
    /// Set to when, at the earliest, a bound can be passed, and looked at anew then: no timer is moved per chunk.
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

    /// Something came.
    pub(super) fn record_activity(&mut self) {
        self.has_new_activity = true;
    }

    /// Whether the answer has been going on for as long as one may.
    pub(super) fn is_total_exceeded(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Ready when a bound is passed: which one.
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
