//! One request to the upstreams of its route, until one answers: retries, then the next upstream. Everything here happens
//! before the client has seen a byte; after that nothing is tried again.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use shared::event::{Attempt, DialectName};

use crate::breaker::Admission;
use crate::metrics::{Metrics, UpstreamTry};
use crate::retry::{self, Verdict};
use crate::routing::{Choice, Persistence, Route};
use crate::upstream::{Upstream, UpstreamBody, UpstreamError};
use crate::upstreams::InForce;

/// What is sent.
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path below the upstream's base URL.
    pub path: &'a str,
    /// The headers, without credentials.
    pub headers: &'a HeaderMap,
    /// The body for an upstream that may be asked for usage, or not, and has another name for the model, or not.
    pub body: &'a (dyn Fn(&Upstream, &Choice) -> Bytes + Sync),
}

/// A response, and whose it is.
#[derive(Debug)]
pub struct Answered {
    /// Who answered.
    pub upstream: Arc<Upstream>,
    /// What.
    pub response: Response<UpstreamBody>,
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
        let Outgoing { method, path, headers, body } = self.outgoing;
        let body = body(upstream, choice);
        for tries in 1..=self.persistence.tries {
            self.left -= 1;
            let result = upstream.send(method, path, headers, &body, self.attempts).await;
            count(upstream, &result, self.metrics);
            let verdict = match &result {
                Ok(response) => retry::verdict(response.status(), response.headers(), SystemTime::now()),
                Err(_) => Verdict::Again(None),
            };
            let asked = match (verdict, result) {
                (Verdict::Final, Ok(response)) => {
                    return Some(Answered { upstream: Arc::clone(upstream), response });
                }
                (Verdict::Again(asked), result) => {
                    self.failures.note(upstream, result);
                    asked
                }
                (_, result) => {
                    self.failures.note(upstream, result);
                    return None;
                }
            };
            let pause = retry::pause(tries, asked, rand::random());
            let is_last = tries == self.persistence.tries || self.left == 0 || !upstream.is_well();
            if is_last || self.begun.elapsed() + pause > self.persistence.within {
                return None;
            }
            tokio::time::sleep(pause).await;
        }
        None
    }
}

impl Failures {
    fn note(&mut self, upstream: &Arc<Upstream>, result: Result<Response<UpstreamBody>, UpstreamError>) {
        match result {
            // What an upstream says of the gateway's key helps nobody who can be told something else.
            Ok(response) if self.response.is_none() || !is_key_refusal(response.status()) => {
                self.response = Some(Answered { upstream: Arc::clone(upstream), response });
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
