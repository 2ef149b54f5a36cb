//! Admitting a call by all limits that apply to it, and settling the call at its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::budget_ledger;
use shared::event::{LimitScope, UsageLimits};
use shared::nats::BrokerConfig;
use shared::prices::PriceBook;
use shared::stream::GRANTS_BUCKET;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::answer_sizes::AnswerSizes;
use super::bucket::GrantBucket;
use super::budget_hold::BudgetHold;
use super::budget_meter::PeriodMeter;
use super::expected_cost::{self, CostUnknown, ExpectedCall};
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
    budgets: Arc<GrantBucket>,
    own: Arc<Holder>,
    metrics: Arc<Metrics>,
    scopes: Mutex<HashMap<LimitScope, Arc<ScopeMeters>>>,
    /// The average number of tokens of an answer; 0 until answers have ended.
    answer_tokens: Mutex<u64>,
    /// The sizes of answers by model, for budgets.
    answer_sizes: Mutex<AnswerSizes>,
    prices: Arc<PriceBook>,
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
    /// `budget`
    Budget,
    /// A budget that admits no calls without a known price.
    BudgetWithoutPrice,
    /// A budget that admits no calls whose greatest cost is not known.
    BudgetWithoutBound,
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
    /// The seconds until the window ends; none for a limit of calls at the same time, and for a budget without an end.
    pub reset_seconds: Option<u64>,
    /// The length of the window in seconds; none for a limit without a window.
    pub window_seconds: Option<u64>,
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
    /// The money that the call has reserved, if a budget applies.
    budgets: Option<BudgetHold>,
    /// The model, for the sizes of its answers. Empty if no budget applies.
    model: String,
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
            bucket: Arc::new(GrantBucket::new(broker.clone(), instance, GRANTS_BUCKET)),
            budgets: Arc::new(GrantBucket::new(broker, instance, budget_ledger::BUCKET)),
            own: Arc::new(Holder { name: instance.to_owned(), run }),
            metrics,
            scopes: Mutex::default(),
            answer_tokens: Mutex::default(),
            answer_sizes: Mutex::default(),
            prices: Arc::default(),
        }
    }

    /// Admits a call that starts at the given time, unless a limit is reached. Returns `None` if no limit applies. `expected` is called if a
    /// limit of tokens or a budget applies.
    pub async fn admit(
        self: &Arc<Self>,
        origin: &CallOrigin<'_>,
        started_at: OffsetDateTime,
        expected: impl FnOnce() -> ExpectedCall,
    ) -> Result<Option<Admission>, Box<LimitRefusal>> {
        let applying = self.access.limits_of_call(origin);
        if applying.is_empty() {
            return Ok(None);
        }
        let has_budget = applying.iter().any(|(_, limits)| limits.budget.is_some());
        let is_expected = has_budget || applying.iter().any(|(_, limits)| limits.tokens_per_minute.is_some());
        let expected = if is_expected { expected() } else { ExpectedCall::default() };
        if has_budget {
            expected_cost::read_prices().await;
        }
        let mut admission = Admission {
            grants: Arc::clone(self),
            taken: Vec::new(),
            budgets: None,
            model: origin.model.filter(|_| has_budget).unwrap_or_default().to_owned(),
            limits: Vec::new(),
        };
        for (scope, limits) in applying {
            // Boxed: most calls have no limits, and should not carry this future.
            if let Err(kind) = Box::pin(admission.take(&scope, &limits, &expected, started_at)).await {
                return Err(Box::new(admission.refuse(scope, &limits, kind, started_at)));
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
                    & meters.tokens.tidy(&self.bucket).await
                    & meters.budget.tidy(&self.budgets).await;
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
            None => {
                Arc::clone(scopes.entry(scope.clone()).or_insert_with(|| Arc::new(ScopeMeters::new(scope, &self.own))))
            }
        }
    }

    fn scopes(&self) -> MutexGuard<'_, HashMap<LimitScope, Arc<ScopeMeters>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer_tokens(&self) -> MutexGuard<'_, u64> {
        self.answer_tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer_sizes(&self) -> MutexGuard<'_, AnswerSizes> {
        self.answer_sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// Takes what a call needs from one scope. An error names the limit that is reached; the caller then drops `self`.
    async fn take(
        &mut self,
        scope: &LimitScope,
        limits: &UsageLimits,
        expected: &ExpectedCall,
        started_at: OffsetDateTime,
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
            // A stated maximum has to fit. Without one, the call gets what is left of the window up to the average answer. A call of more
            // tokens than the limit is admitted in a window of which nothing is used.
            let need = expected.prompt.saturating_add(expected.max_answer.unwrap_or(0));
            let average = expected.max_answer.map_or_else(|| *grants.answer_tokens(), |_| 0);
            let most = limit.max(1);
            let tokens = (need.clamp(1, most), need.saturating_add(average).clamp(1, most));
            let tokens = meters.tokens.take(&grants.bucket, limit, tokens).await.map_err(|_| LimitKind::Tokens)?;
            taken.tokens = Some(tokens);
        }
        if let Some(budget) = &limits.budget {
            let likely_answer = grants.answer_sizes().likely(&self.model);
            let reserve = expected_cost::money(budget, expected, likely_answer, &grants.prices, started_at);
            let reserve = reserve.map_err(|unknown| match unknown {
                CostUnknown::Price => LimitKind::BudgetWithoutPrice,
                CostUnknown::Bound => LimitKind::BudgetWithoutBound,
            })?;
            let period = meters.budget.period(budget, started_at);
            let reserved = period.reserve(&grants.budgets, budget, reserve.money, started_at).await;
            let reserved = reserved.map_err(|_| LimitKind::Budget)?;
            let hold = self.budgets.get_or_insert_with(|| BudgetHold::new(&grants.budgets, &grants.prices));
            hold.add(reserved, budget, reserve.step, started_at);
        }
        self.limits.extend(statuses(scope, limits, &meters, started_at));
        Ok(())
    }

    fn refuse(
        mut self,
        scope: LimitScope,
        limits: &UsageLimits,
        kind: LimitKind,
        started_at: OffsetDateTime,
    ) -> LimitRefusal {
        let labels = LimitRefusalLabels { scope: scope_label(&scope), limit: kind.label() };
        self.grants.metrics.limit_refusals.get_or_create(&labels).inc();
        let meters = self.grants.meters(&scope);
        let mut own = statuses(&scope, limits, &meters, started_at);
        let reached = own.iter().position(|status| status.kind == kind).map(|index| own.remove(index));
        let unknown = LimitStatus { scope, kind, limit: 0, remaining: 0, reset_seconds: None, window_seconds: None };
        let mut reached = reached.unwrap_or(unknown);
        reached.remaining = 0;
        let mut all = std::mem::take(&mut self.limits);
        all.extend(own);
        if !matches!(kind, LimitKind::BudgetWithoutPrice | LimitKind::BudgetWithoutBound) {
            all.push(reached.clone());
        }
        LimitRefusal { reached, limits: all }
    }

    /// Returns the money that the answer draws on while it streams, if it draws on any.
    pub fn meter(&mut self) -> Option<&mut BudgetHold> {
        self.budgets.as_mut().filter(|hold| hold.is_metered())
    }

    /// Ends a call that was made: gives its places back, and corrects the tokens. `used` are the tokens of prompt and answer, if they
    /// are known. Returns the money that the call has reserved, which is settled when the cost is known.
    pub fn settle(mut self, used: Option<(u64, u64)>) -> Option<BudgetHold> {
        if let Some((_, answer)) = used.filter(|_| self.budgets.is_some()) {
            self.grants.answer_sizes().add(&self.model, answer);
        }
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
        self.budgets.take()
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
            Self::Budget | Self::BudgetWithoutPrice | Self::BudgetWithoutBound => "budget",
        }
    }
}

/// Returns the state of each limit of a scope.
fn statuses(
    scope: &LimitScope,
    limits: &UsageLimits,
    meters: &ScopeMeters,
    started_at: OffsetDateTime,
) -> Vec<LimitStatus> {
    let status = |kind, limit: u64, remaining: u64| LimitStatus {
        scope: scope.clone(),
        kind,
        limit,
        remaining,
        reset_seconds: None,
        window_seconds: None,
    };
    let of_minute = |status| LimitStatus { reset_seconds: Some(seconds_left()), window_seconds: Some(60), ..status };
    let requests = limits.requests_per_minute.map(|limit| {
        let remaining = meters.requests.remaining(limit);
        of_minute(status(LimitKind::Requests, limit, remaining))
    });
    let tokens = limits.tokens_per_minute.map(|limit| {
        let remaining = meters.tokens.remaining(limit);
        of_minute(status(LimitKind::Tokens, limit, remaining))
    });
    let places = limits.concurrent_chats.map(|limit| {
        let remaining = meters.places.remaining(limit);
        status(LimitKind::Concurrent, limit, remaining)
    });
    let budget = limits.budget.as_ref().map(|budget| {
        let (period, amount): (Arc<PeriodMeter>, _) = (meters.budget.period(budget, started_at), budget.amount());
        let status = status(LimitKind::Budget, amount, period.remaining(amount));
        let window = Some(period.window).filter(|window| !window.is_total());
        LimitStatus {
            reset_seconds: window.map(|window| (window.end - started_at.unix_timestamp()).unsigned_abs()),
            window_seconds: window.map(|window| (window.end - window.start).unsigned_abs()),
            ..status
        }
    });
    [requests, tokens, places, budget].into_iter().flatten().collect()
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
