//! The meter of a scope's budget: a counter for each period in which calls count, and its entry in the bucket `BUDGETS`. The meter asks the
//! bucket only when this gateway's part is used up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::budget_ledger::{self, LedgerClaim, LedgerEntry};
use shared::budget_window::BudgetWindow;
use shared::event::{Budget, BudgetPolicy, LimitScope};
use time::OffsetDateTime;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::bucket::{BrokerAway, Exhausted, GrantBucket, SeenEntry};
use super::budget::BudgetCounter;
use super::places::Holder;

/// The time for which a period that was found exhausted is not asked for the same money again.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// The number of times that a call asks, if other calls take the money first.
const MAX_ASKS: usize = 3;
/// The number of periods of a scope that are counted at the same time: the present one, and those in which calls still run.
const MAX_PERIODS: usize = 64;

/// The meter of the budget of one scope.
#[derive(Debug)]
pub struct BudgetMeter {
    scope: LimitScope,
    own: Arc<Holder>,
    periods: Mutex<HashMap<BudgetWindow, Arc<PeriodMeter>>>,
}

/// The meter of one period of a budget.
#[derive(Debug)]
pub struct PeriodMeter {
    name: String,
    own: Arc<Holder>,
    /// The period.
    pub window: BudgetWindow,
    /// The time of the first call that reached this meter, in microseconds since 1970.
    since: i64,
    counter: Mutex<BudgetCounter>,
    entry: AsyncMutex<EntryState>,
    /// The money that the entry last refused, and the time until which it is not asked for as much again.
    exhausted: Mutex<Option<(u64, Instant)>>,
}

#[derive(Debug, Default)]
struct EntryState {
    seen: SeenEntry<LedgerEntry>,
    /// True from before a change until its answer: without the answer the change may have been made all the same, and the entry is
    /// written again.
    is_uncertain: bool,
}

/// Money that a call has reserved.
#[derive(Debug)]
pub struct Reservation {
    /// The meter of the period.
    pub period: Arc<PeriodMeter>,
    money: u64,
    /// The amount of the budget.
    amount: u64,
    /// The start of the call, in microseconds since 1970.
    started_at: i64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

// === impl BudgetMeter ===

impl BudgetMeter {
    /// Creates the meter of a scope, which holds nothing.
    pub fn new(scope: &LimitScope, own: &Arc<Holder>) -> Self {
        Self { scope: scope.clone(), own: Arc::clone(own), periods: Mutex::default() }
    }

    /// Returns the meter of the period in which a call counts that started at the given time.
    pub fn period(&self, budget: &Budget, started_at: OffsetDateTime) -> Arc<PeriodMeter> {
        let window = BudgetWindow::of(budget, started_at);
        let mut periods = lock(&self.periods);
        if periods.len() >= MAX_PERIODS && !periods.contains_key(&window) {
            // Only clocks that jump, or budgets that are changed all the time, lead here: the oldest period is left to the record.
            let oldest = periods.keys().copied().min_by_key(|window| window.end);
            oldest.and_then(|window| periods.remove(&window));
        }
        let new = || Arc::new(PeriodMeter::new(&self.scope, &self.own, window, started_at));
        Arc::clone(periods.entry(window).or_insert_with(new))
    }

    /// Gives back money that is not needed, and counts what was spent without asking. Returns true if no period holds anything that its
    /// entry does not have.
    pub async fn tidy(&self, bucket: &GrantBucket) -> bool {
        let periods: Vec<_> = lock(&self.periods).values().cloned().collect();
        for period in periods {
            let window = period.window;
            if period.tidy(bucket).await {
                drop(period);
                let mut periods = lock(&self.periods);
                // A call that holds the period may be about to reserve something.
                if periods.get(&window).is_some_and(|period| Arc::strong_count(period) == 1) {
                    periods.remove(&window);
                }
            }
        }
        lock(&self.periods).is_empty()
    }
}

// === impl PeriodMeter ===

impl PeriodMeter {
    fn new(scope: &LimitScope, own: &Arc<Holder>, window: BudgetWindow, since: OffsetDateTime) -> Self {
        Self {
            name: budget_ledger::name(scope, window),
            own: Arc::clone(own),
            window,
            since: micros(since),
            counter: Mutex::new(BudgetCounter::new(micros(since))),
            entry: AsyncMutex::default(),
            exhausted: Mutex::default(),
        }
    }

    fn claim(&self) -> LedgerClaim<'_> {
        LedgerClaim { run: self.own.run, gateway: &self.own.name, since: self.since }
    }

    /// Reserves money for a call. Asks the bucket if this gateway's part is too small. A budget with the policy `soft` refuses no call.
    pub async fn reserve(
        self: &Arc<Self>,
        bucket: &Arc<GrantBucket>,
        budget: &Budget,
        money: u64,
        started_at: OffsetDateTime,
    ) -> Result<Reservation, Exhausted> {
        let amount = budget.amount();
        let reservation = || Reservation { period: Arc::clone(self), money, amount, started_at: micros(started_at) };
        if self.counter().take(amount, money) {
            self.ask_ahead(bucket, amount);
            return Ok(reservation());
        }
        if budget.policy == BudgetPolicy::Soft {
            self.counter().reserve(money);
            return Ok(reservation());
        }
        if self.is_exhausted(money) {
            return Err(Exhausted);
        }
        let mut state = self.entry.lock().await;
        for _ in 0..MAX_ASKS {
            // Another call may have asked meanwhile.
            if self.counter().take(amount, money) {
                return Ok(reservation());
            }
            if self.is_exhausted(money) {
                return Err(Exhausted);
            }
            match self.ask(&mut state, bucket, amount, money).await {
                Ok(true) => {}
                Ok(false) => {
                    *lock(&self.exhausted) = Some((money, Instant::now() + EXHAUSTED_PAUSE));
                    return Err(Exhausted);
                }
                Err(_) if self.counter().borrow(budget.offline_nanodollars, money) => return Ok(reservation()),
                Err(_) => return Err(Exhausted),
            }
        }
        if self.counter().take(amount, money) { Ok(reservation()) } else { Err(Exhausted) }
    }

    /// Asks the entry for a part from which `money` can be reserved. Returns false if the others leave too little.
    async fn ask(
        &self,
        state: &mut EntryState,
        bucket: &GrantBucket,
        amount: u64,
        money: u64,
    ) -> Result<bool, BrokerAway> {
        state.is_uncertain = true;
        let change = |entry: &mut LedgerEntry| self.counter().ask(entry, self.claim(), amount, money);
        let granted = bucket.change(&mut state.seen, &self.name, change).await?;
        state.is_uncertain = false;
        self.counter().note(&state.seen.value, self.claim());
        Ok(granted.is_some())
    }

    /// Asks the bucket off the path of calls, if this gateway's part will soon be used up.
    fn ask_ahead(self: &Arc<Self>, bucket: &Arc<GrantBucket>, amount: u64) {
        if !self.counter().is_low(amount) {
            return;
        }
        let (meter, bucket) = (Arc::clone(self), Arc::clone(bucket));
        tokio::spawn(async move {
            // A change that is under way asks for more as well.
            let Ok(mut state) = meter.entry.try_lock() else { return };
            let _ = meter.ask(&mut state, &bucket, amount, 0).await;
        });
    }

    /// Writes what this gateway uses into the entry if it holds more, or has spent more than the entry knows. Returns true if the entry
    /// has all that was spent, and no call runs.
    async fn tidy(&self, bucket: &GrantBucket) -> bool {
        let Ok(mut state) = self.entry.try_lock() else { return false };
        if self.counter().is_idle() || state.is_uncertain {
            self.give_back(&mut state, bucket).await;
        }
        self.counter().is_void() && !state.is_uncertain
    }

    async fn give_back(&self, state: &mut EntryState, bucket: &GrantBucket) {
        state.is_uncertain = true;
        let change = |entry: &mut LedgerEntry| {
            self.counter().give_back(entry, self.claim());
            Some(())
        };
        if bucket.change(&mut state.seen, &self.name, change).await.is_ok() {
            state.is_uncertain = false;
            self.counter().note(&state.seen.value, self.claim());
        }
    }

    /// Returns the money that is left, as far as this gateway knows.
    pub fn remaining(&self, amount: u64) -> u64 {
        self.counter().remaining(amount)
    }

    fn is_exhausted(&self, money: u64) -> bool {
        lock(&self.exhausted).is_some_and(|(refused, until)| money >= refused && Instant::now() < until)
    }

    fn counter(&self) -> MutexGuard<'_, BudgetCounter> {
        lock(&self.counter)
    }
}

// === impl Reservation ===

impl Reservation {
    /// Reserves more money, if this gateway holds it. The bucket is asked for more off the path of the answer.
    pub fn extend(&mut self, bucket: &Arc<GrantBucket>, money: u64) -> bool {
        let is_held = self.period.counter().take(self.amount, money);
        if is_held {
            self.money = self.money.saturating_add(money);
            self.period.ask_ahead(bucket, self.amount);
        }
        is_held
    }

    /// Takes over the money of another reservation of the same call and period.
    pub fn absorb(&mut self, other: &Self) {
        self.money = self.money.saturating_add(other.money);
    }

    /// Ends the call: its cost replaces what was reserved. A part that is now much too large is given back at once.
    pub fn settle(self, bucket: &Arc<GrantBucket>, cost: u64) {
        let Self { period, money, amount, started_at } = self;
        let is_excessive = {
            let mut counter = period.counter();
            counter.settle(money, cost, started_at);
            counter.is_excessive(amount)
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if is_excessive {
            let bucket = Arc::clone(bucket);
            runtime.spawn(async move {
                let mut state = period.entry.lock().await;
                let is_needed = period.counter().is_excessive(amount);
                if is_needed {
                    period.give_back(&mut state, &bucket).await;
                }
            });
        }
    }
}
