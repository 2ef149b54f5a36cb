//! Which gateways are lost: decided here from what was seen of their leases, acted on in `orphans`.
//!
//! A lease that is gone proves nothing by itself: while the broker was away no gateway could renew its own. So a gateway is
//! lost only when its lease was looked for, and not there, over and over during the whole grace, with no look that failed
//! and no long pause between two looks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::lease::Lease;
use time::OffsetDateTime;
use uuid::Uuid;

/// A gateway with chats under way, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its name.
    pub gateway: String,
    /// When the oldest of these chats started.
    pub oldest: OffsetDateTime,
}

/// Chats to be ended: those of a gateway that started before a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The gateway.
    pub gateway: String,
    /// Its present run is the gateway's own affair. None: there is no present run.
    pub before: Option<OffsetDateTime>,
    /// How far the stream must be in the ledger, so that an end which was already there is not overlooked.
    pub through: u64,
}

/// What has been seen so far.
#[derive(Debug)]
pub struct Vigil {
    grace: Duration,
    /// The longest pause between two looks that still counts as watching.
    pause: Duration,
    last_look: Option<Instant>,
    absent: BTreeMap<String, Absent>,
}

/// Since when a run of a gateway has been seen to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Absent {
    since: Instant,
    through: u64,
    /// The run that took its place. None: none did.
    successor: Option<Uuid>,
}

impl Vigil {
    /// One that waits so long, and is looked at no less often than every `pause`.
    pub fn new(grace: Duration, pause: Duration) -> Self {
        Self { grace, pause, last_look: None, absent: BTreeMap::new() }
    }

    /// Nothing could be seen: whatever was under observation has to be observed anew.
    pub fn blind(&mut self) {
        self.absent.clear();
        self.last_look = None;
    }

    /// How many gateways are missing, as far as is known.
    pub fn missing(&self) -> usize {
        self.absent.len()
    }

    /// Takes a look: the gateways with open chats, each with its lease if there is one, and the stream's last sequence.
    pub fn look(&mut self, now: Instant, last_sequence: u64, seen: &[(Open, Option<Lease>)]) -> Vec<Lost> {
        if self.last_look.is_some_and(|last| now.saturating_duration_since(last) > self.pause) {
            self.blind();
        }
        self.last_look = Some(now);
        self.absent.retain(|gateway, _| seen.iter().any(|(open, _)| open.gateway == *gateway));
        seen.iter().filter_map(|(open, lease)| self.judge(now, last_sequence, open, lease.as_ref())).collect()
    }

    /// Ends were published: what they end is not ended again before the ledger has seen them.
    pub fn published(&mut self, gateway: &str, through: u64) {
        if let Some(absent) = self.absent.get_mut(gateway) {
            absent.through = absent.through.max(through);
        }
    }

    fn judge(&mut self, now: Instant, last_sequence: u64, open: &Open, lease: Option<&Lease>) -> Option<Lost> {
        // A run ends the chats of the one before it, from the journal that it left; but its disk may be lost.
        let successor = lease.map(|lease| lease.incarnation);
        if lease.is_some_and(|lease| lease.since <= open.oldest) {
            self.absent.remove(&open.gateway);
            return None;
        }
        let fresh = Absent { since: now, through: last_sequence, successor };
        let absent = self.absent.entry(open.gateway.clone()).or_insert(fresh);
        // Another run took its place, or the broker went back in time.
        if absent.successor != successor || absent.through > last_sequence {
            *absent = fresh;
        }
        let is_over = now.saturating_duration_since(absent.since) >= self.grace;
        is_over.then(|| Lost {
            gateway: open.gateway.clone(),
            before: lease.map(|lease| lease.since),
            through: absent.through,
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

    fn open(seconds: i64) -> Open {
        Open { gateway: "g".to_owned(), oldest: START + time::Duration::seconds(seconds) }
    }

    fn lease(since: i64, incarnation: u128) -> Lease {
        let since = START + time::Duration::seconds(since);
        Lease { instance: "g".into(), incarnation: Uuid::from_u128(incarnation), since, renewed_at: since }
    }

    /// Looks at these leases, ten seconds apart, and tells what was lost at which look.
    fn looks(vigil: &mut Vigil, from: Instant, leases: &[Option<Option<Lease>>]) -> Vec<(usize, Lost)> {
        let mut lost = Vec::new();
        for (n, lease) in leases.iter().enumerate() {
            match lease {
                Some(lease) => {
                    let at = from + STEP * u32::try_from(n).unwrap();
                    lost.extend(vigil.look(at, 7, &[(open(5), lease.clone())]).into_iter().map(|lost| (n, lost)));
                }
                None => vigil.blind(),
            }
        }
        lost
    }

    fn first_lost(leases: &[Option<Option<Lease>>]) -> Option<usize> {
        let mut vigil = Vigil::new(GRACE, STEP * 2);
        looks(&mut vigil, Instant::now(), leases).first().map(|(n, _)| *n)
    }

    #[test]
    fn a_gateway_is_lost_after_the_whole_grace() {
        let gone = Some(None);
        assert_eq!(first_lost(&vec![gone.clone(); 6]), None);
        assert_eq!(first_lost(&vec![gone.clone(); 7]), Some(6));
        let held = Some(Some(lease(0, 1)));
        assert_eq!(first_lost(&vec![held.clone(); 20]), None);
        let mut interrupted = vec![gone.clone(); 5];
        interrupted.push(held);
        interrupted.extend(vec![gone; 6]);
        assert_eq!(first_lost(&interrupted), None, "it was there in between");
    }

    #[test]
    fn a_broker_that_was_away_proves_nothing() {
        let mut leases = vec![Some(None); 6];
        leases.push(None);
        leases.extend(vec![Some(None); 6]);
        assert_eq!(first_lost(&leases), None);
        leases.push(Some(None));
        assert_eq!(first_lost(&leases), Some(13));
    }

    #[test]
    fn a_recorder_that_slept_has_not_watched() {
        let (mut vigil, now) = (Vigil::new(GRACE, STEP * 2), Instant::now());
        assert!(vigil.look(now, 7, &[(open(5), None)]).is_empty());
        assert!(vigil.look(now + GRACE * 10, 7, &[(open(5), None)]).is_empty());
    }

    #[test]
    fn the_chats_of_an_earlier_run_end_and_those_of_the_present_one_go_on() {
        let (mut vigil, now) = (Vigil::new(GRACE, STEP * 2), Instant::now());
        let restarted = Some(Some(lease(30, 2)));
        let lost = looks(&mut vigil, now, &vec![restarted; 7]);
        let before = Some(START + time::Duration::seconds(30));
        assert_eq!(lost, [(6, Lost { gateway: "g".into(), before, through: 7 })]);
        let again: Vec<_> = (0..20).map(|n| Some(Some(lease(30 + n, n.unsigned_abs().into())))).collect();
        assert_eq!(first_lost(&again), None, "a crash loop is not over yet");
    }

    #[test]
    fn what_was_published_is_waited_for() {
        let (mut vigil, now) = (Vigil::new(Duration::ZERO, STEP), Instant::now());
        assert_eq!(vigil.look(now, 7, &[(open(5), None)])[0].through, 7);
        vigil.published("g", 9);
        assert_eq!(vigil.look(now, 9, &[(open(5), None)])[0].through, 9);
        assert_eq!(vigil.look(now, 3, &[(open(5), None)])[0].through, 3, "the broker went back in time");
        assert!(vigil.look(now, 3, &[]).is_empty());
        assert_eq!(vigil.missing(), 0);
    }
}
