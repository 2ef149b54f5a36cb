//! Overdue chats: chats without an end that are older than the maximum duration, although their gateway is alive.
//!
//! The age of a chat counts by two clocks, and both must agree: the recorder's own, and the gateway's at the last renewal
//! of its lease. A clock that jumps, of either machine, therefore makes no chat overdue.

use std::time::Duration;

use shared::lease::Lease;
use time::OffsetDateTime;

use super::failure_detector::OpenGateway;

/// Chats past the maximum duration, to be ended once the tables hold every event up to `required_sequence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverdueChats {
    /// The gateways with overdue chats. Every open chat of the gateway with a start before the given time is overdue.
    pub gateways: Vec<(String, OffsetDateTime)>,
    /// The stream sequence up to which every event must be acknowledged, so that an end already in the stream is not
    /// overlooked.
    pub required_sequence: u64,
}

impl OverdueChats {
    /// Finds the overdue chats among the open chats of gateways, each with the gateway's lease if found. `None` if no chat
    /// is overdue. Chats of a gateway without a lease are never overdue: the failure detector decides about the gateway.
    pub fn find(
        now: OffsetDateTime,
        longest_chat: Duration,
        last_sequence: u64,
        seen: &[(OpenGateway, Option<Lease>)],
    ) -> Option<Self> {
        let overdue = seen.iter().filter_map(|(open, lease)| {
            let started_before = lease.as_ref()?.renewed_at.min(now) - longest_chat;
            (open.oldest < started_before).then(|| (open.gateway.clone(), started_before))
        });
        let gateways: Vec<_> = overdue.collect();
        (!gateways.is_empty()).then_some(Self { gateways, required_sequence: last_sequence })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-12-01 12:00 UTC);
    const LONGEST: Duration = Duration::from_secs(24 * 3600);

    /// Looks at a chat of this age, with both clocks set wrong by so many hours.
    fn is_overdue(age: i64, recorder_ahead: i64, gateway_ahead: i64, gateway_ahead_at_start: i64) -> bool {
        let hours = time::Duration::hours;
        let oldest = NOON - hours(age) + hours(gateway_ahead_at_start);
        let renewed_at = NOON + hours(gateway_ahead);
        let lease =
            Lease { instance: "g".into(), incarnation: Uuid::nil(), journal: None, since: renewed_at, renewed_at };
        let seen = [(OpenGateway { gateway: "g".into(), oldest }, Some(lease))];
        OverdueChats::find(NOON + hours(recorder_ahead), LONGEST, 7, &seen).is_some()
    }

    #[test]
    fn a_chat_is_overdue_by_both_clocks() {
        assert!(is_overdue(25, 0, 0, 0));
        assert!(!is_overdue(23, 0, 0, 0));
        for hours in [-1000, -48, 48, 1000] {
            assert!(!is_overdue(1, hours, 0, 0), "the recorder's clock jumped by {hours} h");
            assert!(!is_overdue(1, 0, hours, 0), "the gateway's clock jumped by {hours} h after the start");
            assert!(!is_overdue(1, 0, hours, hours), "the gateway's clock was wrong by {hours} h all the time");
        }
    }

    #[test]
    fn a_chat_of_a_gateway_without_a_lease_is_not_overdue() {
        let seen = [(OpenGateway { gateway: "g".into(), oldest: NOON - LONGEST * 3 }, None)];
        assert_eq!(OverdueChats::find(NOON, LONGEST, 7, &seen), None);
    }
}
