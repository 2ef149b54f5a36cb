//! The error of a call that a limit refuses.

use http::StatusCode;
use shared::nanodollars::to_dollars;

use super::ApiError;
use crate::grants::admission::{LimitKind, LimitRefusal};
use crate::limit_headers::LimitHeaders;

/// The longest wait for the next period of a budget that clients are asked for, in seconds.
const MAX_WAIT_SECONDS: u64 = 60;

impl From<Box<LimitRefusal>> for ApiError {
    /// 429: a limit of the user, key, project, model or deployment is reached. Waiting helps, unless the limit is 0, or is a budget whose
    /// period ends later than clients wait.
    fn from(refusal: Box<LimitRefusal>) -> Self {
        let reached = &refusal.reached;
        let (scope, limit) = (&reached.scope, reached.limit);
        let (what, code) = match reached.kind {
            LimitKind::Requests => ("requests in a minute", "requests_per_minute_exceeded"),
            LimitKind::Tokens => ("tokens in a minute", "tokens_per_minute_exceeded"),
            LimitKind::Concurrent => ("calls at the same time", "concurrent_chats_exceeded"),
            LimitKind::Budget | LimitKind::BudgetWithoutPrice | LimitKind::BudgetWithoutBound => {
                return Self::from_budget(&refusal);
            }
        };
        let seconds = reached.reset_seconds.unwrap_or(1);
        let advice = if limit == 0 { String::new() } else { format!("; try again in {seconds} s") };
        let message = format!("the limit of {limit} {what} of {scope} is reached{advice}");
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some(code), message);
        error.limits = LimitHeaders::new(&refusal.limits).map(Box::new);
        if limit == 0 { error.forbid_retry() } else { error.retry_after(seconds) }
    }
}

impl ApiError {
    /// 429: the budget does not suffice for the call. 403: the budget admits no calls without a known price. 400: the budget admits no
    /// calls whose greatest cost is not known.
    fn from_budget(refusal: &LimitRefusal) -> Self {
        let reached = &refusal.reached;
        let scope = &reached.scope;
        let mut error = match reached.kind {
            LimitKind::BudgetWithoutPrice => {
                let message = format!("the budget of {scope} admits no calls of models without a known price");
                Self::new(StatusCode::FORBIDDEN, "permission_error", Some("budget_without_price"), message)
            }
            LimitKind::BudgetWithoutBound => {
                let message = format!(
                    "the budget of {scope} admits only calls with a bound of their cost: name the maximum number of tokens of the answer"
                );
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("budget_without_bound"), message)
            }
            _ => {
                let amount = to_dollars(reached.limit);
                let begins = reached.reset_seconds.map(|seconds| format!("; the next period begins in {seconds} s"));
                let begins = begins.unwrap_or_default();
                let message = format!("the budget of ${amount} of {scope} does not suffice for the call{begins}");
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("budget_exceeded"), message)
            }
        };
        error.limits = LimitHeaders::new(&refusal.limits).map(Box::new);
        match reached.reset_seconds {
            Some(seconds) if seconds <= MAX_WAIT_SECONDS && reached.kind == LimitKind::Budget => {
                error.retry_after(seconds)
            }
            _ => error.forbid_retry(),
        }
    }
}
