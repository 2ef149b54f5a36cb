//! The upstream: an LLM provider's endpoint, over connections that are kept for the next chat.
//!
//! A connection has no task of its own. Whoever waits for the answer drives it: one wake-up and one write per read, where a
//! task between would cost one of each per chunk. An idle connection is driven by nobody, and looked at before it is used
//! again.

mod connection;
mod tls;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use secrecy::ExposeSecret;
use shared::event::Attempt;
use tokio::time::timeout;

use crate::breaker::{Admission, Breaker, Change};
use crate::catalogue::Known;
use crate::routing::{KeyHeader, UpstreamSettings};
use connection::Connection;
use tls::Connector;

/// How many unused connections are kept.
const MAX_IDLE: usize = 1024;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// One upstream.
#[derive(Debug)]
pub struct Upstream {
    /// Its settings.
    pub settings: UpstreamSettings,
    /// The models that it has, by its own word.
    pub known_models: tokio::sync::Mutex<Known>,
    host: HeaderValue,
    keys: Option<KeyValues>,
    connector: Connector,
    breaker: Mutex<Breaker>,
    idle: Mutex<VecDeque<(Connection, Instant)>>,
}

/// The gateway's own key, as header values.
#[derive(Debug)]
struct KeyValues {
    bearer: HeaderValue,
    bare: HeaderValue,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    /// A connection, but no TLS session.
    #[error("could not agree on TLS: {0}")]
    Tls(std::io::Error),
    /// No connection in time.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// No response head in time.
    #[error("no response in time")]
    HeadTimeout,
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke: {0}")]
    Http(hyper::Error),
}

impl UpstreamError {
    /// In one word, for events and for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_unreachable",
            Self::Tls(_) => "upstream_tls",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::HeadTimeout => "upstream_head_timeout",
            Self::Http(_) => "upstream_broken",
        }
    }

    /// In words for callers, whom the deployment's addresses are none of the business.
    pub fn public(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Tls(_) => "the upstream could not be reached",
            Self::ConnectTimeout => "connecting to the upstream took too long",
            Self::HeadTimeout => "the upstream did not answer in time",
            Self::Http(_) => "the upstream broke the connection before it answered",
        }
    }
}

impl Upstream {
    /// An upstream as configured.
    pub fn new(settings: UpstreamSettings) -> anyhow::Result<Self> {
        let authority = settings.base_url.authority().map_or("", http::uri::Authority::as_str);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let value = |text: &str| {
            let value = HeaderValue::try_from(text);
            let mut value = value.map_err(|_| {
                anyhow::anyhow!("the key of upstream {} is malformed: expected visible ASCII characters", settings.name)
            })?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        let keys = settings.key.as_ref().map(|key| {
            let key = key.expose_secret();
            anyhow::Ok(KeyValues { bearer: value(&format!("Bearer {key}"))?, bare: value(key)? })
        });
        Ok(Self {
            host: HeaderValue::try_from(host)?,
            keys: keys.transpose()?,
            connector: Connector::new(&settings.base_url)?,
            settings,
            known_models: tokio::sync::Mutex::default(),
            breaker: Mutex::default(),
            idle: Mutex::default(),
        })
    }

    /// Its name, as in events and metrics.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Whether it is to be tried now; see [`Breaker`].
    pub fn admit(&self) -> Admission {
        self.breaker().admit(Instant::now())
    }

    /// Whether it is tried without reserve.
    pub fn is_well(&self) -> bool {
        self.breaker().is_closed()
    }

    /// Takes in how a try went.
    pub fn tried(&self, went_well: bool) {
        let change = if went_well { self.breaker().succeeded() } else { self.breaker().failed(Instant::now()) };
        match change {
            Change::None => {}
            Change::Opened(rest) => {
                tracing::warn!(upstream = self.name(), ?rest, "an upstream fails again and again: it is passed over");
            }
            Change::Closed => tracing::info!(upstream = self.name(), "an upstream answers again"),
        }
    }

    /// Sends one request, and waits for the head of the response. Every try is noted in `attempts`.
    ///
    /// A connection that was kept may turn out to have been closed by the other side just now. Then, and only then, the
    /// request is sent once more, on a new one.
    pub async fn send(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let kept = self.take_idle();
        let was_kept = kept.is_some();
        let first = self.attempt(kept, self.request(method, path, headers, body), attempts).await;
        match first {
            Err(UpstreamError::Http(error)) if was_kept && !error.is_parse() => {
                self.attempt(None, self.request(method, path, headers, body), attempts).await
            }
            other => other,
        }
    }

    /// The text without the gateway's own key, should the upstream have repeated it.
    pub fn redact(&self, text: &str) -> String {
        match &self.settings.key {
            Some(key) if text.contains(key.expose_secret()) => text.replace(key.expose_secret(), "[redacted]"),
            _ => text.to_owned(),
        }
    }

    /// Closes connections that have been unused for too long.
    pub fn close_unused(&self) {
        let mut idle = self.idle();
        while idle.front().is_some_and(|(_, since)| since.elapsed() > self.settings.keep_alive) {
            idle.pop_front();
        }
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        kept: Option<Connection>,
        request: Request<Full<Bytes>>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let (started_at, clock) = (shared::event::now(), Instant::now());
        // Noted before anything is awaited: a client that leaves meanwhile leaves a trace of it.
        attempts.push(Attempt {
            upstream: self.name().to_owned(),
            started_at,
            duration_ms: 0,
            status: None,
            error: None,
        });
        let result = self.exchange(kept, request).await;
        if let Some(attempt) = attempts.last_mut() {
            attempt.duration_ms = millis(clock.elapsed());
            match &result {
                Ok(response) => attempt.status = Some(response.status().as_u16()),
                Err(error) => attempt.error = Some(error.code().to_owned()),
            }
        }
        result
    }

    async fn exchange(
        self: &Arc<Self>,
        kept: Option<Connection>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => timeout(self.settings.connect_timeout, self.connector.connect())
                .await
                .map_err(|_| UpstreamError::ConnectTimeout)??,
        };
        let response = timeout(self.settings.head_timeout, connection.exchange(request))
            .await
            .map_err(|_| UpstreamError::HeadTimeout)?
            .map_err(UpstreamError::Http)?;
        Ok(response.map(|incoming| UpstreamBody { incoming, connection: Some(connection), upstream: Arc::clone(self) }))
    }

    fn request(&self, method: &Method, path: &str, headers: &HeaderMap, body: &Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() =
            format!("{}{path}", self.settings.base_url.path().trim_end_matches('/')).parse().unwrap_or_default();
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        for (name, value) in &self.settings.headers {
            request.headers_mut().insert(name, value.clone());
        }
        if let Some(keys) = &self.keys {
            let (name, value) = match self.settings.key_header {
                KeyHeader::ByDialect if path.starts_with("/messages") => (X_API_KEY, &keys.bare),
                KeyHeader::ByDialect | KeyHeader::Authorization => (AUTHORIZATION, &keys.bearer),
                KeyHeader::XApiKey => (X_API_KEY, &keys.bare),
                KeyHeader::ApiKey => (API_KEY, &keys.bare),
            };
            request.headers_mut().insert(name, value.clone());
        }
        request
    }

    fn take_idle(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.idle().pop_back()?;
            if since.elapsed() <= self.settings.keep_alive && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push_back((connection, Instant::now()));
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an upstream's response, and the connection that it comes over.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    /// Given back when the body has ended; closed with the body if it has not.
    connection: Option<Connection>,
    upstream: Arc<Upstream>,
}

impl UpstreamBody {
    /// The next chunk. `None` is the end that the upstream meant; an error is one that it did not.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            let frame = match self.poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return Poll::Pending,
            };
            match frame {
                // Trailers are passed over.
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
                Some(Err(error)) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    if let Some(mut connection) = self.connection.take()
                        && connection.is_usable()
                    {
                        self.upstream.keep(connection);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Whether the connection's end is the only end that this body has. Then a broken connection looks like an end.
    pub fn ends_with_connection(response: &Response<Self>) -> bool {
        let headers = response.headers();
        !headers.contains_key(http::header::CONTENT_LENGTH) && !headers.contains_key(http::header::TRANSFER_ENCODING)
    }

    /// What is there, else what driving the connection brings.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Only the connection brings anything, and only we drive it: the body itself need not wake anyone.
        let mut quiet = Context::from_waker(std::task::Waker::noop());
        if let ready @ Poll::Ready(_) = Pin::new(&mut self.incoming).poll_frame(&mut quiet) {
            return ready;
        }
        match &mut self.connection {
            Some(connection) => connection.drive(cx),
            None => return Poll::Ready(None),
        }
        Pin::new(&mut self.incoming).poll_frame(&mut quiet)
    }

    /// The whole body, if it is not longer than this.
    pub async fn collect(mut self, limit: usize) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(chunk) = poll_fn(|cx| self.poll_chunk(cx)).await {
            let chunk = chunk.ok()?;
            if whole.len() + chunk.len() > limit {
                return None;
            }
            whole.extend_from_slice(&chunk);
        }
        Some(whole)
    }
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
