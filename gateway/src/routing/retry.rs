//! The retry policy's decisions: if a failed attempt should be retried, at which upstream, and after how long.
//!
//! Pure: the time and random numbers are passed in.

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, RETRY_AFTER};
use http::{HeaderName, StatusCode};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The first backoff. Each further attempt doubles the backoff.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
/// The maximum backoff, unless the upstream asks for a longer time.
const MAX_BACKOFF: Duration = Duration::from_secs(4);

/// The decision after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// No retry: the response goes to the client.
    Final,
    /// Retry at the same upstream. The duration is the upstream's own `retry-after`, if sent.
    RetrySameUpstream(Option<Duration>),
    /// Retry at the next upstream: another attempt at this one would fail too.
    TryNextUpstream,
}

/// Decides by the status and headers of a response.
pub fn decide(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> RetryDecision {
    if status.is_success() {
        return RetryDecision::Final;
    }
    if status.is_redirection() {
        // A redirect means that the configured address is wrong. A retry would be redirected again.
        return RetryDecision::TryNextUpstream;
    }
    let is_transient = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504 | 520..=524 | 529);
    match headers.get(SHOULD_RETRY).map(http::HeaderValue::as_bytes) {
        Some(b"true") => RetryDecision::RetrySameUpstream(retry_after(headers, now)),
        // `x-should-retry: false` speaks for this upstream only. Another upstream may succeed.
        Some(b"false") if is_transient => RetryDecision::TryNextUpstream,
        _ if is_transient => RetryDecision::RetrySameUpstream(retry_after(headers, now)),
        // The upstream rejects the key, or the account has no credit.
        _ if matches!(status.as_u16(), 401 | 402 | 407) => RetryDecision::TryNextUpstream,
        _ => RetryDecision::Final,
    }
}

/// True if the status counts as a failure of the upstream, as opposed to an error in the request.
pub fn is_upstream_failure(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// The time to wait before the next attempt; the first attempt has the number 1. `chance` is a random number from 0 to
/// 1. Half of the backoff is random, so that chats that failed together are not retried together.
pub fn backoff(attempt: u32, requested: Option<Duration>, chance: f64) -> Duration {
    let own = INITIAL_BACKOFF.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(MAX_BACKOFF);
    match requested {
        // Never earlier than requested, and up to a tenth later, so that not all chats return at once.
        Some(requested) => requested + (requested / 10).min(MAX_BACKOFF).mul_f64(chance),
        None => own / 2 + (own / 2).mul_f64(chance),
    }
}

/// The time that the upstream asks to wait: `retry-after-ms` in milliseconds, else `retry-after` in seconds or as a
/// date.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let number = |name: HeaderName| -> Option<f64> {
        let number: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    if let Some(milliseconds) = number(RETRY_AFTER_MS) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    if let Some(seconds) = number(RETRY_AFTER) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(headers.get(RETRY_AFTER)?.to_str().ok()?).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide_for(status: u16, headers: &[(&'static str, &'static str)]) -> RetryDecision {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        decide(StatusCode::from_u16(status).unwrap(), &headers.collect(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn transient_failures_are_retried() {
        let after = |ms| RetryDecision::RetrySameUpstream(Some(Duration::from_millis(ms)));
        let cases: [(u16, &[_], _); 19] = [
            (200, &[], RetryDecision::Final),
            (200, &[("retry-after", "5")], RetryDecision::Final),
            (301, &[], RetryDecision::TryNextUpstream),
            (304, &[], RetryDecision::TryNextUpstream),
            (307, &[("x-should-retry", "true")], RetryDecision::TryNextUpstream),
            (400, &[], RetryDecision::Final),
            (404, &[], RetryDecision::Final),
            (409, &[], RetryDecision::Final),
            (401, &[], RetryDecision::TryNextUpstream),
            (402, &[], RetryDecision::TryNextUpstream),
            (429, &[], RetryDecision::RetrySameUpstream(None)),
            (429, &[("retry-after", "2")], after(2000)),
            (429, &[("retry-after", "2"), ("retry-after-ms", "70")], after(70)),
            (503, &[("retry-after", "Thu, 01 Jan 1970 00:00:09 GMT")], after(9000)),
            (503, &[("retry-after", "soon")], RetryDecision::RetrySameUpstream(None)),
            (503, &[("retry-after", "-1")], RetryDecision::RetrySameUpstream(None)),
            (529, &[], RetryDecision::RetrySameUpstream(None)),
            (429, &[("x-should-retry", "false")], RetryDecision::TryNextUpstream),
            (409, &[("x-should-retry", "true")], RetryDecision::RetrySameUpstream(None)),
        ];
        for (status, headers, expected) in cases {
            assert_eq!(decide_for(status, headers), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn backoffs_grow_and_are_bounded() {
        assert_eq!(backoff(1, None, 0.0), Duration::from_millis(125));
        assert_eq!(backoff(1, None, 1.0), Duration::from_millis(250));
        assert_eq!(backoff(3, None, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(99, None, 1.0), MAX_BACKOFF);
        let requested = Some(Duration::from_secs(10));
        assert_eq!(backoff(1, requested, 0.0), Duration::from_secs(10), "never earlier than the upstream requested");
        assert_eq!(backoff(1, requested, 1.0), Duration::from_secs(11));
    }
}
