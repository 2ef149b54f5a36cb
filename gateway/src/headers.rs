//! Filters for headers, in both directions between client and upstream.
//!
//! To an upstream all headers pass except those that belong to the connection (RFC 9110, 7.6.1), to the caller's
//! credentials, to the proxies in front of the gateway, and those that say who is billed. To a client only the headers of a
//! list pass: those that describe the answer, its limits and its ids.

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
/// headers that tell from where a page was loaded, and headers that proxies add. `accept-encoding` is replaced by
/// `identity`, so that the tap can read the same bytes as the client.
const STRIPPED_FROM_REQUESTS: [&str; 34] = [
    "accept-encoding",
    "api-key",
    "authorization",
    "cdn-loop",
    "client-ip",
    "content-length",
    "cookie",
    "cookie2",
    "dpop",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    // Idempotency is checked by the gateway. An upstream with the same key would take a retry for a repetition.
    "idempotency-key",
    "origin",
    "referer",
    "true-client-ip",
    "via",
    "x-access-token",
    "x-api-key",
    "x-auth-token",
    "x-client-cert",
    "x-client-ip",
    "x-cloud-trace-context",
    "x-cluster-client-ip",
    "x-conversation-id",
    "x-csrf-token",
    "x-forwarded",
    "x-real-ip",
    "x-remote-user",
    "x-request-start",
    "x-scheme",
    "x-user-token",
    "x-xsrf-token",
];

/// The beginnings of request headers that are not forwarded: of browsers, of proxies, of clouds, and of the gateway itself.
const STRIPPED_PREFIXES: [&str; 25] = [
    "ali-",
    "cdn-",
    "cf-",
    "cloudfront-",
    "fastly-",
    "fly-",
    "proxy-",
    "remote-",
    "sec-",
    "ssl-",
    "tailscale-",
    "x-amz-",
    "x-amzn-",
    "x-appengine-",
    "x-auth-request-",
    "x-authentik-",
    "x-azure-",
    "x-envoy-",
    "x-forwarded-",
    "x-goog-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-original-",
    "x-pomerium-",
    "x-stenograph-",
];

/// Request headers that say which organisation and project of the provider's account is billed. With the gateway's key
/// that is for the operator to say, so a caller's are forwarded only on routes that let them pass.
const BILLING_HEADERS: [&str; 4] =
    ["anthropic-organization-id", "anthropic-workspace-id", "openai-organization", "openai-project"];

/// Response headers that are forwarded to the client.
const FORWARDED_TO_CLIENTS: [&str; 28] = [
    "accept-ranges",
    "apim-request-id",
    "cf-ray",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "mistral-correlation-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "traceparent",
    "traceresponse",
    "tracestate",
    "x-amzn-requestid",
    "x-correlation-id",
    "x-generation-id",
    "x-goog-request-id",
    "x-litellm-call-id",
    "x-litellm-model-id",
    "x-ms-client-request-id",
    "x-ms-request-id",
    "x-oneapi-request-id",
    "x-request-id",
    "x-should-retry",
    "x-trace-id",
];

/// The beginnings of response headers that are forwarded to the client: rate limits, and the two families of headers that
/// describe an answer. Members of the families that name the operator's account stop ([`BILLING_HEADERS`]).
const FORWARDED_PREFIXES: [&str; 7] =
    ["anthropic-", "openai-", "ratelimit", "x-rate-limit-", "x-ratelimit-", "x-ms-ratelimit-", "x-ms-azureml-"];

/// The treatment of a caller's headers that say who is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BillingHeaders {
    /// The headers are not forwarded.
    #[default]
    Stop,
    /// The headers are forwarded.
    Pass,
}

/// Filters the caller's request headers for the upstream.
pub fn for_upstream(headers: &HeaderMap, billing: BillingHeaders) -> HeaderMap {
    let is_forwarded = |name: &str| {
        !HOP_BY_HOP.contains(&name)
            && STRIPPED_FROM_REQUESTS.binary_search(&name).is_err()
            && !has_prefix(name, &STRIPPED_PREFIXES)
            && (billing == BillingHeaders::Pass || !BILLING_HEADERS.contains(&name))
    };
    let mut forwarded = filter(headers, is_forwarded);
    forwarded.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    forwarded
}

/// Filters the upstream's response headers for the client, and makes the response inert in a browser: no other type than
/// the declared one, no script and no frame.
pub fn for_client(mut headers: HeaderMap) -> HeaderMap {
    let is_stream = is_event_stream(&headers);
    let is_forwarded = |name: &str| {
        (FORWARDED_TO_CLIENTS.binary_search(&name).is_ok() || has_prefix(name, &FORWARDED_PREFIXES))
            && !BILLING_HEADERS.contains(&name)
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
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    make_inert(&mut headers);
    headers
}

/// Adds the headers that keep a browser from taking a response for a page or a script: bytes of an upstream must do nothing
/// in the user's session.
pub fn make_inert(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
}

fn has_prefix(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
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

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn the_lists_are_sorted_for_the_binary_search() {
        assert!(STRIPPED_FROM_REQUESTS.is_sorted());
        assert!(FORWARDED_TO_CLIENTS.is_sorted());
    }

    #[test]
    fn credentials_billing_and_what_proxies_add_stop_before_the_upstream() {
        let stopped = [
            "authorization",
            "cookie",
            "x-api-key",
            "api-key",
            "x-auth-token",
            "dpop",
            "x-private",
            "x-real-ip",
            "cf-connecting-ip",
            "cf-access-jwt-assertion",
            "true-client-ip",
            "via",
            "x-auth-request-email",
            "x-amzn-trace-id",
            "x-amz-cf-id",
            "x-goog-iap-jwt-assertion",
            "x-forwarded-for",
            "x-stenograph-leaving",
            "sec-fetch-site",
            "openai-organization",
            "openai-project",
        ];
        let passed = [
            "anthropic-beta",
            "anthropic-version",
            "openai-beta",
            "user-agent",
            "x-stainless-retry-count",
            "x-claude-code-session-id",
            "x-task-id",
            "x-unknown",
            "traceparent",
        ];
        let mut sent =
            headers(&[("connection", "close, x-private"), ("accept-encoding", "gzip"), ("anthropic-beta", "b")]);
        for name in stopped.iter().chain(&passed) {
            sent.append(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let forwarded = for_upstream(&sent, BillingHeaders::Stop);
        for name in passed {
            assert!(forwarded.contains_key(name), "{name}");
        }
        assert_eq!(forwarded.len(), passed.len() + 2, "{:?}", names(&forwarded));
        assert_eq!(forwarded["accept-encoding"], "identity");
        assert_eq!(forwarded.get_all("anthropic-beta").iter().count(), 2);
        let billed = for_upstream(&sent, BillingHeaders::Pass);
        assert!(billed.contains_key("openai-organization") && billed.contains_key("openai-project"));
    }

    #[test]
    fn clients_get_the_headers_of_the_list_alone() {
        let stopped = [
            "x-accel-redirect",
            "x-sendfile",
            "x-accel-expires",
            "set-cookie",
            "set-cookie2",
            "clear-site-data",
            "refresh",
            "link",
            "nel",
            "report-to",
            "reporting-endpoints",
            "service-worker-allowed",
            "server",
            "location",
            "www-authenticate",
            "strict-transport-security",
            "access-control-allow-origin",
            "alt-svc",
            "age",
            "expires",
            "etag",
            "openai-organization",
            "x-unknown",
        ];
        let passed = [
            "content-length",
            "retry-after",
            "retry-after-ms",
            "x-should-retry",
            "x-request-id",
            "request-id",
            "openai-processing-ms",
            "openai-model",
            "anthropic-ratelimit-tokens-reset",
            "x-ratelimit-remaining-tokens",
        ];
        let mut sent = headers(&[("content-type", "application/json"), ("cache-control", "public, max-age=3600")]);
        for name in stopped.iter().chain(&passed) {
            sent.append(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let forwarded = for_client(sent);
        for name in passed.iter().chain(&["content-type", "x-content-type-options", "content-security-policy"]) {
            assert!(forwarded.contains_key(*name), "{name}");
        }
        assert_eq!(forwarded.len(), passed.len() + 3, "{:?}", names(&forwarded));
    }

    #[test]
    fn event_streams_are_marked_as_not_to_be_buffered() {
        let sent = headers(&[
            ("content-type", "text/event-stream; charset=utf-8"),
            ("content-length", "10"),
            ("cache-control", "public"),
            ("x-accel-buffering", "yes"),
        ]);
        let expected = headers(&[
            ("content-type", "text/event-stream; charset=utf-8"),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
        ]);
        assert_eq!(for_client(sent), expected);
        assert!(is_event_stream(&headers(&[("content-type", "Text/Event-Stream;charset=utf-8")])));
        assert!(!is_event_stream(&headers(&[("content-type", "text/event")])));
    }
}
