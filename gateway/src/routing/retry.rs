//! Whether a try that failed is worth another, where, and after how long.
//!
//! Pure: the time and chance are passed in.

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, RETRY_AFTER};
use http::{HeaderName, StatusCode};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The first pause, doubled with each further try.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause of our own making.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What is to be done about an answer, or about none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the client's.
    Final,
    /// Another try at the same upstream may help, after this long where it said so.
    Again(Option<Duration>),
    /// Only another upstream may help.
    Elsewhere,
}

/// Judges the head of a response.
pub fn verdict(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Verdict {
    if status.is_success() {
        return Verdict::Final;
    }
    if status.is_redirection() {
        // The address is wrong, and stays so.
        return Verdict::Elsewhere;
    }
    let may_help = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504 | 520..=524 | 529);
    match headers.get(SHOULD_RETRY).map(http::HeaderValue::as_bytes) {
        Some(b"true") => Verdict::Again(retry_after(headers, now)),
        // It knows about itself, not about others.
        Some(b"false") if may_help => Verdict::Elsewhere,
        _ if may_help => Verdict::Again(retry_after(headers, now)),
        // The key is not accepted, or not paid for.
        _ if matches!(status.as_u16(), 401 | 402 | 407) => Verdict::Elsewhere,
        _ => Verdict::Final,
    }
}

/// Whether this status says that something is wrong with the upstream as such.
pub fn is_ill(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// How long to wait before the next try, the first being number 1. `chance` is from 0 to 1: all of the pause but for half of
/// it is left to chance, so that chats that failed together do not come back together.
pub fn pause(tries: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let own = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
    match asked {
        // Not before it was asked for, and not all at once then.
        Some(asked) => asked + (asked / 10).min(LONGEST_PAUSE).mul_f64(chance),
        None => own / 2 + (own / 2).mul_f64(chance),
    }
}

/// What the upstream asked for: milliseconds, else seconds or a date.
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

    fn judge(status: u16, headers: &[(&'static str, &'static str)]) -> Verdict {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        verdict(StatusCode::from_u16(status).unwrap(), &headers.collect(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let after = |ms| Verdict::Again(Some(Duration::from_millis(ms)));
        let cases: [(u16, &[_], _); 19] = [
            (200, &[], Verdict::Final),
            (200, &[("retry-after", "5")], Verdict::Final),
            (301, &[], Verdict::Elsewhere),
            (304, &[], Verdict::Elsewhere),
            (307, &[("x-should-retry", "true")], Verdict::Elsewhere),
            (400, &[], Verdict::Final),
            (404, &[], Verdict::Final),
            (409, &[], Verdict::Final),
            (401, &[], Verdict::Elsewhere),
            (402, &[], Verdict::Elsewhere),
            (429, &[], Verdict::Again(None)),
            (429, &[("retry-after", "2")], after(2000)),
            (429, &[("retry-after", "2"), ("retry-after-ms", "70")], after(70)),
            (503, &[("retry-after", "Thu, 01 Jan 1970 00:00:09 GMT")], after(9000)),
            (503, &[("retry-after", "soon")], Verdict::Again(None)),
            (503, &[("retry-after", "-1")], Verdict::Again(None)),
            (529, &[], Verdict::Again(None)),
            (429, &[("x-should-retry", "false")], Verdict::Elsewhere),
            (409, &[("x-should-retry", "true")], Verdict::Again(None)),
        ];
        for (status, headers, expected) in cases {
            assert_eq!(judge(status, headers), expected, "{status} {headers:?}");
        }
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(pause(1, None, 0.0), Duration::from_millis(125));
        assert_eq!(pause(1, None, 1.0), Duration::from_millis(250));
        assert_eq!(pause(3, None, 1.0), Duration::from_secs(1));
        assert_eq!(pause(99, None, 1.0), LONGEST_PAUSE);
        let asked = Some(Duration::from_secs(10));
        assert_eq!(pause(1, asked, 0.0), Duration::from_secs(10), "never before it was asked for");
        assert_eq!(pause(1, asked, 1.0), Duration::from_secs(11));
    }
}
