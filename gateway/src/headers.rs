//! Filters for headers, in both directions between client and upstream.
//!
//! All headers pass except three kinds: hop-by-hop headers (RFC 9110, 7.6.1), credentials of the caller or of the
//! gateway, and headers that the gateway sets itself.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Response header with the chat's id.
pub const CHAT_ID: HeaderName = HeaderName::from_static("x-chat-id");
/// Response header with the conversation's id, which the client sends back with the next chat of the conversation.
pub const CONVERSATION_ID: HeaderName = HeaderName::from_static("x-conversation-id");
/// Response header with the request's id: the upstream's if present, else the caller's, else the chat's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const UI_MESSAGE_STREAM: HeaderName = HeaderName::from_static("x-vercel-ai-ui-message-stream");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Headers that belong to a single connection. Never passed on.
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

/// Request headers that are not forwarded to the upstream: credentials, headers that the gateway's own request sets,
/// and headers that tell from where a page was loaded. `accept-encoding` is replaced by `identity`, so that the tap can
/// read the same bytes as the client.
const STRIPPED_FROM_REQUESTS: [&str; 13] = [
    "accept-encoding",
    "api-key",
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    // Idempotency is checked by the gateway. An upstream with the same key would take a retry for a repetition.
    "idempotency-key",
    "origin",
    "referer",
    "x-api-key",
    "x-conversation-id",
];

/// Response headers that are not forwarded to the client: cookies and authentication challenges of the provider,
/// policies that would apply to the gateway's origin instead of the provider's, and addresses that lead around the
/// gateway.
const STRIPPED_FROM_RESPONSES: [&str; 6] =
    ["alt-svc", "location", "set-cookie", "strict-transport-security", "www-authenticate", "content-security-policy"];

/// Filters the caller's request headers for the upstream.
pub fn for_upstream(headers: &HeaderMap) -> HeaderMap {
    let is_forwarded = |name: &str| {
        !HOP_BY_HOP.contains(&name)
            && !STRIPPED_FROM_REQUESTS.contains(&name)
            && !name.starts_with("sec-")
            && !name.starts_with("x-forwarded-")
            && !name.starts_with("x-stenograph-")
    };
    let mut forwarded = filter(headers, is_forwarded);
    forwarded.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    forwarded
}

/// Filters the upstream's response headers for the client.
pub fn for_client(mut headers: HeaderMap) -> HeaderMap {
    let is_stream = is_event_stream(&headers);
    let is_forwarded = |name: &str| {
        !HOP_BY_HOP.contains(&name) && !STRIPPED_FROM_RESPONSES.contains(&name) && !name.starts_with("access-control-")
    };
    let options = connection_options(&headers);
    let is_stripped = |name: &HeaderName| !is_forwarded(name.as_str()) || contains_name(name, &options);
    let stripped: Vec<HeaderName> = headers.keys().filter(|name| is_stripped(name)).cloned().collect();
    for name in stripped {
        headers.remove(name);
    }
    if is_stream {
        // The gateway may insert SSE comments, so the length can change, and proxies must not buffer the stream.
        headers.remove(header::CONTENT_LENGTH);
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        headers.entry(X_ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
    }
    headers
}

/// True if `content-type` is `text/event-stream`, with or without parameters.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()));
    content_type.is_some_and(|content_type| content_type.eq_ignore_ascii_case(EVENT_STREAM))
}

/// Rewrites the headers of a response whose body is converted to a UI message stream.
pub fn for_ui_stream(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(UI_MESSAGE_STREAM, HeaderValue::from_static("v1"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers
}

/// The headers accepted by `is_forwarded`, without those named in `Connection`.
fn filter(headers: &HeaderMap, is_forwarded: impl Fn(&str) -> bool) -> HeaderMap {
    let options = connection_options(headers);
    let mut forwarded = HeaderMap::with_capacity(headers.len());
    for (name, value) in
        headers.iter().filter(|(name, _)| is_forwarded(name.as_str()) && !contains_name(name, &options))
    {
        forwarded.append(name.clone(), value.clone());
    }
    forwarded
}

fn connection_options(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect()
}

fn contains_name(name: &HeaderName, names: &[String]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name.as_str()))
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
    fn credentials_and_hop_by_hop_headers_are_not_forwarded() {
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
        assert_eq!(for_upstream(&sent), kept);
    }

    #[test]
    fn event_streams_are_marked_as_not_to_be_buffered() {
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
        assert_eq!(for_client(sent), expected);
        assert!(is_event_stream(&headers(&[("content-type", "Text/Event-Stream;charset=utf-8")])));
        assert!(!is_event_stream(&headers(&[("content-type", "text/event")])));
    }
}
