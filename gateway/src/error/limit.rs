//! The error of a call that a limit refuses.

use http::StatusCode;

use super::ApiError;
use crate::grants::admission::{LimitKind, LimitRefusal};
use crate::limit_headers::LimitHeaders;

impl From<Box<LimitRefusal>> for ApiError {
    /// 429: a limit of the user, key, project, model or deployment is reached. Waiting helps, unless the limit is 0.
    fn from(refusal: Box<LimitRefusal>) -> Self {
        let reached = &refusal.reached;
        let (scope, limit) = (&reached.scope, reached.limit);
        let (what, code) = match reached.kind {
            LimitKind::Requests => ("requests in a minute", "requests_per_minute_exceeded"),
            LimitKind::Tokens => ("tokens in a minute", "tokens_per_minute_exceeded"),
            LimitKind::Concurrent => ("calls at the same time", "concurrent_chats_exceeded"),
        };
        let seconds = reached.reset_seconds.unwrap_or(1);
        let advice = if limit == 0 { String::new() } else { format!("; try again in {seconds} s") };
        let message = format!("the limit of {limit} {what} of {scope} is reached{advice}");
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some(code), message);
        error.limits = LimitHeaders::new(&refusal.limits).map(Box::new);
        if limit == 0 { error.forbid_retry() } else { error.retry_after(seconds) }
    }
}
