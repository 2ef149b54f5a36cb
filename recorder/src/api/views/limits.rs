//! The JSON shape of limits.

use serde::Serialize;
use shared::access::LimitState;
use shared::event::{LimitScope, UsageLimits};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::reads::limits::RecordedUse;

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

/// The recorded use of a scope, and the end of the present window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// The use in the window.
    pub(crate) recorded: RecordedUse,
    /// The end of the window.
    pub(crate) window_end: OffsetDateTime,
}

/// A limit that applies to calls of the caller.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnLimit {
    /// The scope: `user:ID` for a limit of the caller's own, `everyone` for the default of each user, `deployment`, `project:ID`,
    /// `key:ID` or `model:NAME`.
    scope: String,
    /// The name of the key of the scope.
    name: Option<String>,
    /// The limit's name: requestsPerMinute, tokensPerMinute or concurrentChats. Clients must accept words that they do not know.
    kind: &'static str,
    /// The maximum.
    max: u64,
    /// The recorded use; null for a limit that counts the calls of other users too.
    used: Option<u64>,
    /// The time from which the use is counted anew; null for calls at the same time.
    #[serde(with = "time::serde::rfc3339::option")]
    resets_at: Option<OffsetDateTime>,
}

impl OwnLimit {
    /// The limits of one scope. `used` is none for a scope that counts the calls of other users too.
    pub(crate) fn all(state: &LimitState, name: Option<&str>, used: Option<Used>) -> Vec<Self> {
        let UsageLimits { requests_per_minute, tokens_per_minute, concurrent_chats } = state.limits;
        let recorded = used.map(|used| used.recorded);
        let window_end = used.map(|used| used.window_end);
        let kinds = [
            ("requestsPerMinute", requests_per_minute, recorded.map(|used| used.requests), window_end),
            ("tokensPerMinute", tokens_per_minute, recorded.map(|used| used.tokens), window_end),
            ("concurrentChats", concurrent_chats, recorded.map(|used| used.running), None),
        ];
        let limits = kinds.into_iter().filter_map(|(kind, max, used, resets_at)| {
            let used = used.map(|used| u64::try_from(used).unwrap_or(0));
            Some(Self {
                scope: state.scope.to_string(),
                name: name.map(str::to_owned),
                kind,
                max: max?,
                used,
                resets_at,
            })
        });
        limits.collect()
    }
}
