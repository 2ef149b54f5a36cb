//! Which headers pass, in either direction.
//!
//! Everything passes but what belongs to one connection (RFC 9110, 7.6.1), what proves the caller or the gateway, and what
//! the gateway answers for itself.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The chat's id.
pub const CHAT_ID: HeaderName = HeaderName::from_static("x-chat-id");
/// The conversation's id, to be sent back with the next chat of it.
pub const CONVERSATION_ID: HeaderName = HeaderName::from_static("x-conversation-id");
/// The request's id: the upstream's if it gave one, else the caller's, else the chat's.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const UI_MESSAGE_STREAM: HeaderName = HeaderName::from_static("x-vercel-ai-ui-message-stream");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Headers of one connection, never passed on.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Request headers that stop here: credentials, what the gateway's own request has its own of, and what tells the upstream
/// where a page was loaded from. Compression is not asked for, so that the tap reads what the client reads.
const NOT_TO_UPSTREAM: [&str; 13] = [
    "accept-encoding",
    "api-key",
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    // It is the gateway's: an upstream that knew it too would take a retry for a repetition.
    "idempotency-key",
    "origin",
    "referer",
    "x-api-key",
    "x-conversation-id",
];

/// Response headers that stop here: the provider's cookies and challenges, what says how pages may use the provider's
/// origin rather than ours, and what leads past the gateway.
const NOT_TO_CLIENT: [&str; 6] =
    ["alt-svc", "location", "set-cookie", "strict-transport-security", "www-authenticate", "content-security-policy"];

/// The caller's headers as the upstream gets them.
pub fn to_upstream(headers: &HeaderMap) -> HeaderMap {
    let passes = |name: &str| {
        !HOP_BY_HOP.contains(&name)
            && !NOT_TO_UPSTREAM.contains(&name)
            && !name.starts_with("sec-")
            && !name.starts_with("x-forwarded-")
            && !name.starts_with("x-stenograph-")
    };
    let mut passed = pass(headers, passes);
    passed.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    passed
}

/// The upstream's headers as the client gets them.
pub fn to_client(mut headers: HeaderMap) -> HeaderMap {
    let is_stream = is_event_stream(&headers);
    let passes = |name: &str| {
        !HOP_BY_HOP.contains(&name) && !NOT_TO_CLIENT.contains(&name) && !name.starts_with("access-control-")
    };
    let named = named_by_connection(&headers);
    let is_stopped = |name: &HeaderName| !passes(name.as_str()) || is_among(name, &named);
    let stopped: Vec<HeaderName> = headers.keys().filter(|name| is_stopped(name)).cloned().collect();
    for name in stopped {
        headers.remove(name);
    }
    if is_stream {
        // Comments may be put in, and no proxy may collect them.
        headers.remove(header::CONTENT_LENGTH);
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        headers.entry(ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
    }
    headers
}

/// Whether these are the headers of an event stream.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
}

/// The headers of an answer that is told as a UI message stream.
pub fn of_ui_stream(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(UI_MESSAGE_STREAM, HeaderValue::from_static("v1"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers
}

/// The headers that pass, without those that `Connection` names.
fn pass(headers: &HeaderMap, passes: impl Fn(&str) -> bool) -> HeaderMap {
    let named = named_by_connection(headers);
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| passes(name.as_str()) && !is_among(name, &named)) {
        passed.append(name.clone(), value.clone());
    }
    passed
}

fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect()
}

fn is_among(name: &HeaderName, named: &[String]) -> bool {
    named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        pairs.fold(HeaderMap::new(), |mut all, (name, value)| {
            all.append(name, value);
            all
        })
    }

    #[test]
    fn credentials_and_connections_stop_here() {
        let sent = headers(&[
            ("authorization", "Bearer t"),
            ("cookie", "stenograph_session=t"),
            ("x-api-key", "t"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("openai-organization", "o"),
            ("accept-encoding", "gzip"),
            ("anthropic-beta", "a"),
            ("anthropic-beta", "b"),
        ]);
        let kept = headers(&[
            ("openai-organization", "o"),
            ("anthropic-beta", "a"),
            ("anthropic-beta", "b"),
            ("accept-encoding", "identity"),
        ]);
        assert_eq!(to_upstream(&sent), kept);
    }

    #[test]
    fn streams_are_not_to_be_collected_on_the_way() {
        let sent = headers(&[
            ("content-type", "text/event-stream; charset=utf-8"),
            ("content-length", "10"),
            ("set-cookie", "cf=1"),
            ("x-ratelimit-remaining-tokens", "7"),
        ]);
        let expected = headers(&[
            ("content-type", "text/event-stream; charset=utf-8"),
            ("x-ratelimit-remaining-tokens", "7"),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
        ]);
        assert_eq!(to_client(sent), expected);
        assert!(is_event_stream(&headers(&[("content-type", "Text/Event-Stream;charset=utf-8")])));
        assert!(!is_event_stream(&headers(&[("content-type", "text/event")])));
    }
}
