//! The limits of a scope, and the join of states.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::act::Act;
use crate::event::{Event, LimitScope, UsageLimits};

/// The limits of a scope. The state with the greater change id is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// The scope.
    pub scope: LimitScope,
    /// The change that the limits come from.
    pub change_id: Uuid,
    /// The change's time and author.
    pub changed: Act,
    /// The limits.
    pub limits: UsageLimits,
}

impl LimitState {
    /// The limits that an event sets; none for other events.
    pub fn from_event(event: &Event) -> Option<Self> {
        let Event::LimitsChanged(event) = event else { return None };
        Some(Self {
            scope: event.scope.clone(),
            change_id: event.change_id.0,
            changed: Act { at: event.changed_at, by: event.changed_by.to_string() },
            limits: event.limits.clone(),
        })
    }

    /// Joins another state of the same scope. The result is the same in any order and for any repetition.
    pub fn join(&mut self, other: Self) {
        let rank = |state: &Self| (state.change_id, state.changed.clone(), state.limits.clone());
        if rank(&other) > rank(self) {
            *self = other;
        }
    }
}

/// Returns the name of the entry of a scope's limits.
pub fn limit_name(scope: &LimitScope) -> String {
    format!("limit.{}", URL_SAFE_NO_PAD.encode(scope.to_string()))
}
