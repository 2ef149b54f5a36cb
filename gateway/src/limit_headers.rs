//! The headers `RateLimit-Policy` and `RateLimit` (IETF draft), which tell a client its limits and what is left of them.

use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::grants::admission::{LimitKind, LimitStatus, scope_label};

/// The limits: `"requests-user";q=60;w=60`.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of the limits, and the seconds until the window ends: `"requests-user";r=59;t=12`.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The headers of one response.
#[derive(Clone, Debug)]
pub struct LimitHeaders {
    policy: HeaderValue,
    state: HeaderValue,
}

impl LimitHeaders {
    /// Returns the headers for these limits; none without a limit.
    pub fn new(limits: &[LimitStatus]) -> Option<Self> {
        let (mut policy, mut state) = (String::new(), String::new());
        for status in limits {
            for text in [&mut policy, &mut state].into_iter().filter(|text| !text.is_empty()) {
                text.push_str(", ");
            }
            let scope = scope_label(&status.scope);
            let (kind, unit) = match status.kind {
                LimitKind::Requests => ("requests", ""),
                LimitKind::Tokens => ("tokens", ";qu=\"tokens\""),
                LimitKind::Concurrent => ("concurrent", ";qu=\"concurrent-requests\""),
                LimitKind::Budget | LimitKind::BudgetWithoutPrice | LimitKind::BudgetWithoutBound => {
                    ("budget", ";qu=\"nanodollars\"")
                }
            };
            let window = status.window_seconds.map(|seconds| format!(";w={seconds}")).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = write!(policy, "\"{kind}-{scope}\";q={}{window}{unit}", status.limit);
            let _ = write!(state, "\"{kind}-{scope}\";r={}", status.remaining);
            if let Some(seconds) = status.reset_seconds {
                let _ = write!(state, ";t={seconds}");
            }
        }
        let value = |text: String| HeaderValue::try_from(text).ok();
        if policy.is_empty() { None } else { Some(Self { policy: value(policy)?, state: value(state)? }) }
    }

    /// Inserts the headers, in place of an upstream's headers of the same name.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy);
        headers.insert(RATE_LIMIT, self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_named_by_its_kind_and_scope() {
        assert!(LimitHeaders::new(&[]).is_none());
        let status = |scope: &str, kind, reset_seconds| LimitStatus {
            scope: scope.parse().unwrap(),
            kind,
            limit: 60,
            remaining: 7,
            reset_seconds,
            window_seconds: reset_seconds.map(|_| 60),
        };
        let limits =
            [status("user:ann", LimitKind::Requests, Some(12)), status("model:o3", LimitKind::Concurrent, None)];
        let mut headers = HeaderMap::new();
        LimitHeaders::new(&limits).unwrap().insert_into(&mut headers);
        let policy = "\"requests-user\";q=60;w=60, \"concurrent-model\";q=60;qu=\"concurrent-requests\"";
        assert_eq!(headers[RATE_LIMIT_POLICY], policy);
        assert_eq!(headers[RATE_LIMIT], "\"requests-user\";r=7;t=12, \"concurrent-model\";r=7");
    }
}
