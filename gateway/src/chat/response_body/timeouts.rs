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
pub(super) struct Silence {
    last: Instant,
    /// Something came since; when, is looked up once for all that came together.
    is_broken: bool,
    idle: Duration,
    until: Instant,
    /// Set to when, at the earliest, a bound can be passed, and looked at anew then: no timer is moved per chunk.
    alarm: Pin<Box<Sleep>>,
}

impl Silence {
    pub(super) fn new(limits: &Limits) -> Self {
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

    /// Something came.
    pub(super) fn was_broken(&mut self) {
        self.is_broken = true;
    }

    /// Whether the answer has been going on for as long as one may.
    pub(super) fn is_over_for_good(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Ready when a bound is passed: which one.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
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
