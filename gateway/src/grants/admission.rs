//! Admitting a call by all limits that apply to it, and settling the call at its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::event::{LimitScope, UsageLimits};
use shared::nats::BrokerConfig;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::bucket::GrantBucket;
use super::meter::{ScopeMeters, seconds_left};
use super::places::Holder;
use crate::access::limit_table::CallOrigin;
use crate::access::state::Access;
use crate::metrics::{LimitRefusalLabels, Metrics};

/// The interval at which idle units and places are given back.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);
/// The weight of one more answer in the average length of answers, as a divisor.
const AVERAGE_DIVISOR: u64 = 16;

/// The limits of a gateway, and what the gateway holds of them.
#[derive(Debug)]
pub struct Grants {
    access: Arc<Access>,
    bucket: Arc<GrantBucket>,
    own: Arc<Holder>,
    metrics: Arc<Metrics>,
    scopes: Mutex<HashMap<LimitScope, Arc<ScopeMeters>>>,
    /// The average number of tokens of an answer; 0 until answers have ended.
    answer_tokens: Mutex<u64>,
}

/// The expected tokens of a call.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedTokens {
    /// The tokens of the prompt, estimated.
    pub prompt: u64,
    /// The maximum for the answer, if the request names one.
    pub max_answer: Option<u64>,
}

/// The kind of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// `requestsPerMinute`
    Requests,
    /// `tokensPerMinute`
    Tokens,
    /// `concurrentChats`
    Concurrent,
}

/// A limit that applies to a call, and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitStatus {
    /// The scope.
    pub scope: LimitScope,
    /// The kind of limit.
    pub kind: LimitKind,
    /// The limit.
    pub limit: u64,
    /// The units that are left, as far as this gateway knows.
    pub remaining: u64,
    /// The seconds until the window ends; none for a limit of calls at the same time.
    pub reset_seconds: Option<u64>,
}

/// A call that a limit refuses.
#[derive(Clone, Debug)]
pub struct LimitRefusal {
    /// The limit that is reached.
    pub reached: LimitStatus,
    /// All limits that were asked, the reached one last.
    pub limits: Vec<LimitStatus>,
}

/// A call that all limits have admitted. Dropping the value ends the call as one that was never made.
#[derive(Debug)]
pub struct Admission {
    grants: Arc<Grants>,
    taken: Vec<Taken>,
    /// The limits that apply, and what is left.
    pub limits: Vec<LimitStatus>,
}

/// What a call has taken from one scope.
#[derive(Debug)]
struct Taken {
    meters: Arc<ScopeMeters>,
    /// The limit of calls at the same time, if a place was taken.
    place_limit: Option<u64>,
    /// The window of the request, if a request was taken.
    request: Option<i64>,
    /// The window of the tokens, and their number.
    tokens: Option<(i64, u64)>,
}

impl Grants {
    /// Creates the grants of a gateway that hold nothing. `run` is the run of the gateway's lease.
    pub fn new(broker: BrokerConfig, instance: &str, run: Uuid, access: Arc<Access>, metrics: Arc<Metrics>) -> Self {
        Self {
            access,
            bucket: Arc::new(GrantBucket::new(broker, instance)),
            own: Arc::new(Holder { name: instance.to_owned(), run }),
            metrics,
            scopes: Mutex::default(),
            answer_tokens: Mutex::default(),
        }
    }

    /// Admits a call, unless a limit is reached. Returns `None` if no limit applies. `expected` is called if a limit of tokens applies.
    pub async fn admit(
        self: &Arc<Self>,
        origin: &CallOrigin<'_>,
        expected: impl FnOnce() -> ExpectedTokens,
    ) -> Result<Option<Admission>, Box<LimitRefusal>> {
        let applying = self.access.limits_of_call(origin);
        if applying.is_empty() {
            return Ok(None);
        }
        let counts_tokens = applying.iter().any(|(_, limits)| limits.tokens_per_minute.is_some());
        let expected = if counts_tokens { expected() } else { ExpectedTokens { prompt: 0, max_answer: Some(0) } };
        let mut admission = Admission { grants: Arc::clone(self), taken: Vec::new(), limits: Vec::new() };
        // A stated maximum has to fit. Without one, the call gets what is left of the window up to the average answer.
        let need = expected.prompt.saturating_add(expected.max_answer.unwrap_or(0));
        let tokens = (need, need.saturating_add(expected.max_answer.map_or_else(|| *self.answer_tokens(), |_| 0)));
        for (scope, limits) in applying {
            // Boxed: most calls have no limits, and should not carry this future.
            if let Err(kind) = Box::pin(admission.take(&scope, limits, tokens)).await {
                return Err(Box::new(admission.refuse(scope, limits, kind)));
            }
        }
        Ok(Some(admission))
    }

    /// Gives back what is idle, every second, for ever.
    pub async fn run(self: Arc<Self>) -> std::convert::Infallible {
        let mut ticks = interval(TIDY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let scopes: Vec<_> =
                self.scopes().iter().map(|(scope, meters)| (scope.clone(), Arc::clone(meters))).collect();
            for (scope, meters) in scopes {
                let is_void = meters.places.tidy(&self.bucket, &self.own).await
                    & meters.requests.tidy(&self.bucket).await
                    & meters.tokens.tidy(&self.bucket).await;
                if is_void {
                    drop(meters);
                    let mut scopes = self.scopes();
                    // A call that holds the meters may be about to take something.
                    if scopes.get(&scope).is_some_and(|meters| Arc::strong_count(meters) == 1) {
                        scopes.remove(&scope);
                    }
                }
            }
        }
    }

    fn meters(&self, scope: &LimitScope) -> Arc<ScopeMeters> {
        let mut scopes = self.scopes();
        match scopes.get(scope) {
            Some(meters) => Arc::clone(meters),
            None => Arc::clone(scopes.entry(scope.clone()).or_insert_with(|| Arc::new(ScopeMeters::new(scope)))),
        }
    }

    fn scopes(&self) -> MutexGuard<'_, HashMap<LimitScope, Arc<ScopeMeters>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer_tokens(&self) -> MutexGuard<'_, u64> {
        self.answer_tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Takes what a call needs from one scope. An error names the limit that is reached; the caller then drops `self`.
    async fn take(
        &mut self,
        scope: &LimitScope,
        limits: UsageLimits,
        (need, want): (u64, u64),
    ) -> Result<(), LimitKind> {
        let grants = Arc::clone(&self.grants);
        let meters = grants.meters(scope);
        self.taken.push(Taken { meters: Arc::clone(&meters), place_limit: None, request: None, tokens: None });
        let Some(taken) = self.taken.last_mut() else { return Ok(()) };
        if let Some(limit) = limits.concurrent_chats {
            meters.places.take(&grants.bucket, &grants.own, limit).await.map_err(|_| LimitKind::Concurrent)?;
            taken.place_limit = Some(limit);
        }
        if let Some(limit) = limits.requests_per_minute {
            let one = meters.requests.take(&grants.bucket, limit, (1, 1)).await.map_err(|_| LimitKind::Requests)?;
            taken.request = Some(one.0);
        }
        if let Some(limit) = limits.tokens_per_minute {
            // A call of more tokens than the limit is admitted in a window of which nothing is used.
            let tokens = (need.clamp(1, limit.max(1)), want.clamp(1, limit.max(1)));
            let tokens = meters.tokens.take(&grants.bucket, limit, tokens).await.map_err(|_| LimitKind::Tokens)?;
            taken.tokens = Some(tokens);
        }
        self.limits.extend(statuses(scope, limits, &meters));
        Ok(())
    }

    fn refuse(mut self, scope: LimitScope, limits: UsageLimits, kind: LimitKind) -> LimitRefusal {
        let labels = LimitRefusalLabels { scope: scope_label(&scope), limit: kind.label() };
        self.grants.metrics.limit_refusals.get_or_create(&labels).inc();
        let meters = self.grants.meters(&scope);
        let mut own = statuses(&scope, limits, &meters);
        let reached = own.iter().position(|status| status.kind == kind).map(|index| own.remove(index));
        let mut reached = reached.unwrap_or(LimitStatus { scope, kind, limit: 0, remaining: 0, reset_seconds: None });
        reached.remaining = 0;
        let mut all = std::mem::take(&mut self.limits);
        all.extend(own);
        all.push(reached.clone());
        LimitRefusal { reached, limits: all }
    }

    /// Ends a call that was made: gives its places back, and corrects the tokens. `used` are the tokens of prompt and answer, if they
    /// are known.
    pub fn settle(mut self, used: Option<(u64, u64)>) {
        if let Some((_, answer)) = used.filter(|_| self.taken.iter().any(|taken| taken.tokens.is_some())) {
            let mut average = self.grants.answer_tokens();
            *average = (*average * (AVERAGE_DIVISOR - 1) + answer) / AVERAGE_DIVISOR;
        }
        for taken in self.taken.drain(..) {
            taken.release(&self.grants);
            if let (Some((minute, tokens)), Some((prompt, answer))) = (taken.tokens, used) {
                taken.meters.tokens.correct(minute, tokens, prompt.saturating_add(answer));
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for taken in self.taken.drain(..) {
            taken.release(&self.grants);
            if let Some(minute) = taken.request {
                taken.meters.requests.correct(minute, 1, 0);
            }
            if let Some((minute, tokens)) = taken.tokens {
                taken.meters.tokens.correct(minute, tokens, 0);
            }
        }
    }
}

impl Taken {
    fn release(&self, grants: &Grants) {
        if let Some(limit) = self.place_limit {
            self.meters.places.release(&grants.bucket, &grants.own, limit);
        }
    }
}

impl LimitKind {
    /// The name of the limit in settings, messages and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Requests => "requestsPerMinute",
            Self::Tokens => "tokensPerMinute",
            Self::Concurrent => "concurrentChats",
        }
    }
}

/// Returns the state of each limit of a scope.
fn statuses(scope: &LimitScope, limits: UsageLimits, meters: &ScopeMeters) -> Vec<LimitStatus> {
    let status = |kind, limit: u64, remaining: u64, reset_seconds| LimitStatus {
        scope: scope.clone(),
        kind,
        limit,
        remaining,
        reset_seconds,
    };
    let reset = Some(seconds_left());
    let requests = limits.requests_per_minute.map(|limit| {
        let remaining = meters.requests.remaining(limit);
        status(LimitKind::Requests, limit, remaining, reset)
    });
    let tokens = limits.tokens_per_minute.map(|limit| {
        let remaining = meters.tokens.remaining(limit);
        status(LimitKind::Tokens, limit, remaining, reset)
    });
    let places = limits.concurrent_chats.map(|limit| {
        let remaining = meters.places.remaining(limit);
        status(LimitKind::Concurrent, limit, remaining, None)
    });
    [requests, tokens, places].into_iter().flatten().collect()
}

/// Returns the kind of a scope, for metrics and headers: the ids of users and keys are in neither.
pub fn scope_label(scope: &LimitScope) -> &'static str {
    match scope {
        LimitScope::Deployment => "deployment",
        LimitScope::Everyone | LimitScope::User(_) => "user",
        LimitScope::Project(_) => "project",
        LimitScope::Key(_) => "key",
        LimitScope::Model(_) => "model",
    }
}
