//! The JSON shape of limits.

use serde::Serialize;
use shared::access::LimitState;
use shared::event::{LimitScope, UsageLimits};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// The limits of a scope.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limits {
    /// The scope: `deployment`, `everyone`, `user:ID`, `project:ID`, `key:ID` or `model:NAME`.
    scope: String,
    /// The maximum number of calls that begin in a minute of the clock (UTC); null for no limit.
    requests_per_minute: Option<u64>,
    /// The maximum number of tokens, of prompts and answers together, in a minute of the clock (UTC); null for no limit.
    tokens_per_minute: Option<u64>,
    /// The maximum number of calls that run at the same time; null for no limit.
    concurrent_chats: Option<u64>,
    /// The time of the last change; null for limits that were never set.
    #[serde(with = "time::serde::rfc3339::option")]
    changed_at: Option<OffsetDateTime>,
    /// The author of the last change; `cli` for the command line.
    changed_by: Option<String>,
}

impl Limits {
    /// The limits of a scope that never had any.
    pub(crate) fn never_set(scope: &LimitScope) -> Self {
        Self::new(scope, UsageLimits::default())
    }

    fn new(scope: &LimitScope, limits: UsageLimits) -> Self {
        let UsageLimits { requests_per_minute, tokens_per_minute, concurrent_chats } = limits;
        let scope = scope.to_string();
        Self { scope, requests_per_minute, tokens_per_minute, concurrent_chats, changed_at: None, changed_by: None }
    }
}

impl From<LimitState> for Limits {
    fn from(state: LimitState) -> Self {
        let (changed_at, changed_by) = (Some(state.changed.at), Some(state.changed.by));
        Self { changed_at, changed_by, ..Self::new(&state.scope, state.limits) }
    }
}
