//! The breaker of one upstream: after failures in a row it is passed over for a while, then tried with a single chat.
//!
//! Pure: the time is passed in. A breaker never turns a chat away by itself: where every upstream of a route is passed over,
//! the one that comes back first is tried all the same.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it stays open the first time; twice as long each further time.
const FIRST_REST: Duration = Duration::from_secs(5);
/// How long it stays open at most.
const LONGEST_REST: Duration = Duration::from_secs(120);
/// How long the single chat may take to show something.
const PROBE: Duration = Duration::from_secs(30);

/// A breaker.
#[derive(Debug)]
pub struct Breaker(State);

#[derive(Clone, Copy, Debug)]
enum State {
    /// The upstream is tried, having failed so often in a row.
    Closed { failures: u32 },
    /// It rests.
    Open { until: Instant, rest: Duration },
    /// It has rested, and one chat is to show how it is.
    Probing { until: Instant, rest: Duration },
}

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Closed { failures: 0 })
    }
}

/// Whether an upstream is to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Admitted,
    /// Not before this.
    RestsUntil(Instant),
}

/// What an outcome did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing to speak of.
    None,
    /// It opened, for this long.
    Opened(Duration),
    /// It closed.
    Closed,
}

impl Breaker {
    /// Whether the upstream is to be tried now. If it has rested, this one chat is to show how it is, and others are not
    /// admitted until it has.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.0 {
            State::Closed { .. } => Admission::Admitted,
            State::Open { until, .. } | State::Probing { until, .. } if now < until => Admission::RestsUntil(until),
            State::Open { rest, .. } | State::Probing { rest, .. } => {
                self.0 = State::Probing { until: now + PROBE, rest };
                Admission::Admitted
            }
        }
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.0, State::Closed { .. })
    }

    /// The upstream answered.
    pub fn succeeded(&mut self) -> Change {
        let was_closed = self.is_closed();
        *self = Self::default();
        if was_closed { Change::None } else { Change::Closed }
    }

    /// It did not.
    pub fn failed(&mut self, now: Instant) -> Change {
        let rest = match self.0 {
            State::Closed { failures } if failures + 1 < FAILURES => {
                self.0 = State::Closed { failures: failures + 1 };
                return Change::None;
            }
            State::Closed { .. } => FIRST_REST,
            // A chat that began before it opened: nothing new.
            State::Open { .. } => return Change::None,
            State::Probing { rest, .. } => (rest * 2).min(LONGEST_REST),
        };
        self.0 = State::Open { until: now + rest, rest };
        Change::Opened(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_rests_probes_and_closes() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 1..FAILURES {
            assert_eq!(breaker.failed(at(0)), Change::None);
        }
        assert_eq!(breaker.admit(at(0)), Admission::Admitted);
        assert_eq!(breaker.failed(at(0)), Change::Opened(FIRST_REST));
        assert_eq!(breaker.admit(at(4)), Admission::RestsUntil(at(5)));
        assert_eq!(breaker.admit(at(5)), Admission::Admitted, "one chat shows how it is");
        assert_eq!(breaker.admit(at(5)), Admission::RestsUntil(at(35)), "and only one");
        assert_eq!(breaker.failed(at(6)), Change::Opened(FIRST_REST * 2));
        assert_eq!(breaker.admit(at(15)), Admission::RestsUntil(at(16)));
        assert_eq!(breaker.admit(at(16)), Admission::Admitted);
        assert_eq!(breaker.admit(at(46)), Admission::Admitted, "the one that was to show it never came back");
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert!(breaker.is_closed());
        assert_eq!(breaker.succeeded(), Change::None);
    }

    #[test]
    fn rests_are_bounded_and_a_success_forgets() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Admission::RestsUntil(now + FIRST_REST), "late failures do not count");
        for _ in 0..10 {
            now += LONGEST_REST;
            assert_eq!(breaker.admit(now), Admission::Admitted);
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Admission::RestsUntil(now + LONGEST_REST));
        breaker.succeeded();
        assert_eq!(breaker.failed(now), Change::None);
    }
}
