//! The client of the recorder's HTTP API. Reads and account requests are forwarded to the recorder, so that frontends have
//! a single origin and the gateway has no database.
//!
//! Chats do not depend on the recorder's API. While the API is down, forwarded requests get 503 and chats continue.

pub mod answer;
pub mod made_response;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use shared::client_address::TrustedProxies;
use shared::config::{ConfigError, Environment, http_url};
use shared::fair_share::{FairShare, NoPlace, Place};
use shared::http_client;
use shared::id::{ConversationId, UserId};
use tokio::time::timeout;

use crate::error::ApiError;
use crate::recorder_api::made_response::MadeResponse;

/// The maximum time until the head of the recorder's response arrives.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum number of forwarded requests that wait for a response head at once. Further requests get 503.
const MAX_WAITING: usize = 512;
/// The maximum number of waiting requests of one user, far more than a browser sends at once. Further requests get 429.
const MAX_WAITING_OF_USER: usize = 32;
/// The maximum number of waiting requests without a valid token from one address, such as logins. Many people may share an
/// address.
const MAX_WAITING_OF_ADDRESS: usize = 128;
/// The maximum time to wait until a change is visible to readers. After that the change is reported as pending.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(3);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The request headers that are forwarded to the recorder. All other headers concern only the client and the gateway.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONTENT_TYPE,
    header::ACCEPT,
    header::IF_NONE_MATCH,
    header::USER_AGENT,
    HeaderName::from_static("last-event-id"),
    FORWARDED_PROTO,
];

/// The response headers that are forwarded to the client.
const RESPONSE_HEADERS: [HeaderName; 10] = [
    header::CONTENT_TYPE,
    header::SET_COOKIE,
    header::ETAG,
    header::CACHE_CONTROL,
    header::VARY,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    header::ALLOW,
    header::X_CONTENT_TYPE_OPTIONS,
    header::CONTENT_SECURITY_POLICY,
];

/// The settings of the connection to the recorder's API.
#[derive(Clone, Debug)]
pub struct RecorderApiConfig {
    /// The base URLs of the API: `RECORDER_URL`. Several instances share the load.
    pub urls: Vec<Uri>,
    /// The file with the certificate authorities of the API: `RECORDER_CA_FILE`. `None`: those of the operating system.
    pub authorities: Option<PathBuf>,
    /// The reverse proxies in front of the gateway whose `X-Forwarded-For` entries are believed: `GATEWAY_TRUSTED_PROXIES`.
    pub trusted: TrustedProxies,
}

impl RecorderApiConfig {
    /// Reads the settings. Returns `None` if `RECORDER_URL` is not set.
    pub(crate) fn read(env: &Environment) -> Result<Option<Self>, ConfigError> {
        let networks = "addresses or networks with commas between them, such as 127.0.0.1,10.0.0.0/8";
        let trusted = env.optional_or("GATEWAY_TRUSTED_PROXIES", TrustedProxies::default(), networks)?;
        let urls = env.text("RECORDER_URL").unwrap_or("").split(',').map(str::trim).filter(|url| !url.is_empty());
        let urls: Vec<Uri> = urls.map(|url| http_url("RECORDER_URL", url)).collect::<Result<_, _>>()?;
        let authorities = env.text("RECORDER_CA_FILE").map(PathBuf::from);
        Ok((!urls.is_empty()).then_some(Self { urls, authorities, trusted }))
    }

    /// Returns the client for requests to the API. A file of authorities that cannot be used is an error.
    pub(crate) fn client(&self) -> anyhow::Result<reqwest::Client> {
        Ok(match &self.authorities {
            Some(file) => http_client::client_with(http_client::authorities("RECORDER_CA_FILE", file)?)?,
            None => http_client::client()?,
        })
    }
}

/// A client that distributes requests over the instances of the recorder's API.
#[derive(Debug)]
pub struct RecorderApi {
    client: reqwest::Client,
    /// The base URLs of the instances, used in turn.
    urls: Vec<Uri>,
    next_index: AtomicUsize,
    waiting: Arc<FairShare>,
    trusted: TrustedProxies,
}

/// A client's request to be forwarded to the recorder's API.
#[derive(Debug)]
pub struct ForwardedRequest<'a> {
    /// The HTTP method of the client's request.
    pub method: Method,
    /// The path and the query, beginning with `/`.
    pub path: &'a str,
    /// All headers of the client's request. Only a fixed set of them is forwarded.
    pub headers: &'a HeaderMap,
    /// The complete body of the client's request.
    pub body: Bytes,
    /// The address that the client's connection came from. `None` for requests of the gateway itself.
    pub peer: Option<SocketAddr>,
    /// The authenticated caller. `None` without a valid token: the recorder's API authenticates callers itself.
    pub user: Option<&'a UserId>,
}

impl RecorderApi {
    /// Creates a client for the configured URLs that sends its requests with `client`.
    pub fn new(config: RecorderApiConfig, client: reqwest::Client) -> Self {
        let RecorderApiConfig { urls, trusted, .. } = config;
        Self { client, urls, next_index: AtomicUsize::new(0), waiting: FairShare::new(MAX_WAITING), trusted }
    }

    /// Forwards a request to the recorder's API and returns the response. The body is streamed as it arrives.
    pub async fn forward(&self, request: ForwardedRequest<'_>) -> Result<Response, ApiError> {
        let answer = self.send(&request, HEAD_TIMEOUT).await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        for name in &RESPONSE_HEADERS {
            for value in answer.headers().get_all(name) {
                response.headers_mut().append(name.clone(), value.clone());
            }
        }
        let is_stream = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_stream {
            // The header keeps reverse proxies from buffering the events.
            response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        *response.body_mut() = Body::new(reqwest::Body::from(answer));
        Ok(response)
    }

    /// Waits up to 3 seconds until a change of a conversation is visible to readers. Returns the recorder's response if the
    /// change is visible, and `None` if that could not be confirmed in time.
    pub async fn wait_until_visible(
        &self,
        user: &UserId,
        id: ConversationId,
        change: &str,
        headers: &HeaderMap,
    ) -> Option<Response> {
        let path = format!("/api/conversations/{id}/changes?{change}");
        let (method, user) = (Method::GET, Some(user));
        let request = ForwardedRequest { method, path: &path, headers, body: Bytes::new(), peer: None, user };
        let answer = timeout(VISIBILITY_TIMEOUT, self.forward(request)).await.ok()?.ok()?;
        matches!(answer.status(), StatusCode::OK | StatusCode::NO_CONTENT).then_some(answer)
    }

    /// Asks for the chat that made a response of OpenAI's Responses API for this user, who sent these headers, or that makes the response
    /// in the background. `None` if the caller has no such response. `id` is a plain text that needs no escapes in a path.
    pub async fn made_response(
        &self,
        user: &UserId,
        id: &str,
        headers: &HeaderMap,
    ) -> Result<Option<MadeResponse>, ApiError> {
        let (path, headers) = (format!("/api/responses/{id}"), with_bearer(headers));
        let (method, user) = (Method::GET, Some(user));
        let request = ForwardedRequest { method, path: &path, headers: &headers, body: Bytes::new(), peer: None, user };
        let answer = self.send(&request, HEAD_TIMEOUT).await?;
        match answer.status() {
            StatusCode::OK => {
                Ok(Some(answer.json::<MadeResponse>().await.map_err(|_| ApiError::recorder_unavailable())?))
            }
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(None),
            _ => Err(ApiError::recorder_unavailable()),
        }
    }

    /// Sends a request to one API instance after another until a connection can be opened. Only a failed connection leads
    /// to the next instance, because only then has no instance seen the request.
    async fn send(
        &self,
        request: &ForwardedRequest<'_>,
        head_timeout: Duration,
    ) -> Result<reqwest::Response, ApiError> {
        if has_dot_segments(request.path) {
            return Err(ApiError::no_such_route());
        }
        let _waiting = self.place(request)?;
        let first_index = self.next_index.fetch_add(1, Ordering::Relaxed);
        for attempt in 0..self.urls.len() {
            let base = &self.urls[(first_index + attempt) % self.urls.len()];
            let url = url_below(base, request.path).ok_or_else(ApiError::no_such_route)?;
            let sending = self
                .client
                .request(request.method.clone(), url)
                .headers(self.headers(request))
                .body(request.body.clone())
                .send();
            match timeout(head_timeout, sending).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.is_connect() => {
                    tracing::warn!(url = %base, "cannot connect to the recorder's API");
                }
                Ok(Err(error)) => {
                    tracing::warn!(url = %base, error = %error.without_url(), "a request to the recorder's API failed");
                    break;
                }
                Err(_) => {
                    tracing::warn!(url = %base, "the recorder's API did not respond in time");
                    break;
                }
            }
        }
        Err(ApiError::recorder_unavailable())
    }

    /// Takes a place among the waiting requests.
    fn place(&self, request: &ForwardedRequest<'_>) -> Result<Place, ApiError> {
        let place = match (request.user, request.peer) {
            (Some(user), _) => self.waiting.take(user.as_str(), MAX_WAITING_OF_USER),
            (None, peer) => {
                let address = peer.map(|peer| self.client_address(peer.ip(), request.headers));
                // No user id has a space.
                self.waiting.take(&format!("address {address:?}"), MAX_WAITING_OF_ADDRESS)
            }
        };
        place.map_err(|refused| match refused {
            NoPlace::HolderHasShare => ApiError::too_many_reads(),
            NoPlace::AllTaken => ApiError::recorder_unavailable(),
        })
    }

    fn headers(&self, request: &ForwardedRequest<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in &REQUEST_HEADERS {
            for value in request.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        // The recorder counts failed logins by address, so a client must not be able to choose the address.
        if let Some(client) = request.peer.map(|peer| self.client_address(peer.ip(), request.headers))
            && let Ok(client) = HeaderValue::try_from(client.to_string())
        {
            headers.insert(FORWARDED_FOR, client);
        }
        headers
    }

    fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let forwarded = headers.get_all(&FORWARDED_FOR);
        self.trusted.client_address(peer, forwarded.iter().filter_map(|value| value.to_str().ok()))
    }
}

/// Returns the headers with the credential in `authorization`: the recorder reads a token from there alone.
fn with_bearer(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    let key = ["x-api-key", "api-key"].iter().find_map(|name| headers.get(*name)?.to_str().ok());
    if let Some(bearer) = key.and_then(|key| HeaderValue::try_from(format!("Bearer {key}")).ok())
        && !headers.contains_key(header::AUTHORIZATION)
    {
        headers.insert(header::AUTHORIZATION, bearer);
    }
    headers
}

/// Returns true if a segment of the path is `.` or `..`, also if percent-encoded or separated by backslashes. URL parsers
/// accept all of these forms, and such a path could lead outside the API.
fn has_dot_segments(path: &str) -> bool {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let path = percent_decoded(path);
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| segment == b"." || segment == b"..")
}

/// Decodes percent-encoded bytes. Malformed sequences stay unchanged.
fn percent_decoded(path: &str) -> Vec<u8> {
    let mut bytes = path.as_bytes().iter().copied();
    let mut percent_decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        let rest = bytes.clone();
        let digit = |place: usize| rest.clone().nth(place).and_then(|digit| char::from(digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                percent_decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
                bytes.nth(1);
            }
            _ => percent_decoded.push(byte),
        }
    }
    percent_decoded
}

/// Returns the URL of `path` below the API's base URL. `None` if the parsed URL has another origin, or a path that differs
/// from the requested one.
fn url_below(base: &Uri, path: &str) -> Option<reqwest::Url> {
    let base = base.to_string();
    let base = base.trim_end_matches('/');
    let own_url = reqwest::Url::parse(base).ok()?;
    let url = reqwest::Url::parse(&format!("{base}{path}")).ok()?;
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let is_below = url.path().strip_prefix(own_url.path().trim_end_matches('/')) == Some(path);
    (is_below && url.origin() == own_url.origin()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_api() {
        let up = [
            "/api/..",
            "/api/%2e%2e/metrics",
            "/api/.%2E/x",
            "/api/./x",
            "/api/x/%2e",
            "/api/..%2fx",
            "/api/..\\x",
            "/api/x%5C..",
            "/api/..?q=1",
        ];
        for path in up {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in
            ["/api/x", "/api/...", "/api/x..y", "/api/x?q=../..", "/api/%252e%252e/x", "/api/%", "/api/%2", "/api/%zz"]
        {
            assert!(!has_dot_segments(path), "{path}");
        }
        let inner: Uri = "http://127.0.0.1:1/inner/".parse().unwrap();
        let url = |path| url_below(&inner, path).map(String::from);
        assert_eq!(url("/api/x?q=%2e%2e").as_deref(), Some("http://127.0.0.1:1/inner/api/x?q=%2e%2e"));
        for path in ["/api/../../x", "/api/%2e%2e/x", "/api\\x"] {
            assert_eq!(url(path), None, "{path}");
        }
        let outer = Uri::from_static("http://127.0.0.1:1");
        assert_eq!(url_below(&outer, "/api/x").map(String::from).as_deref(), Some("http://127.0.0.1:1/api/x"));
    }
}
