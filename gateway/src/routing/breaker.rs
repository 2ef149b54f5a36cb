//! The breaker of one upstream: after failures in a row it is passed over for a while, then tried with a single chat.
//!
//! Pure: the time is passed in. A breaker never turns a chat away by itself: where every upstream of a route is passed over,
//! the one that comes back first is tried all the same.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURE_THRESHOLD: u32 = 5;
/// How long it stays open the first time; twice as long each further time.
const INITIAL_OPEN_INTERVAL: Duration = Duration::from_secs(5);
/// How long it stays open at most.
const MAX_OPEN_INTERVAL: Duration = Duration::from_secs(120);
/// How long the single chat may take to show something.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// A breaker.
#[derive(Debug)]
pub struct CircuitBreaker(BreakerState);

#[derive(Clone, Copy, Debug)]
enum BreakerState {
    /// The upstream is tried, having failed so often in a row.
    Closed { failures: u32 },
    /// It rests.
    Open { until: Instant, open_for: Duration },
    /// It has rested, and one chat is to show how it is.
    HalfOpen { until: Instant, open_for: Duration },
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self(BreakerState::Closed { failures: 0 })
    }
}

/// Whether an upstream is to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerAdmission {
    /// It is.
    Admitted,
    /// Not before this.
    RejectedUntil(Instant),
}

/// What an outcome did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerTransition {
    /// Nothing to speak of.
    None,
    /// It opened, for this long.
    Opened(Duration),
    /// It closed.
    Closed,
}

impl CircuitBreaker {
    /// Whether the upstream is to be tried now. If it has rested, this one chat is to show how it is, and others are not
    /// admitted until it has.
    pub fn admit(&mut self, now: Instant) -> BreakerAdmission {
        match self.0 {
            BreakerState::Closed { .. } => BreakerAdmission::Admitted,
            BreakerState::Open { until, .. } | BreakerState::HalfOpen { until, .. } if now < until => {
                BreakerAdmission::RejectedUntil(until)
            }
            BreakerState::Open { open_for, .. } | BreakerState::HalfOpen { open_for, .. } => {
                self.0 = BreakerState::HalfOpen { until: now + PROBE_TIMEOUT, open_for };
                BreakerAdmission::Admitted
            }
        }
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.0, BreakerState::Closed { .. })
    }

    /// The upstream answered.
    pub fn record_success(&mut self) -> BreakerTransition {
        let was_closed = self.is_closed();
        *self = Self::default();
        if was_closed { BreakerTransition::None } else { BreakerTransition::Closed }
    }

    /// It did not.
    pub fn record_failure(&mut self, now: Instant) -> BreakerTransition {
        let open_for = match self.0 {
            BreakerState::Closed { failures } if failures + 1 < FAILURE_THRESHOLD => {
                self.0 = BreakerState::Closed { failures: failures + 1 };
                return BreakerTransition::None;
            }
            BreakerState::Closed { .. } => INITIAL_OPEN_INTERVAL,
            // A chat that began before it opened: nothing new.
            BreakerState::Open { .. } => return BreakerTransition::None,
            BreakerState::HalfOpen { open_for, .. } => (open_for * 2).min(MAX_OPEN_INTERVAL),
        };
        self.0 = BreakerState::Open { until: now + open_for, open_for };
        BreakerTransition::Opened(open_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_opens_lets_a_probe_through_and_closes() {
        let (mut breaker, start) = (CircuitBreaker::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 1..FAILURE_THRESHOLD {
            assert_eq!(breaker.record_failure(at(0)), BreakerTransition::None);
        }
        assert_eq!(breaker.admit(at(0)), BreakerAdmission::Admitted);
        assert_eq!(breaker.record_failure(at(0)), BreakerTransition::Opened(INITIAL_OPEN_INTERVAL));
        assert_eq!(breaker.admit(at(4)), BreakerAdmission::RejectedUntil(at(5)));
        assert_eq!(breaker.admit(at(5)), BreakerAdmission::Admitted, "one chat shows how it is");
        assert_eq!(breaker.admit(at(5)), BreakerAdmission::RejectedUntil(at(35)), "and only one");
        assert_eq!(breaker.record_failure(at(6)), BreakerTransition::Opened(INITIAL_OPEN_INTERVAL * 2));
        assert_eq!(breaker.admit(at(15)), BreakerAdmission::RejectedUntil(at(16)));
        assert_eq!(breaker.admit(at(16)), BreakerAdmission::Admitted);
        assert_eq!(breaker.admit(at(46)), BreakerAdmission::Admitted, "the one that was to show it never came back");
        assert_eq!(breaker.record_success(), BreakerTransition::Closed);
        assert!(breaker.is_closed());
        assert_eq!(breaker.record_success(), BreakerTransition::None);
    }

    #[test]
    fn open_intervals_are_bounded_and_a_success_resets_them() {
        let (mut breaker, mut now) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.record_failure(now);
        }
        assert_eq!(
            breaker.admit(now),
            BreakerAdmission::RejectedUntil(now + INITIAL_OPEN_INTERVAL),
            "late failures do not count"
        );
        for _ in 0..10 {
            now += MAX_OPEN_INTERVAL;
            assert_eq!(breaker.admit(now), BreakerAdmission::Admitted);
            breaker.record_failure(now);
        }
        assert_eq!(breaker.admit(now), BreakerAdmission::RejectedUntil(now + MAX_OPEN_INTERVAL));
        breaker.record_success();
        assert_eq!(breaker.record_failure(now), BreakerTransition::None);
    }
}
