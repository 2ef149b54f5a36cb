//! The circuit breaker of an upstream. After several failures in a row the breaker opens and the upstream is skipped
//! for an interval; then a single chat probes the upstream.
//!
//! Pure: the time is passed in. A breaker changes the order of upstreams and never rejects a chat: if the breakers of
//! all upstreams of a route are open, the upstream with the earliest end of its interval is tried anyway.

use std::time::{Duration, Instant};

/// The number of failures in a row that opens a breaker.
const FAILURE_THRESHOLD: u32 = 5;
/// The first open interval. Each failed probe doubles the interval.
const INITIAL_OPEN_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum open interval.
const MAX_OPEN_INTERVAL: Duration = Duration::from_secs(120);
/// The time that a probe has for its outcome. After the timeout the next chat becomes the probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// The circuit breaker of one upstream.
#[derive(Debug)]
pub struct CircuitBreaker(BreakerState);

#[derive(Clone, Copy, Debug)]
enum BreakerState {
    /// Chats are admitted. `failures` counts the failures since the last success.
    Closed { failures: u32 },
    /// No chat is admitted before `until`. `open_for` is the length of the interval.
    Open { until: Instant, open_for: Duration },
    /// A probe is under way. No other chat is admitted before `until`. `open_for` is the length of the last open
    /// interval.
    HalfOpen { until: Instant, open_for: Duration },
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self(BreakerState::Closed { failures: 0 })
    }
}

/// The decision of a breaker about a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerAdmission {
    /// The upstream may be tried.
    Admitted,
    /// The upstream should not be tried before this time.
    RejectedUntil(Instant),
}

/// The state change caused by an outcome, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerTransition {
    /// No change of state.
    None,
    /// The breaker opened, for this interval.
    Opened(Duration),
    /// The breaker closed: chats are admitted again.
    Closed,
}

impl CircuitBreaker {
    /// Decides if the upstream may be tried now. After an open interval the call admits one chat as the probe, and
    /// rejects all others until the probe succeeds, fails or reaches the timeout.
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

    /// True if the breaker is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.0, BreakerState::Closed { .. })
    }

    /// Records a success of the upstream and closes the breaker.
    pub fn record_success(&mut self) -> BreakerTransition {
        let was_closed = self.is_closed();
        *self = Self::default();
        if was_closed { BreakerTransition::None } else { BreakerTransition::Closed }
    }

    /// Records a failure of the upstream. Opens the breaker after five failures in a row or after a failed probe.
    pub fn record_failure(&mut self, now: Instant) -> BreakerTransition {
        let open_for = match self.0 {
            BreakerState::Closed { failures } if failures + 1 < FAILURE_THRESHOLD => {
                self.0 = BreakerState::Closed { failures: failures + 1 };
                return BreakerTransition::None;
            }
            BreakerState::Closed { .. } => INITIAL_OPEN_INTERVAL,
            // The failure of a chat that began before the breaker opened: not counted.
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
        assert_eq!(breaker.admit(at(5)), BreakerAdmission::Admitted, "one chat is admitted as the probe");
        assert_eq!(
            breaker.admit(at(5)),
            BreakerAdmission::RejectedUntil(at(35)),
            "no chat is admitted during the probe"
        );
        assert_eq!(breaker.record_failure(at(6)), BreakerTransition::Opened(INITIAL_OPEN_INTERVAL * 2));
        assert_eq!(breaker.admit(at(15)), BreakerAdmission::RejectedUntil(at(16)));
        assert_eq!(breaker.admit(at(16)), BreakerAdmission::Admitted);
        assert_eq!(
            breaker.admit(at(46)),
            BreakerAdmission::Admitted,
            "a probe without an outcome is replaced after the timeout"
        );
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
            "failures while the breaker is open do not count"
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
