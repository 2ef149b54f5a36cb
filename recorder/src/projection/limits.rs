//! Limits of scopes: the state of a scope's limits, as a row of `limits`. Of the states of a scope, the state with the greatest change
//! id is in force, by the rule of the bucket `ACCESS`.

use shared::access::{Act, LimitState};
use shared::event::{Budget, Event, UsageLimits};

use super::pg_value::{pg_text, pg_timestamp};

/// The limits that an event sets, in the range of a row's columns; none for other events.
pub(super) fn from_event(event: &Event) -> Option<LimitState> {
    let state = LimitState::from_event(event)?;
    let limit = |limit: Option<u64>| limit.map(|limit| limit.min(UsageLimits::MAX));
    Some(LimitState {
        changed: Act { at: pg_timestamp(state.changed.at), by: pg_text(&state.changed.by) },
        limits: UsageLimits {
            requests_per_minute: limit(state.limits.requests_per_minute),
            tokens_per_minute: limit(state.limits.tokens_per_minute),
            concurrent_chats: limit(state.limits.concurrent_chats),
            budget: state.limits.budget.map(|budget| Box::new(in_range(&budget))),
        },
        ..state
    })
}

/// The budget with amounts in their range, and a time zone that a column can hold.
fn in_range(budget: &Budget) -> Budget {
    let zone = pg_text(&budget.time_zone);
    Budget {
        amount_nanodollars: budget.amount(),
        offline_nanodollars: budget.offline_nanodollars.min(Budget::MAX_NANODOLLARS),
        time_zone: zone[..zone.floor_char_boundary(Budget::MAX_ZONE_BYTES)].to_owned(),
        ..budget.clone()
    }
}
