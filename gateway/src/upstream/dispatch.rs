//! One request to the upstreams of its route, until one answers: retries, then the next upstream. Everything here happens
//! before the client has seen a byte; after that nothing is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use shared::event::{Attempt, DialectName};
use tokio::time::timeout;

use crate::metrics::{Metrics, UpstreamTry};
use crate::response::content_encoding::{self, Encoding};
use crate::routing::breaker::Admission;
use crate::routing::retry::{self, Verdict};
use crate::routing::stream_options;
use crate::routing::{Choice, Persistence, Route};
use crate::upstream::body::UpstreamBody;
use crate::upstream::endpoint::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::registry::InForce;

/// How long the body of an error is waited for that may be a refusal to be asked for usage.
const REFUSAL_READ_WITHIN: Duration = Duration::from_secs(5);

/// What is sent.
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path below the upstream's base URL.
    pub path: &'a str,
    /// The headers, without credentials.
    pub headers: &'a HeaderMap,
    /// Whether usage is wanted that the client did not ask for.
    pub may_ask_for_usage: bool,
    /// The body for an upstream that is asked for usage, or not, and has another name for the model, or not.
    pub body: &'a (dyn Fn(&Choice, UsageAsked) -> Bytes + Sync),
}

/// Who asked for usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageAsked {
    /// The gateway, and not the client.
    ByUs,
    /// The client, or nobody.
    NotByUs,
}

/// A response, and whose it is.
#[derive(Debug)]
pub struct Answered {
    /// Who answered.
    pub upstream: Arc<Upstream>,
    /// What.
    pub response: Response<UpstreamBody>,
    /// Who asked for the usage in it.
    pub asked: UsageAsked,
}

/// Whom a request may go to, in this order: a route's upstreams that speak its dialect.
#[derive(Debug)]
pub struct Candidates<'a> {
    route: &'a Route,
    list: Vec<(&'a Choice, &'a Arc<Upstream>)>,
}

/// A failure so far: what the client gets if nothing better comes.
#[derive(Default)]
struct Failures {
    response: Option<Answered>,
    error: Option<UpstreamError>,
}

impl<'a> Candidates<'a> {
    /// Those of a route, in the order in which they are tried. `None` if none speaks this dialect.
    pub fn new(in_force: &'a InForce, route: &'a Route, dialect: DialectName) -> Option<Self> {
        let order = route.order(|below| rand::random_range(0..below));
        let choice = |place: usize| (&route.choices[place], &in_force.upstreams[route.choices[place].upstream]);
        let list: Vec<_> =
            order.into_iter().map(choice).filter(|(_, upstream)| upstream.settings.speaks(dialect)).collect();
        (!list.is_empty()).then_some(Self { route, list })
    }

    /// Sends the request until an upstream answers for good. Every try is noted in `attempts`.
    ///
    /// If none does, the last response that came is the answer, whatever it says; if none came, the last error.
    pub async fn send(
        &self,
        outgoing: &Outgoing<'_>,
        metrics: &Metrics,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Answered, UpstreamError> {
        let mut course = Course {
            outgoing,
            metrics,
            attempts,
            persistence: self.route.persistence,
            begun: Instant::now(),
            left: self.route.persistence.attempts,
            failures: Failures::default(),
        };
        let mut resting: Option<(Instant, usize)> = None;
        for (place, (choice, upstream)) in self.list.iter().enumerate() {
            match upstream.admit() {
                Admission::Admitted => {
                    if let Some(answered) = course.try_upstream(choice, upstream).await {
                        return Ok(answered);
                    }
                }
                Admission::RestsUntil(until) if resting.is_none_or(|(known, _)| until < known) => {
                    resting = Some((until, place));
                }
                Admission::RestsUntil(_) => {}
            }
        }
        // A breaker turns nobody away: where no upstream was tried, the one that comes back first is.
        if course.has_tried_nobody()
            && let Some((_, place)) = resting
            && let Some(answered) = course.try_upstream(self.list[place].0, self.list[place].1).await
        {
            return Ok(answered);
        }
        course.failures.outcome()
    }
}

/// A request on its way from one upstream to the next.
struct Course<'a> {
    outgoing: &'a Outgoing<'a>,
    metrics: &'a Metrics,
    attempts: &'a mut Vec<Attempt>,
    persistence: Persistence,
    begun: Instant,
    /// Tries that are left.
    left: u32,
    failures: Failures,
}

impl Course<'_> {
    fn has_tried_nobody(&self) -> bool {
        self.left == self.persistence.attempts
    }

    /// Tries one upstream as often as may help and is allowed. `None` if it did not answer for good.
    async fn try_upstream(&mut self, choice: &Choice, upstream: &Arc<Upstream>) -> Option<Answered> {
        let is_too_late = !self.has_tried_nobody() && self.begun.elapsed() > self.persistence.within;
        if self.left == 0 || is_too_late {
            return None;
        }
        let asks = self.outgoing.may_ask_for_usage && upstream.may_be_asked_for_usage();
        let mut asked = if asks { UsageAsked::ByUs } else { UsageAsked::NotByUs };
        let mut body = (self.outgoing.body)(choice, asked);
        for tries in 1..=self.persistence.tries {
            self.left -= 1;
            let mut result = self.send(upstream, &body).await;
            if asked == UsageAsked::ByUs && refuses_usage(&mut result).await {
                // Our own addition must not fail a chat: this once, neither a pause nor a bound on tries stands in the way.
                asked = UsageAsked::NotByUs;
                body = (self.outgoing.body)(choice, asked);
                self.left = self.left.saturating_sub(1);
                result = self.send(upstream, &body).await;
                if result.as_ref().is_ok_and(|response| response.status().is_success()) {
                    upstream.refused_usage();
                }
            }
            let verdict = match &result {
                Ok(response) => retry::verdict(response.status(), response.headers(), SystemTime::now()),
                Err(_) => Verdict::Again(None),
            };
            let wait = match (verdict, result) {
                (Verdict::Final, Ok(response)) => {
                    return Some(Answered { upstream: Arc::clone(upstream), response, asked });
                }
                (Verdict::Again(wait), result) => {
                    self.failures.note(upstream, result, asked);
                    wait
                }
                (_, result) => {
                    self.failures.note(upstream, result, asked);
                    return None;
                }
            };
            let pause = retry::pause(tries, wait, rand::random());
            let is_last = tries == self.persistence.tries || self.left == 0 || !upstream.is_well();
            if is_last || self.begun.elapsed() + pause > self.persistence.within {
                return None;
            }
            tokio::time::sleep(pause).await;
        }
        None
    }

    async fn send(&mut self, upstream: &Arc<Upstream>, body: &Bytes) -> Result<Response<UpstreamBody>, UpstreamError> {
        let Outgoing { method, path, headers, .. } = self.outgoing;
        let result = upstream.send(method, path, headers, body, self.attempts).await;
        count(upstream, &result, self.metrics);
        result
    }
}

impl Failures {
    fn note(
        &mut self,
        upstream: &Arc<Upstream>,
        result: Result<Response<UpstreamBody>, UpstreamError>,
        asked: UsageAsked,
    ) {
        match result {
            // What an upstream says of the gateway's key or address helps nobody who can be told something else.
            Ok(response) if self.response.is_none() || !is_withheld(response.status()) => {
                self.response = Some(Answered { upstream: Arc::clone(upstream), response, asked });
            }
            Ok(_) => {}
            Err(error) => self.error = Some(error),
        }
    }

    fn outcome(self) -> Result<Answered, UpstreamError> {
        match (self.response, self.error) {
            (Some(response), _) => Ok(response),
            (None, Some(error)) => Err(error),
            // At least one try is made, and it comes to one of the two.
            (None, None) => Err(UpstreamError::ConnectTimeout),
        }
    }
}

/// Whether this status says that the gateway's own key was not accepted.
pub fn is_key_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
}

/// Whether a response of this status is none of the client's business: it is about the gateway's own key, or leads past the
/// gateway.
pub fn is_withheld(status: StatusCode) -> bool {
    is_key_refusal(status) || status.is_redirection()
}

/// Whether the upstream refuses the question for usage. What is read of its answer to know that is not lost to the client.
async fn refuses_usage(result: &mut Result<Response<UpstreamBody>, UpstreamError>) -> bool {
    let Ok(response) = result else { return false };
    if !stream_options::may_be(response.status()) {
        return false;
    }
    let encoding = Encoding::of(response.headers());
    // What has not come by then is not waited for.
    let _ = timeout(REFUSAL_READ_WITHIN, response.body_mut().read_ahead(stream_options::MAX_BYTES)).await;
    stream_options::is_one(&content_encoding::whole(encoding, response.body().ahead()))
}

/// Counts a try, and lets the upstream's breaker know of it.
fn count(upstream: &Upstream, result: &Result<Response<UpstreamBody>, UpstreamError>, metrics: &Metrics) {
    let (outcome, is_well) = match result {
        Ok(response) => (status_class(response.status()), !retry::is_ill(response.status())),
        Err(error) => (error.code(), false),
    };
    upstream.tried(is_well);
    metrics.upstream_tries.get_or_create(&UpstreamTry { upstream: upstream.name().to_owned(), outcome }).inc();
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
