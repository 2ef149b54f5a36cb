//! Detection of work that stands still: a sync that hangs, or a broker that acknowledges nothing. Each stall is reported
//! once when it begins and once when it ends.

use std::time::{Duration, Instant};

/// The time without progress after which work counts as stalled. With observations every half second, a stall is
/// reported within 4 s.
pub const STALL_LIMIT: Duration = Duration::from_secs(3);

/// Detects that work under way makes no progress. Pure: the time is passed in.
#[derive(Debug, Default)]
pub struct StallDetector {
    work: Option<WorkUnderWay>,
}

#[derive(Clone, Copy, Debug)]
struct WorkUnderWay {
    progress: u64,
    /// The time of the first observation with this progress.
    since: Instant,
    is_reported: bool,
}

/// A change that is worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallChange {
    /// The work has made no progress for the given time, which is at least [`STALL_LIMIT`].
    Began(Duration),
    /// A reported stall is over after the given time.
    Ended(Duration),
}

impl StallDetector {
    /// Records an observation. `progress` is any number that changes with each step of the work; `None` if no work is
    /// under way.
    pub fn observe(&mut self, now: Instant, progress: Option<u64>) -> Option<StallChange> {
        let before = self.work;
        if let (Some(work), Some(progress)) = (&mut self.work, progress)
            && work.progress == progress
        {
            let stalled_for = now.saturating_duration_since(work.since);
            let is_new = !work.is_reported && stalled_for >= STALL_LIMIT;
            work.is_reported |= is_new;
            return is_new.then_some(StallChange::Began(stalled_for));
        }
        self.work = progress.map(|progress| WorkUnderWay { progress, since: now, is_reported: false });
        let ended = before.filter(|work| work.is_reported)?;
        Some(StallChange::Ended(now.saturating_duration_since(ended.since)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stall_is_reported_once_and_its_end_once() {
        let (mut detector, start) = (StallDetector::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(detector.observe(at(0), Some(1)), None);
        assert_eq!(detector.observe(at(2), Some(1)), None);
        assert_eq!(detector.observe(at(3), Some(1)), Some(StallChange::Began(Duration::from_secs(3))));
        assert_eq!(detector.observe(at(60), Some(1)), None);
        assert_eq!(detector.observe(at(61), Some(2)), Some(StallChange::Ended(Duration::from_secs(61))));
        assert_eq!(detector.observe(at(62), None), None);
        assert_eq!(detector.observe(at(70), None), None, "no work is no stall");
        assert_eq!(detector.observe(at(80), Some(2)), None, "the stall begins with the work");
    }

    proptest! {
        /// For random work, reports of beginnings and ends alternate, and only standing work is reported.
        #[test]
        fn reports_alternate_and_are_true(steps in prop::collection::vec((0..3000_u64, prop::option::weighted(0.8, 0..3_u64)), 1..60)) {
            let (mut detector, mut now, mut is_stalled) = (StallDetector::default(), Instant::now(), false);
            let mut unchanged: Option<(Option<u64>, Instant)> = None;
            for (pause, progress) in steps {
                now += Duration::from_millis(pause);
                let since = match unchanged {
                    Some((before, since)) if before == progress => since,
                    _ => now,
                };
                unchanged = Some((progress, since));
                match detector.observe(now, progress) {
                    Some(StallChange::Began(_)) => {
                        prop_assert!(!std::mem::replace(&mut is_stalled, true));
                        prop_assert!(progress.is_some() && now - since >= STALL_LIMIT);
                    }
                    Some(StallChange::Ended(_)) => {
                        prop_assert!(std::mem::replace(&mut is_stalled, false));
                        prop_assert_eq!(since, now);
                    }
                    None => prop_assert!(is_stalled || progress.is_none() || now - since < STALL_LIMIT),
                }
            }
        }
    }
}
