//! The earliest start time of a chat in this run of the gateway. The lease tells recorders this time, so that a clock that
//! is set back does not make living chats look like chats of an earlier run.

use std::sync::atomic::{AtomicI64, Ordering};

use time::OffsetDateTime;

/// The earliest start time so far, in microseconds since 1970. Cheap to note for each chat.
#[derive(Debug)]
pub struct EarliestStart(AtomicI64);

impl Default for EarliestStart {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl EarliestStart {
    /// Notes the start time of a chat.
    pub fn note(&self, started_at: OffsetDateTime) {
        let micros = i64::try_from(started_at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MIN);
        if micros < self.0.load(Ordering::Relaxed) {
            self.0.fetch_min(micros, Ordering::Relaxed);
        }
    }

    /// Returns the earlier of `since` and the earliest start time.
    pub fn or_earlier(&self, since: OffsetDateTime) -> OffsetDateTime {
        let micros = i128::from(self.0.load(Ordering::Relaxed));
        OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).map_or(since, |earliest| earliest.min(since))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_earliest_start_stays_when_the_clock_jumps() {
        let (earliest, since) = (EarliestStart::default(), datetime!(2026-12-01 12:00 UTC));
        assert_eq!(earliest.or_earlier(since), since, "no chat has started");
        earliest.note(datetime!(2026-12-01 12:30 UTC));
        assert_eq!(earliest.or_earlier(since), since);
        earliest.note(datetime!(2026-12-01 11:40:00.000_001 UTC));
        earliest.note(datetime!(2026-12-02 11:40 UTC));
        assert_eq!(earliest.or_earlier(since), datetime!(2026-12-01 11:40:00.000_001 UTC));
    }
}
