//! Dispatch: sends one request to the upstreams of a route until an upstream answers. Retries come first, then the next
//! upstream. Dispatch is over before the client receives the first byte; nothing is retried after that.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, Response, StatusCode};
use shared::event::{Attempt, DialectName, Operation};
use shared::trace_context::TraceContext;
use tokio::time::timeout;

use crate::metrics::{Metrics, UpstreamLabel, UpstreamTryLabels};
use crate::request::gemini;
use crate::response::answer_start::{AnswerKind, StartFailure};
use crate::response::content_encoding::{self, ContentEncoding};
use crate::routing::breaker::BreakerAdmission;
use crate::routing::retry::{self, RetryDecision};
use crate::routing::stream_options;
use crate::routing::{RetryPolicy, Route, RouteUpstream, UpstreamSettings};
use crate::upstream::body::UpstreamBody;
use crate::upstream::endpoint::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::error_body::redact_error;
use crate::upstream::first_bytes::start_failure;
use crate::upstream::registry::RoutingSnapshot;
use crate::upstream::request_body::OutgoingBody;

/// The maximum time for reading an error body that may be a refusal of `stream_options`.
const REFUSAL_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A request to the upstreams of a route.
pub struct OutgoingRequest<'a> {
    /// The HTTP method of the request.
    pub method: &'a Method,
    /// The path below the upstream's base URL.
    pub path: &'a str,
    /// The headers that are forwarded, without credentials.
    pub headers: &'a HeaderMap,
    /// The span of the call, if spans are made of it.
    pub trace: Option<TraceContext>,
    /// The expected answer. A success response whose start is an error, or that is empty, counts as a failed attempt. `None`
    /// passes every success response without looking at the body.
    pub answer: Option<ExpectedAnswer>,
    /// True if the gateway wants usage that the client did not ask for.
    pub may_add_usage_option: bool,
    /// Builds the body for one upstream: with the upstream's own name for the model, and with or without the usage option.
    pub body: &'a (dyn Fn(&RouteUpstream, UsageOption) -> OutgoingBody + Sync),
}

/// The answer that a request expects.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedAnswer {
    /// The kind of the answer.
    pub kind: AnswerKind,
    /// The maximum time for which the head of a silent answer may be held back.
    pub max_silence: Duration,
}

/// The origin of `stream_options.include_usage` in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageOption {
    /// The gateway added the option; the client did not ask for usage.
    Added,
    /// The gateway added no option; the client may have asked for usage.
    NotAdded,
    /// The gateway added no option, although the client did not ask for usage: the answer shows if the upstream reports usage
    /// by itself.
    Probed,
}

/// A response, and the upstream that sent the response.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// The upstream that sent the response.
    pub upstream: Arc<Upstream>,
    /// The head of the response, and the body as it arrives.
    pub response: Response<UpstreamBody>,
    /// Tells whether the gateway added the usage option to the request.
    pub usage_option: UsageOption,
    /// The failure of a response with a success status, if the start of the answer has failed.
    pub failure: Option<StartFailure>,
}

/// The upstreams of a route that support the request's dialect, in the order of the attempts.
#[derive(Debug)]
pub struct Candidates<'a> {
    route: &'a Route,
    candidates: Vec<(&'a RouteUpstream, &'a Arc<Upstream>)>,
}

/// The failures so far. The client gets one of them if no upstream answers for good.
#[derive(Default)]
struct FailedAttempts {
    response: Option<UpstreamResponse>,
    error: Option<UpstreamError>,
}

impl<'a> Candidates<'a> {
    /// Selects the candidates of a route, ordered by [`Route::upstream_order`]. `None` if no upstream supports the dialect.
    pub fn new(snapshot: &'a RoutingSnapshot, route: &'a Route, dialect: DialectName) -> Option<Self> {
        Self::select(snapshot, route, |settings| settings.supports(dialect))
    }

    /// Selects the candidates that perform an operation that is no chat. `None` if no upstream performs the operation.
    pub fn performing(
        snapshot: &'a RoutingSnapshot,
        route: &'a Route,
        (operation, dialect): (Operation, DialectName),
    ) -> Option<Self> {
        Self::select(snapshot, route, |settings| settings.performs(operation, dialect))
    }

    /// Selects all upstreams of a route. `None` if the route has none.
    pub fn any(snapshot: &'a RoutingSnapshot, route: &'a Route) -> Option<Self> {
        Self::select(snapshot, route, |_| true)
    }

    /// Selects the upstream with this name, and the first route that names the upstream. `None` if no route does.
    pub fn named(snapshot: &'a RoutingSnapshot, name: &str) -> Option<(Self, &'a Route)> {
        let of_route = |route| Self::select(snapshot, route, |settings| settings.name == name);
        snapshot.table.routes.iter().find_map(|route| Some((of_route(route)?, route)))
    }

    fn select(
        snapshot: &'a RoutingSnapshot,
        route: &'a Route,
        is_able: impl Fn(&UpstreamSettings) -> bool,
    ) -> Option<Self> {
        let order = route.upstream_order(|below| rand::random_range(0..below));
        let candidate =
            |index: usize| (&route.upstreams[index], &snapshot.upstreams[route.upstreams[index].upstream_index]);
        let candidates: Vec<_> =
            order.into_iter().map(candidate).filter(|(_, upstream)| is_able(&upstream.settings)).collect();
        (!candidates.is_empty()).then_some(Self { route, candidates })
    }

    /// Sends the request to one candidate after another until a final response arrives. Every attempt is appended to
    /// `attempts`.
    ///
    /// Without a final response, the result is the last response that may reach the client, or else the first withheld
    /// response (see [`is_withheld`]). Without any response, the result is the last error.
    ///
    /// Errors are redacted: see `redact_error`.
    pub async fn send(
        &self,
        outgoing: &OutgoingRequest<'_>,
        metrics: &Metrics,
        attempts: &mut Vec<Attempt>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let mut answered = self.send_unredacted(outgoing, metrics, attempts).await?;
        if !answered.response.status().is_success() || answered.failure.is_some() {
            // Boxed: errors are rare, and the future is large.
            Box::pin(redact_error(&mut answered.response, &answered.upstream.redactor())).await;
        }
        Ok(answered)
    }

    async fn send_unredacted(
        &self,
        outgoing: &OutgoingRequest<'_>,
        metrics: &Metrics,
        attempts: &mut Vec<Attempt>,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let mut request_attempts = Attempts {
            outgoing,
            metrics,
            attempts,
            retry_policy: self.route.retry_policy,
            started_at: Instant::now(),
            remaining_attempts: self.route.retry_policy.max_attempts,
            failed: FailedAttempts::default(),
        };
        let mut first_to_recover: Option<(Instant, usize)> = None;
        for (index, (route_upstream, upstream)) in self.candidates.iter().enumerate() {
            match upstream.admit() {
                BreakerAdmission::Admitted => {
                    if let Some(answered) = request_attempts.try_upstream(route_upstream, upstream).await {
                        return Ok(answered);
                    }
                }
                BreakerAdmission::RejectedUntil(until) if first_to_recover.is_none_or(|(known, _)| until < known) => {
                    first_to_recover = Some((until, index));
                }
                BreakerAdmission::RejectedUntil(_) => {}
            }
        }
        // Breakers never refuse a request: if the breakers of all candidates are open, the first to recover is tried.
        if request_attempts.is_first_attempt()
            && let Some((_, index)) = first_to_recover
            && let Some(answered) =
                request_attempts.try_upstream(self.candidates[index].0, self.candidates[index].1).await
        {
            return Ok(answered);
        }
        request_attempts.failed.outcome()
    }
}

/// The state of one request across attempts and upstreams.
struct Attempts<'a> {
    outgoing: &'a OutgoingRequest<'a>,
    metrics: &'a Metrics,
    attempts: &'a mut Vec<Attempt>,
    retry_policy: RetryPolicy,
    started_at: Instant,
    /// The number of attempts that are left.
    remaining_attempts: u32,
    failed: FailedAttempts,
}

impl Attempts<'_> {
    fn is_first_attempt(&self) -> bool {
        self.remaining_attempts == self.retry_policy.max_attempts
    }

    /// Tries one upstream as often as the retry policy permits. Returns `None` if no final response arrived.
    async fn try_upstream(
        &mut self,
        route_upstream: &RouteUpstream,
        upstream: &Arc<Upstream>,
    ) -> Option<UpstreamResponse> {
        let is_past_deadline = !self.is_first_attempt() && self.started_at.elapsed() > self.retry_policy.retry_within;
        if self.remaining_attempts == 0 || is_past_deadline {
            return None;
        }
        let mut usage_option = match self.outgoing.may_add_usage_option {
            true if upstream.accepts_usage_option() => UsageOption::Added,
            true if upstream.is_usage_probed() => UsageOption::Probed,
            true | false => UsageOption::NotAdded,
        };
        let mut body = (self.outgoing.body)(route_upstream, usage_option);
        let renamed = route_upstream.model.as_ref().and_then(|model| gemini::with_model(self.outgoing.path, model));
        let path = renamed.as_deref().unwrap_or(self.outgoing.path);
        for attempt in 1..=self.retry_policy.attempts_per_upstream {
            self.remaining_attempts -= 1;
            let (mut result, mut failure) = self.send(upstream, path, &body).await;
            if usage_option == UsageOption::Added && is_usage_refusal(&mut result).await {
                // The gateway's own addition must not fail a chat: the request is repeated once without pause, even if no
                // attempts are left.
                usage_option = UsageOption::NotAdded;
                body = (self.outgoing.body)(route_upstream, usage_option);
                self.remaining_attempts = self.remaining_attempts.saturating_sub(1);
                (result, failure) = self.send(upstream, path, &body).await;
                if result.as_ref().is_ok_and(|response| response.status().is_success()) {
                    upstream.record_usage_refusal();
                }
            }
            let verdict = match &result {
                Ok(_) if failure.is_some() => RetryDecision::TryNextUpstream,
                Ok(response) => retry::decide(response.status(), response.headers(), SystemTime::now()),
                // The upstream has the whole request and may be working on it, so the request is not sent again.
                Err(UpstreamError::HeadTimeout) => RetryDecision::Final,
                Err(_) => RetryDecision::RetrySameUpstream(None),
            };
            let wait = match (verdict, result) {
                (RetryDecision::Final, Ok(response)) => {
                    return Some(UpstreamResponse { upstream: Arc::clone(upstream), response, usage_option, failure });
                }
                (RetryDecision::RetrySameUpstream(wait), result) => {
                    self.failed.record(upstream, result, usage_option, failure);
                    wait
                }
                (verdict, result) => {
                    // An upload is on its way to this upstream, and cannot be sent again.
                    if verdict == RetryDecision::Final || !body.is_available() {
                        self.remaining_attempts = 0;
                    }
                    self.failed.record(upstream, result, usage_option, failure);
                    return None;
                }
            };
            if !body.is_available() {
                self.remaining_attempts = 0;
                return None;
            }
            let pause = retry::backoff(attempt, wait, rand::random());
            let is_last = attempt == self.retry_policy.attempts_per_upstream
                || self.remaining_attempts == 0
                || !upstream.is_healthy();
            if is_last || self.started_at.elapsed() + pause > self.retry_policy.retry_within {
                return None;
            }
            tokio::time::sleep(pause).await;
        }
        None
    }

    /// Makes one attempt. The second value is the failure of a response that has a success status.
    async fn send(
        &mut self,
        upstream: &Arc<Upstream>,
        path: &str,
        body: &OutgoingBody,
    ) -> (Result<Response<UpstreamBody>, UpstreamError>, Option<StartFailure>) {
        let OutgoingRequest { method, headers, trace, .. } = *self.outgoing;
        let mut result = upstream.send((method, path), (headers, trace), body, self.attempts).await;
        let failure = match (&mut result, self.outgoing.answer) {
            (Ok(response), Some(answer)) => {
                let silence = upstream.settings.idle_timeout.min(answer.max_silence);
                start_failure(response, answer.kind, silence).await
            }
            _ => None,
        };
        if let (Some(failure), Some(attempt)) = (failure, self.attempts.last_mut()) {
            attempt.error = Some(failure.code().to_owned());
        }
        if let Some(attempt) = self.attempts.last() {
            let label = UpstreamLabel { upstream: upstream.name().to_owned() };
            let head = Duration::from_millis(attempt.duration_ms);
            self.metrics.upstream_head_seconds.get_or_create(&label).observe(head.as_secs_f64());
        }
        record_outcome(upstream, &result, failure, self.metrics);
        (result, failure)
    }
}

impl FailedAttempts {
    fn record(
        &mut self,
        upstream: &Arc<Upstream>,
        result: Result<Response<UpstreamBody>, UpstreamError>,
        usage_option: UsageOption,
        failure: Option<StartFailure>,
    ) {
        match result {
            // A response about the gateway's key or address does not help the client: an earlier response is kept.
            Ok(response) if self.response.is_none() || !is_withheld(response.status()) => {
                let upstream = Arc::clone(upstream);
                self.response = Some(UpstreamResponse { upstream, response, usage_option, failure });
            }
            Ok(_) => {}
            Err(error) => self.error = Some(error),
        }
    }

    fn outcome(self) -> Result<UpstreamResponse, UpstreamError> {
        match (self.response, self.error) {
            (Some(response), _) => Ok(response),
            (None, Some(error)) => Err(error),
            // Unreachable: at least one attempt is made, and yields a response or an error.
            (None, None) => Err(UpstreamError::ConnectTimeout),
        }
    }
}

/// Returns true if the status means that the upstream did not accept the gateway's own key (401, 407).
pub fn is_key_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
}

/// Returns true if the client must not get a response with this status, because the response is about the gateway's own key
/// or redirects the client past the gateway.
pub fn is_withheld(status: StatusCode) -> bool {
    is_key_refusal(status) || status.is_redirection()
}

/// Returns true if the upstream refused `stream_options`. The part of the body that is read for the decision still reaches
/// the client.
async fn is_usage_refusal(result: &mut Result<Response<UpstreamBody>, UpstreamError>) -> bool {
    let Ok(response) = result else { return false };
    if !stream_options::may_be_refusal(response.status()) {
        return false;
    }
    let encoding = ContentEncoding::from_headers(response.headers());
    // After the timeout, the bytes that have arrived decide.
    let _ = timeout(REFUSAL_READ_TIMEOUT, response.body_mut().read_ahead(stream_options::MAX_REFUSAL_BYTES)).await;
    stream_options::is_refusal(&content_encoding::decode_body(encoding, response.body().read_ahead_bytes()))
}

/// Counts an attempt in the metrics, and reports the outcome to the upstream's circuit breaker.
fn record_outcome(
    upstream: &Upstream,
    result: &Result<Response<UpstreamBody>, UpstreamError>,
    failure: Option<StartFailure>,
    metrics: &Metrics,
) {
    if let Err(UpstreamError::Http(error)) = result
        && error.is_user()
    {
        // The client broke off its upload, which says nothing about the upstream.
        return;
    }
    let (outcome, is_healthy) = match (result, failure) {
        (Ok(_), Some(failure)) => (failure.code(), !failure.is_upstream_failure()),
        (Ok(response), None) => (status_class(response.status()), !retry::is_upstream_failure(response.status())),
        (Err(error), _) => (error.code(), false),
    };
    upstream.record_outcome(is_healthy);
    metrics.upstream_tries.get_or_create(&UpstreamTryLabels { upstream: upstream.name().to_owned(), outcome }).inc();
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        429 => "429",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
