//! The conditions under which a recorder records nothing or may lose events, for readiness, the log and the metrics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time after which a batch that is not written yet is a case for an operator: a long wait for a lock, a silent
/// database, or a database that refuses the batch.
pub const MAX_BATCH_WAIT: Duration = Duration::from_secs(60);

/// The conditions, as reported by the source and the batch writer.
#[derive(Debug, Default)]
pub struct Blockage(Mutex<Conditions>);

#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    /// True after the recorder has compared the stream and its consumer with what it needs, and receives events.
    is_bound: bool,
    stream_missing: bool,
    /// True after somebody changed the stream, so that it may drop events.
    settings_changed: bool,
    /// The time at which the batch in hand was ready to be written; `None` without a batch in hand.
    batch_since: Option<Instant>,
    /// True after the database refused the batch in hand for a reason that lies in the database.
    refused: bool,
}

impl Blockage {
    /// Notes that the stream, its consumer and the buckets have the expected settings, and that events are received. Before
    /// that a recorder may still end because of a setting.
    pub fn bound(&self) {
        self.update(|conditions| (conditions.is_bound, conditions.stream_missing) = (true, false));
    }

    /// Notes that the stream, its consumer or a bucket is missing.
    pub fn stream_missing(&self) {
        self.update(|conditions| conditions.stream_missing = true);
    }

    /// Notes that the stream, its consumer and the buckets are there.
    pub fn stream_found(&self) {
        self.update(|conditions| conditions.stream_missing = false);
    }

    /// Notes whether the stream or what belongs to it was changed so that events may be dropped.
    pub fn settings_changed(&self, is_changed: bool) {
        self.update(|conditions| conditions.settings_changed = is_changed);
    }

    /// Notes that a batch is ready to be written.
    pub fn batch_started(&self, now: Instant) {
        self.update(|conditions| (conditions.batch_since, conditions.refused) = (Some(now), false));
    }

    /// Notes that the database refused the batch in hand, or could not be reached.
    pub fn batch_refused(&self) {
        self.update(|conditions| conditions.refused = true);
    }

    /// Notes that the batch in hand was written, or given back.
    pub fn batch_ended(&self) {
        self.update(|conditions| (conditions.batch_since, conditions.refused) = (None, false));
    }

    /// Returns the time for which the batch in hand has been waiting; zero without a batch in hand.
    pub fn batch_wait(&self, now: Instant) -> Duration {
        self.conditions().batch_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Returns the reason for which a recorder is not ready at present; `None` if there is no reason.
    pub fn reason(&self, now: Instant) -> Option<&'static str> {
        let Conditions { is_bound, stream_missing, settings_changed, refused, .. } = self.conditions();
        match () {
            () if stream_missing => Some("the stream, its consumer or a bucket is missing"),
            () if !is_bound => {
                Some("the stream and its consumer have not been compared with the expected settings yet")
            }
            () if settings_changed => {
                Some("the stream or what belongs to it was changed, and may drop events: see the log")
            }
            () if refused => Some("the database does not take the batch in hand"),
            () if self.batch_wait(now) > MAX_BATCH_WAIT => Some("the batch in hand has been waiting for over a minute"),
            () => None,
        }
    }

    fn update(&self, change: impl FnOnce(&mut Conditions)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn conditions(&self) -> Conditions {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_is_blocked_by_its_start_a_missing_stream_a_refusing_database_or_a_long_wait() {
        let (blockage, now) = (Blockage::default(), Instant::now());
        let reason = |after: u64| blockage.reason(now + Duration::from_secs(after));
        assert!(
            reason(0).unwrap().contains("not been compared"),
            "a recorder that just starts may still refuse the stream"
        );
        blockage.stream_found();
        assert!(reason(0).unwrap().contains("not been compared"));
        blockage.bound();
        assert_eq!(reason(0), None);
        blockage.stream_missing();
        assert!(reason(0).unwrap().contains("stream"));
        blockage.stream_found();
        blockage.settings_changed(true);
        assert!(reason(0).unwrap().contains("drop events"));
        blockage.settings_changed(false);
        blockage.batch_started(now);
        assert_eq!(reason(60), None);
        assert!(reason(61).unwrap().contains("minute"));
        blockage.batch_refused();
        assert!(reason(0).unwrap().contains("database"));
        blockage.batch_ended();
        assert_eq!((reason(1000), blockage.batch_wait(now + MAX_BATCH_WAIT)), (None, Duration::ZERO));
    }
}
