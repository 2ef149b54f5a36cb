//! The JSON shape of limits.

use serde::Serialize;
use serde_json::{Value, json};
use shared::access::LimitState;
use shared::budget_window::BudgetWindow;
use shared::event::{Budget, LimitScope, UsageLimits};
use shared::nanodollars::to_dollars;
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
    /// The money that the calls may cost in a period; null for no budget.
    budget: Option<BudgetView>,
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
        let UsageLimits { requests_per_minute, tokens_per_minute, concurrent_chats, budget } = limits;
        Self {
            scope: scope.to_string(),
            requests_per_minute,
            tokens_per_minute,
            concurrent_chats,
            budget: budget.map(|budget| BudgetView::from(*budget)),
            changed_at: None,
            changed_by: None,
        }
    }
}

impl From<LimitState> for Limits {
    fn from(state: LimitState) -> Self {
        let (changed_at, changed_by) = (Some(state.changed.at), Some(state.changed.by));
        Self { changed_at, changed_by, ..Self::new(&state.scope, state.limits) }
    }
}

/// A budget.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BudgetView {
    /// The amount in dollars, such as `25.00`.
    amount: String,
    /// `USD`.
    currency: &'static str,
    /// `hour`, `day`, `week`, `month` or `total`. Clients must accept words that they do not know.
    period: String,
    /// The time zone in which periods begin.
    time_zone: String,
    /// `finish`, `cut`, `strict` or `soft`. Clients must accept words that they do not know.
    policy: String,
    /// The treatment of calls without a known price: `allow` or `refuse`. Clients must accept words that they do not know.
    unpriced: String,
    /// `refuse`, or the amount in dollars that each gateway may spend in a period while the broker is away: `{"allowance": "5.00"}`.
    #[schema(value_type = Object)]
    when_broker_away: Value,
}

impl From<Budget> for BudgetView {
    fn from(budget: Budget) -> Self {
        let offline = budget.offline_nanodollars;
        Self {
            amount: to_dollars(budget.amount_nanodollars),
            currency: "USD",
            period: budget.period.as_str().to_owned(),
            time_zone: budget.time_zone,
            policy: budget.policy.as_str().to_owned(),
            unpriced: budget.unpriced.as_str().to_owned(),
            when_broker_away: match offline {
                0 => json!("refuse"),
                allowance => json!({ "allowance": to_dollars(allowance) }),
            },
        }
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
    /// The limit's name: requestsPerMinute, tokensPerMinute, concurrentChats or budget. Clients must accept words that they do not know.
    kind: &'static str,
    /// The maximum; for a budget in nano-dollars (10^-9 US dollars).
    max: u64,
    /// The recorded use, in the unit of the maximum; null for a limit that counts the calls of other users too.
    used: Option<u64>,
    /// The time from which the use is counted anew; null for calls at the same time.
    #[serde(with = "time::serde::rfc3339::option")]
    resets_at: Option<OffsetDateTime>,
}

impl OwnLimit {
    /// The limits of one scope. `used` is none for a scope that counts the calls of other users too.
    pub(crate) fn all(state: &LimitState, name: Option<&str>, used: Option<Used>) -> Vec<Self> {
        let &UsageLimits { requests_per_minute, tokens_per_minute, concurrent_chats, .. } = &state.limits;
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

    /// The budget of a scope. `spent` is none for a scope that counts the calls of other users too.
    pub(crate) fn budget(
        scope: &LimitScope,
        name: Option<&str>,
        (budget, window): (&Budget, BudgetWindow),
        spent: Option<u64>,
    ) -> Self {
        Self {
            scope: scope.to_string(),
            name: name.map(str::to_owned),
            kind: "budget",
            max: budget.amount_nanodollars,
            used: spent,
            resets_at: Some(window.end)
                .filter(|_| !window.is_total())
                .and_then(|end| OffsetDateTime::from_unix_timestamp(end).ok()),
        }
    }
}
