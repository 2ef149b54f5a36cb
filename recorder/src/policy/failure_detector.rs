//! Failure detector for gateways: decides from observed leases which gateways are lost. `orphans` observes the leases,
//! and ends the chats of lost gateways.
//!
//! A missing lease alone proves nothing: a gateway cannot renew a lease while the broker is away. A gateway counts as
//! lost only if every observation during the whole grace period found no lease, no observation failed, and no pause
//! between two observations was longer than the maximum interval.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::lease::Lease;
use time::OffsetDateTime;
use uuid::Uuid;

/// A gateway with open chats, as found in the `chats` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGateway {
    /// The name of the gateway's instance, as recorded with the gateway's chats.
    pub gateway: String,
    /// The start time of the oldest open chat of this gateway.
    pub oldest: OffsetDateTime,
}

/// A lost gateway, or a lost earlier run of a gateway, whose open chats are to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostGateway {
    /// The name of the lost gateway's instance.
    pub gateway: String,
    /// A time before which no chat of the gateway's present run has started: only chats older than this time are lost, as
    /// the present run ends its own chats. `None`: no present run, so all open chats are lost.
    pub started_before: Option<OffsetDateTime>,
    /// The stream sequence up to which the tables must be complete before a chat is ended; otherwise an end already in
    /// the stream would be overlooked.
    pub required_sequence: u64,
}

/// The state of the detector: since when each lease has been missing.
#[derive(Debug)]
pub struct FailureDetector {
    grace: Duration,
    /// The longest pause between two observations. After a longer pause, every grace period starts again.
    max_interval: Duration,
    last_observation: Option<Instant>,
    missing: BTreeMap<String, MissingLease>,
}

/// An observed absence: the lease of a gateway's run has been missing since this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MissingLease {
    since: Instant,
    required_sequence: u64,
    /// The later run of the gateway, if a lease of a later run exists.
    successor: Option<Uuid>,
}

impl FailureDetector {
    /// Creates a detector. `grace` is the time a lease must be missing; `max_interval` is the longest allowed pause
    /// between two observations.
    pub fn new(grace: Duration, max_interval: Duration) -> Self {
        Self { grace, max_interval, last_observation: None, missing: BTreeMap::new() }
    }

    /// Forgets all absences, after a failed observation: every grace period starts again.
    pub fn reset(&mut self) {
        self.missing.clear();
        self.last_observation = None;
    }

    /// Returns the number of gateways with an observed absence: a missing lease, or open chats of an earlier run.
    pub fn missing_count(&self) -> usize {
        self.missing.len()
    }

    /// Records an observation and returns the lost gateways. `seen` holds each gateway with open chats, and the
    /// gateway's lease if found; `last_sequence` is the stream's last sequence.
    pub fn observe(
        &mut self,
        now: Instant,
        last_sequence: u64,
        seen: &[(OpenGateway, Option<Lease>)],
    ) -> Vec<LostGateway> {
        if self.last_observation.is_some_and(|last| now.saturating_duration_since(last) > self.max_interval) {
            self.reset();
        }
        self.last_observation = Some(now);
        self.missing.retain(|gateway, _| seen.iter().any(|(open, _)| open.gateway == *gateway));
        seen.iter().filter_map(|(open, lease)| self.evaluate(now, last_sequence, open, lease.as_ref())).collect()
    }

    /// Raises the required sequence after ends of the gateway's chats were published, up to the sequence of the last
    /// end: no chat is ended twice before the tables hold the first end.
    pub fn ends_published(&mut self, gateway: &str, required_sequence: u64) {
        if let Some(missing) = self.missing.get_mut(gateway) {
            missing.required_sequence = missing.required_sequence.max(required_sequence);
        }
    }

    fn evaluate(
        &mut self,
        now: Instant,
        last_sequence: u64,
        open: &OpenGateway,
        lease: Option<&Lease>,
    ) -> Option<LostGateway> {
        // A restarted gateway ends the chats of its earlier run from the journal, but the disk with the journal may be
        // lost.
        let successor = lease.map(|lease| lease.incarnation);
        if lease.is_some_and(|lease| lease.since <= open.oldest) {
            self.missing.remove(&open.gateway);
            return None;
        }
        let fresh = MissingLease { since: now, required_sequence: last_sequence, successor };
        let missing = self.missing.entry(open.gateway.clone()).or_insert(fresh);
        // A different run holds the lease now, or the broker went back in time: the grace period starts again.
        if missing.successor != successor || missing.required_sequence > last_sequence {
            *missing = fresh;
        }
        let is_lost = now.saturating_duration_since(missing.since) >= self.grace;
        is_lost.then(|| LostGateway {
            gateway: open.gateway.clone(),
            started_before: lease.map(|lease| lease.since),
            required_sequence: missing.required_sequence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const START: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
    const GRACE: Duration = Duration::from_secs(60);
    const STEP: Duration = Duration::from_secs(10);

    fn open(seconds: i64) -> OpenGateway {
        OpenGateway { gateway: "g".to_owned(), oldest: START + time::Duration::seconds(seconds) }
    }

    fn lease(since: i64, incarnation: u128) -> Lease {
        let since = START + time::Duration::seconds(since);
        let incarnation = Uuid::from_u128(incarnation);
        Lease { instance: "g".into(), incarnation, journal: None, since, renewed_at: since }
    }

    /// Observes these leases ten seconds apart (`None`: a failed observation), and returns each lost gateway with the
    /// number of the observation.
    fn observations(
        detector: &mut FailureDetector,
        from: Instant,
        leases: &[Option<Option<Lease>>],
    ) -> Vec<(usize, LostGateway)> {
        let mut lost = Vec::new();
        for (n, lease) in leases.iter().enumerate() {
            match lease {
                Some(lease) => {
                    let at = from + STEP * u32::try_from(n).unwrap();
                    lost.extend(detector.observe(at, 7, &[(open(5), lease.clone())]).into_iter().map(|lost| (n, lost)));
                }
                None => detector.reset(),
            }
        }
        lost
    }

    fn first_lost(leases: &[Option<Option<Lease>>]) -> Option<usize> {
        let mut detector = FailureDetector::new(GRACE, STEP * 2);
        observations(&mut detector, Instant::now(), leases).first().map(|(n, _)| *n)
    }

    #[test]
    fn a_gateway_is_lost_when_its_lease_is_missing_for_the_whole_grace() {
        let gone = Some(None);
        assert_eq!(first_lost(&vec![gone.clone(); 6]), None);
        assert_eq!(first_lost(&vec![gone.clone(); 7]), Some(6));
        let held = Some(Some(lease(0, 1)));
        assert_eq!(first_lost(&vec![held.clone(); 20]), None);
        let mut interrupted = vec![gone.clone(); 5];
        interrupted.push(held);
        interrupted.extend(vec![gone; 6]);
        assert_eq!(first_lost(&interrupted), None, "the lease was there in between");
    }

    #[test]
    fn an_unreachable_broker_starts_the_grace_again() {
        let mut leases = vec![Some(None); 6];
        leases.push(None);
        leases.extend(vec![Some(None); 6]);
        assert_eq!(first_lost(&leases), None);
        leases.push(Some(None));
        assert_eq!(first_lost(&leases), Some(13));
    }

    #[test]
    fn a_pause_longer_than_the_interval_starts_the_grace_again() {
        let (mut detector, now) = (FailureDetector::new(GRACE, STEP * 2), Instant::now());
        assert!(detector.observe(now, 7, &[(open(5), None)]).is_empty());
        assert!(detector.observe(now + GRACE * 10, 7, &[(open(5), None)]).is_empty());
    }

    /// A clock that was set back makes new chats older than the lease, until the next renewal tells the earlier time.
    #[test]
    fn a_clock_that_was_set_back_loses_no_chat() {
        let before = Some(Some(lease(0, 1)));
        let jumped = Some(Some(lease(-3600, 1)));
        let mut detector = FailureDetector::new(GRACE, STEP * 2);
        let from = Instant::now();
        let mut looks = vec![before.clone(); 3];
        assert!(observations(&mut detector, from, &looks).is_empty());
        // Five looks in which the lease does not tell yet: shorter than the grace period.
        looks = vec![Some(Some(lease(30, 1))); 5];
        looks.extend(vec![jumped; 20]);
        assert!(observations(&mut detector, from + STEP * 3, &looks).is_empty());
        assert_eq!(detector.missing_count(), 0);
    }

    #[test]
    fn a_restarted_gateway_loses_only_the_chats_of_its_earlier_run() {
        let (mut detector, now) = (FailureDetector::new(GRACE, STEP * 2), Instant::now());
        let restarted = Some(Some(lease(30, 2)));
        let lost = observations(&mut detector, now, &vec![restarted; 7]);
        let started_before = Some(START + time::Duration::seconds(30));
        assert_eq!(lost, [(6, LostGateway { gateway: "g".into(), started_before, required_sequence: 7 })]);
        let again: Vec<_> = (0..20).map(|n| Some(Some(lease(30 + n, n.unsigned_abs().into())))).collect();
        assert_eq!(first_lost(&again), None, "a crash loop is not over yet");
    }

    #[test]
    fn published_ends_raise_the_required_sequence() {
        let (mut detector, now) = (FailureDetector::new(Duration::ZERO, STEP), Instant::now());
        assert_eq!(detector.observe(now, 7, &[(open(5), None)])[0].required_sequence, 7);
        detector.ends_published("g", 9);
        assert_eq!(detector.observe(now, 9, &[(open(5), None)])[0].required_sequence, 9);
        assert_eq!(
            detector.observe(now, 3, &[(open(5), None)])[0].required_sequence,
            3,
            "the broker went back in time"
        );
        assert!(detector.observe(now, 3, &[]).is_empty());
        assert_eq!(detector.missing_count(), 0);
    }
}
