//! One upstream: an LLM provider's endpoint, with a connection pool, a circuit breaker and a cached model list.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use secrecy::{ExposeSecret, SecretString};
use shared::event::Attempt;
use shared::trace_context::{TRACEPARENT, TraceContext};
use tokio::time::timeout;

use crate::request::gemini::is_method_path;
use crate::response::redaction::Redactor;
use crate::routing::breaker::{BreakerAdmission, BreakerTransition, CircuitBreaker};
use crate::routing::{AskForUsage, KeyHeader, UpstreamSettings};
use crate::spans;
use crate::upstream::body::UpstreamBody;
use crate::upstream::error::UpstreamError;
use crate::upstream::pool::{Pool, PooledConnection};
use crate::upstream::request_body::{OutgoingBody, RequestBody};

/// The time after a refusal of `stream_options` in which the gateway does not ask the upstream for usage again.
const USAGE_REFUSAL_TTL: Duration = Duration::from_secs(3600);

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const GOOGLE_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// An LLM provider's endpoint, with the gateway's state for the endpoint.
#[derive(Debug)]
pub struct Upstream {
    /// The settings of the upstream from the routing table.
    pub settings: UpstreamSettings,
    /// The model list that the upstream itself reported.
    pub cached_models: tokio::sync::Mutex<CachedModels>,
    host: HeaderValue,
    keys: Option<KeyHeaderValues>,
    redactor: Arc<Redactor>,
    breaker: Mutex<CircuitBreaker>,
    /// The time of the last refusal of `stream_options`.
    usage_refused_at: Mutex<Option<Instant>>,
    /// An answer without usage has shown that the upstream has to be asked for usage.
    needs_usage_option: AtomicBool,
    /// The connections to the upstream.
    pool: Arc<Pool>,
}

/// The model ids that an upstream reported, and the time of the last request for them.
#[derive(Debug, Default)]
pub struct CachedModels {
    pub(super) ids: Arc<[String]>,
    pub(super) fetched_at: Option<Instant>,
}

/// The gateway's own key as header values, marked as sensitive.
#[derive(Debug)]
struct KeyHeaderValues {
    bearer: HeaderValue,
    plain: HeaderValue,
}

impl Upstream {
    /// Creates an upstream without connections. Fails if the key or the host cannot be sent as a header value, or if TLS
    /// cannot be set up.
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
            anyhow::Ok(KeyHeaderValues { bearer: value(&format!("Bearer {key}"))?, plain: value(key)? })
        });
        Ok(Self {
            host: HeaderValue::try_from(host)?,
            keys: keys.transpose()?,
            redactor: Arc::new(Redactor::new(secrets(&settings))),
            pool: Arc::new(Pool::new(&settings.base_url, settings.proxy.proxy().cloned(), settings.keep_alive)?),
            settings,
            cached_models: tokio::sync::Mutex::default(),
            breaker: Mutex::default(),
            usage_refused_at: Mutex::default(),
            needs_usage_option: AtomicBool::new(false),
        })
    }

    /// Returns the name of the upstream, as in events and metrics.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Asks the circuit breaker for admission of an attempt now: see [`CircuitBreaker`].
    pub fn admit(&self) -> BreakerAdmission {
        self.breaker().admit(Instant::now())
    }

    /// Returns true if the circuit breaker is closed, so that attempts are unlimited.
    pub fn is_healthy(&self) -> bool {
        self.breaker().is_closed()
    }

    /// Reports the outcome of an attempt to the circuit breaker. Logs when the breaker opens or closes.
    pub fn record_outcome(&self, succeeded: bool) {
        let transition =
            if succeeded { self.breaker().record_success() } else { self.breaker().record_failure(Instant::now()) };
        match transition {
            BreakerTransition::None => {}
            BreakerTransition::Opened(rest) => {
                tracing::warn!(upstream = self.name(), ?rest, "circuit breaker open: an upstream failed repeatedly");
            }
            BreakerTransition::Closed => tracing::info!(upstream = self.name(), "circuit breaker closed"),
        }
    }

    /// Returns true if the gateway may ask the upstream for usage that the client did not ask for. False if the settings of
    /// the upstream forbid the question, and for one hour after a refusal.
    pub fn accepts_usage_option(&self) -> bool {
        let refused = *self.usage_refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may_ask = match self.settings.ask_for_usage {
            AskForUsage::Always => true,
            AskForUsage::Never => false,
            AskForUsage::Learn => self.needs_usage_option.load(Ordering::Relaxed),
        };
        may_ask && refused.is_none_or(|at| at.elapsed() > USAGE_REFUSAL_TTL)
    }

    /// Returns true if answers without the question show if the upstream reports usage by itself.
    pub fn is_usage_probed(&self) -> bool {
        self.settings.ask_for_usage == AskForUsage::Learn && !self.needs_usage_option.load(Ordering::Relaxed)
    }

    /// Records the usage of an answer for which the upstream was not asked for usage. An answer without usage makes the
    /// gateway ask from then on.
    pub fn record_usage_probe(&self, is_reported: bool) {
        if !is_reported && !self.needs_usage_option.swap(true, Ordering::Relaxed) {
            tracing::info!(
                upstream = self.name(),
                "an upstream reports no usage by itself: the gateway asks for usage"
            );
        }
    }

    /// Records that the upstream refused a request with `stream_options`, and answered the same request without.
    pub fn record_usage_refusal(&self) {
        *self.usage_refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        tracing::info!(
            upstream = self.name(),
            "an upstream refuses stream_options: the upstream is not asked for usage for one hour"
        );
    }

    /// Sends one request and waits for the head of the response. Every attempt is appended to `attempts`. `call` is the span of the call, if
    /// spans are made of it.
    ///
    /// The upstream may close a kept connection at the moment when the gateway reuses it. Only in that case the request is
    /// sent once more, on a new connection. An upload can be sent only once, and gets a new connection at once.
    pub async fn send(
        &self,
        (method, path): (&Method, &str),
        (headers, call): (&HeaderMap, Option<TraceContext>),
        body: &OutgoingBody,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let reused = if body.is_repeatable() { self.pool.take_open() } else { None };
        let was_reused = reused.is_some();
        let request = |number: usize| {
            let mut request = self.request(method, path, headers, body);
            if let Some(call) = call
                && let Ok(value) = HeaderValue::try_from(spans::try_context(call, number).to_string())
            {
                request.headers_mut().insert(TRACEPARENT, value);
            }
            request
        };
        let first = self.attempt(reused, request, attempts).await;
        match first {
            Err((UpstreamError::Http(error), SafeToResend::Yes)) if was_reused && !error.is_parse() => {
                self.attempt(None, request, attempts).await.map_err(|(error, _)| error)
            }
            other => other.map_err(|(error, _)| error),
        }
    }

    /// Returns the redactor of the gateway's own secrets for this upstream, in case the upstream repeats them in an error.
    pub fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.redactor)
    }

    /// Closes connections that have been unused for longer than the keep-alive time.
    pub fn close_unused(&self) {
        self.pool.close_unused();
    }

    async fn attempt(
        &self,
        reused: Option<PooledConnection>,
        request: impl FnOnce(usize) -> Request<RequestBody>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Response<UpstreamBody>, (UpstreamError, SafeToResend)> {
        let number = attempts.len();
        let (started_at, clock) = (shared::event::now(), Instant::now());
        // Appended before the first await, so that the attempt is recorded even if the client disconnects meanwhile.
        attempts.push(Attempt {
            upstream: self.name().to_owned(),
            started_at,
            duration_ms: 0,
            status: None,
            error: None,
        });
        let result = self.exchange(reused, || request(number)).await;
        if let Some(attempt) = attempts.last_mut() {
            attempt.duration_ms = millis(clock.elapsed());
            match &result {
                Ok(response) => attempt.status = Some(response.status().as_u16()),
                Err((error, _)) => attempt.error = Some(error.code().to_owned()),
            }
        }
        result
    }

    async fn exchange(
        &self,
        reused: Option<PooledConnection>,
        request: impl FnOnce() -> Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, (UpstreamError, SafeToResend)> {
        let connection = match reused {
            Some(connection) => connection,
            None => {
                // Boxed: the future that opens a connection is large, and exchanges on kept connections should not pay
                // for the size.
                let opened = timeout(self.settings.connect_timeout, Box::pin(self.pool.connect())).await;
                opened.unwrap_or(Err(UpstreamError::ConnectTimeout)).map_err(|error| (error, SafeToResend::No))?
            }
        };
        let too_late = (UpstreamError::HeadTimeout, SafeToResend::No);
        match connection {
            PooledConnection::Http1(mut connection) => {
                let answer = timeout(self.settings.head_timeout, connection.send(request())).await;
                let response =
                    answer.map_err(|_| too_late)?.map_err(|e| (UpstreamError::Http(e), SafeToResend::Yes))?;
                if has_two_framings(response.headers()) {
                    return Err((UpstreamError::TwoFramings, SafeToResend::No));
                }
                Ok(response.map(|incoming| UpstreamBody::over_http1(incoming, connection, Arc::clone(&self.pool))))
            }
            PooledConnection::Http2(mut slot) => {
                let Some(authority) = self.settings.base_url.authority() else { return Err(too_late) };
                let answer = timeout(self.settings.head_timeout, slot.send(request(), authority)).await;
                // If the connection is still open, the upstream received the request and refused it.
                let safe_to_resend = if slot.is_closed() { SafeToResend::Yes } else { SafeToResend::No };
                let response = answer.map_err(|_| too_late)?.map_err(|e| (UpstreamError::Http(e), safe_to_resend))?;
                Ok(response.map(|incoming| UpstreamBody::over_http2(incoming, slot.into_permit())))
            }
        }
    }

    /// Builds the request. Called when a connection is open, because an upload is taken out of `body`.
    fn request(&self, method: &Method, path: &str, headers: &HeaderMap, body: &OutgoingBody) -> Request<RequestBody> {
        let mut request = Request::new(body.take());
        *request.method_mut() = method.clone();
        let (base, query) = (self.settings.base_url.path().trim_end_matches('/'), self.settings.base_url.query());
        let uri = match query {
            Some(query) if path.contains('?') => format!("{base}{path}&{query}"),
            Some(query) => format!("{base}{path}?{query}"),
            None => format!("{base}{path}"),
        };
        *request.uri_mut() = uri.parse().unwrap_or_default();
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        for (name, value) in &self.settings.headers {
            request.headers_mut().insert(name, value.clone());
        }
        if let Some(keys) = &self.keys {
            let (name, value) = match self.settings.key_header {
                KeyHeader::ByDialect if path.starts_with("/messages") => (X_API_KEY, &keys.plain),
                KeyHeader::ByDialect if is_method_path(path) => (GOOGLE_API_KEY, &keys.plain),
                KeyHeader::ByDialect | KeyHeader::Authorization => (AUTHORIZATION, &keys.bearer),
                KeyHeader::XApiKey => (X_API_KEY, &keys.plain),
                KeyHeader::ApiKey => (API_KEY, &keys.plain),
            };
            request.headers_mut().insert(name, value.clone());
        }
        request
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the secrets of an upstream's settings: the key, and the values of headers whose names say that they are secret or
/// name the account.
fn secrets(settings: &UpstreamSettings) -> Vec<SecretString> {
    const WORDS: [&str; 7] = ["auth", "key", "organization", "project", "secret", "token", "workspace"];
    let is_secret = |name: &HeaderName| WORDS.iter().any(|word| name.as_str().contains(word));
    let headers = settings.headers.iter().filter(|(name, _)| is_secret(name));
    let values = headers.filter_map(|(_, value)| value.to_str().ok()).map(SecretString::from);
    settings.key.iter().cloned().chain(values).collect()
}

/// Returns true if the head of an HTTP/1.1 response has more than one framing of the body: a length beside
/// `transfer-encoding`, or two lengths. A proxy on the way may have read another answer than the gateway.
fn has_two_framings(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return false };
    lengths.next().is_some() || length.as_bytes().contains(&b',') || headers.contains_key(TRANSFER_ENCODING)
}

/// Permission to send a failed request again: `Yes` if the request may never have reached the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SafeToResend {
    Yes,
    No,
}

/// Returns a duration in whole milliseconds, at most `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
