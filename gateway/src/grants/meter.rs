//! The meters of one scope: windows of requests and tokens, places of calls, and money. A meter asks the bucket only when it holds too little.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shared::event::LimitScope;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep};

use super::bucket::{Exhausted, GrantBucket, SeenEntry};
use super::budget_meter::BudgetMeter;
use super::places::{Holder, PlacesCounter, PlacesEntry};
use super::window::{WindowCounter, WindowEntry};

/// The time for which a window that was found exhausted is not asked for again.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// The time for which a call waits for a place that is being given back: another gateway ends a call before the client sees the end,
/// and changes the entry just after.
const RELEASE_WAIT: Duration = Duration::from_millis(20);
/// The minimum time between two looks for gateways that have ended and still hold places.
const ENDED_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which the entry of places is written again, so that the broker does not remove it.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(120);

/// A meter of units in windows of a minute.
#[derive(Debug)]
pub struct WindowMeter {
    /// The beginning of the name of the entries; the minute follows.
    prefix: String,
    counter: Mutex<WindowCounter>,
    /// Held while the entry is being changed, so that one change at a time is under way.
    entry: AsyncMutex<SeenEntry<WindowEntry>>,
    /// The last window that was found exhausted, and the time until which it is not asked for again.
    exhausted: Mutex<Option<(i64, Instant)>>,
}

/// A meter of calls that run at the same time.
#[derive(Debug)]
pub struct PlacesMeter {
    name: String,
    counter: Mutex<PlacesCounter>,
    entry: AsyncMutex<PlacesState>,
}

#[derive(Debug)]
struct PlacesState {
    seen: SeenEntry<PlacesEntry>,
    /// True from before a change until its answer: without the answer, as when the client leaves meanwhile, the change may have been
    /// made all the same, and the entry is written again.
    is_uncertain: bool,
    written_at: Instant,
    /// The time at which the entry was last asked for a place, and had none.
    exhausted_at: Option<Instant>,
    checked_at: Option<Instant>,
}

/// The meters of one scope.
#[derive(Debug)]
pub struct ScopeMeters {
    /// The requests of the scope.
    pub requests: Arc<WindowMeter>,
    /// The tokens of the scope.
    pub tokens: Arc<WindowMeter>,
    /// The running calls of the scope.
    pub places: Arc<PlacesMeter>,
    /// The money of the scope.
    pub budget: BudgetMeter,
}

/// Returns the present window: the number of minutes since 1970.
pub fn minute_now() -> i64 {
    i64::try_from(seconds_now() / 60).unwrap_or(i64::MAX)
}

/// Returns the number of seconds until the present window ends, from 1 to 60.
pub fn seconds_left() -> u64 {
    60 - seconds_now() % 60
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScopeMeters {
    /// Creates the meters of a scope, which hold nothing.
    pub fn new(scope: &LimitScope, own: &Arc<Holder>) -> Self {
        let budget = BudgetMeter::new(scope, own);
        let scope = URL_SAFE_NO_PAD.encode(scope.to_string());
        Self {
            requests: Arc::new(WindowMeter::new(format!("requests.{scope}"))),
            tokens: Arc::new(WindowMeter::new(format!("tokens.{scope}"))),
            places: Arc::new(PlacesMeter::new(format!("places.{scope}"))),
            budget,
        }
    }
}

// === impl WindowMeter ===

impl WindowMeter {
    fn new(prefix: String) -> Self {
        Self { prefix, counter: Mutex::default(), entry: AsyncMutex::default(), exhausted: Mutex::default() }
    }

    /// Uses units of the present window: `need`, and more up to `want` as far as they are there. Asks the bucket if this gateway holds
    /// too few. Returns the window and the number of units.
    pub async fn take(
        self: &Arc<Self>,
        bucket: &Arc<GrantBucket>,
        limit: u64,
        (need, want): (u64, u64),
    ) -> Result<(i64, u64), Exhausted> {
        let minute = minute_now();
        let taken = self.counter().take(minute, need, want);
        if let Some(units) = taken {
            self.ask_ahead(bucket, limit);
            return Ok((minute, units));
        }
        if self.is_exhausted(minute) {
            return Err(Exhausted);
        }
        let mut entry = self.entry.lock().await;
        // The window may have changed while another call was asking.
        let minute = minute_now();
        let taken = self.counter().take(minute, need, want);
        if let Some(units) = taken {
            return Ok((minute, units));
        }
        if self.is_exhausted(minute) {
            return Err(Exhausted);
        }
        self.ask(&mut entry, bucket, limit, (need, want), minute).await?;
        let taken = self.counter().take(minute, need, want);
        taken.map(|units| (minute, units)).ok_or(Exhausted)
    }

    /// Asks the bucket for as much as is needed to use between `need` and `want` units. Without the broker, this gateway alone may use
    /// the whole limit.
    async fn ask(
        &self,
        entry: &mut SeenEntry<WindowEntry>,
        bucket: &GrantBucket,
        limit: u64,
        (need, want): (u64, u64),
        minute: i64,
    ) -> Result<(), Exhausted> {
        let (demand, uncounted) = {
            let mut counter = self.counter();
            counter.enter(minute);
            (counter.demand(limit, need, want), counter.uncounted())
        };
        let name = format!("{}.{minute}", self.prefix);
        let answer = bucket.change(entry, &name, |entry| entry.grant(limit, uncounted, demand.0, demand.1)).await;
        match answer {
            Ok(granted) => {
                self.counter().note_grant(minute, uncounted, granted.unwrap_or(0), entry.value.granted);
                if granted.is_none() {
                    *lock(&self.exhausted) = Some((minute, Instant::now() + EXHAUSTED_PAUSE));
                    return Err(Exhausted);
                }
            }
            Err(_) => {
                if !self.counter().borrow(minute, limit, need) {
                    return Err(Exhausted);
                }
            }
        }
        Ok(())
    }

    /// Asks the bucket off the path of calls, if this gateway will soon hold too few units.
    fn ask_ahead(self: &Arc<Self>, bucket: &Arc<GrantBucket>, limit: u64) {
        if !self.counter().is_low(limit) {
            return;
        }
        let (meter, bucket) = (Arc::clone(self), Arc::clone(bucket));
        tokio::spawn(async move {
            // A change that is under way asks for more as well.
            let Ok(mut entry) = meter.entry.try_lock() else { return };
            let units = meter.counter().held() + 1;
            let _ = meter.ask(&mut entry, &bucket, limit, (units, units), minute_now()).await;
        });
    }

    /// Uses units that were used already, or gives back units that were not.
    pub fn correct(&self, taken_in: i64, taken: u64, used: u64) {
        let mut counter = self.counter();
        if used > taken {
            counter.charge(minute_now(), used - taken);
        } else {
            counter.enter(minute_now());
            counter.put_back(taken_in, taken - used);
        }
    }

    /// Gives idle units back to the entry, and counts units that were used without asking. Returns true if the meter holds nothing.
    pub async fn tidy(&self, bucket: &GrantBucket) -> bool {
        let Ok(mut entry) = self.entry.try_lock() else { return false };
        let minute = minute_now();
        let (idle, uncounted) = {
            let mut counter = self.counter();
            (counter.idle(minute), counter.uncounted())
        };
        if idle > 0 || uncounted > 0 {
            let name = format!("{}.{minute}", self.prefix);
            let change = |entry: &mut WindowEntry| {
                entry.granted = entry.granted.saturating_add(uncounted).saturating_sub(idle);
                Some(())
            };
            if bucket.change(&mut entry, &name, change).await.is_ok() {
                self.counter().note_grant(minute, uncounted, 0, entry.value.granted);
            } else {
                self.counter().hold(minute, idle);
            }
        }
        self.counter().is_void(minute)
    }

    /// Returns the units that are left in the present window, as far as this gateway knows.
    pub fn remaining(&self, limit: u64) -> u64 {
        let mut counter = self.counter();
        counter.enter(minute_now());
        counter.remaining(limit)
    }

    fn is_exhausted(&self, minute: i64) -> bool {
        lock(&self.exhausted).is_some_and(|(window, until)| window == minute && Instant::now() < until)
    }

    fn counter(&self) -> MutexGuard<'_, WindowCounter> {
        lock(&self.counter)
    }
}

// === impl PlacesMeter ===

impl PlacesMeter {
    fn new(name: String) -> Self {
        let state = PlacesState {
            seen: SeenEntry::default(),
            is_uncertain: false,
            written_at: Instant::now(),
            exhausted_at: None,
            checked_at: None,
        };
        Self { name, counter: Mutex::default(), entry: AsyncMutex::new(state) }
    }

    /// Takes a place for a call. Asks the bucket if this gateway holds none that is free.
    pub async fn take(&self, bucket: &GrantBucket, own: &Holder, limit: u64) -> Result<(), Exhausted> {
        if self.counter().take(limit) {
            return Ok(());
        }
        let arrived_at = Instant::now();
        let mut state = self.entry.lock().await;
        // Calls that waited while another call found no place are refused by that answer.
        if state.exhausted_at.is_some_and(|at| at > arrived_at) {
            return Err(Exhausted);
        }
        let mut has_waited = false;
        loop {
            let (need, want) = {
                let mut counter = self.counter();
                if counter.take(limit) {
                    return Ok(());
                }
                counter.demand(limit)
            };
            let asked_at = Instant::now();
            state.is_uncertain = true;
            let granted = bucket.change(&mut state.seen, &self.name, |entry| entry.grant(own, limit, need, want)).await;
            state.is_uncertain = granted.is_err();
            match granted {
                Ok(Some(places)) => {
                    state.written_at = Instant::now();
                    let mut counter = self.counter();
                    (counter.held, counter.others) = (places, state.seen.value.of_others(own));
                }
                Err(_) => return self.counter().take_uncounted(limit).then_some(()).ok_or(Exhausted),
                Ok(None) if self.free_ended(&mut state, bucket, own).await => {}
                Ok(None) if !has_waited => {
                    has_waited = true;
                    sleep(RELEASE_WAIT).await;
                }
                Ok(None) => {
                    state.exhausted_at = Some(asked_at);
                    self.counter().others = state.seen.value.of_others(own);
                    return Err(Exhausted);
                }
            }
        }
    }

    /// Frees the places of gateways that have ended. Returns true if there were any.
    async fn free_ended(&self, state: &mut PlacesState, bucket: &GrantBucket, own: &Holder) -> bool {
        if state.checked_at.is_some_and(|at| at.elapsed() < ENDED_CHECK_INTERVAL) {
            return false;
        }
        state.checked_at = Some(Instant::now());
        let Ok(ended) = bucket.ended(state.seen.value.others(own)).await else { return false };
        if ended.is_empty() {
            return false;
        }
        let change = |entry: &mut PlacesEntry| {
            entry.remove(&ended);
            Some(())
        };
        bucket.change(&mut state.seen, &self.name, change).await.is_ok()
    }

    /// Ends a call. The place is given back in the background, unless this gateway may hold it.
    pub fn release(self: &Arc<Self>, bucket: &Arc<GrantBucket>, own: &Arc<Holder>, limit: u64) {
        if !self.counter().release(limit) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (meter, bucket, own) = (Arc::clone(self), Arc::clone(bucket), Arc::clone(own));
        runtime.spawn(async move {
            let mut state = meter.entry.lock().await;
            let is_needed = {
                let counter = meter.counter();
                counter.held > counter.in_use
            };
            if is_needed {
                meter.write_in_use(&mut state, &bucket, &own).await;
            }
        });
    }

    /// Gives back places that are not in use, counts calls that began without asking, and renews the entry. Returns true if no call
    /// runs and no place is held.
    pub async fn tidy(&self, bucket: &GrantBucket, own: &Holder) -> bool {
        let Ok(mut state) = self.entry.try_lock() else { return false };
        let (held, in_use) = {
            let counter = self.counter();
            (counter.held, counter.in_use)
        };
        let is_old = in_use > 0 && state.written_at.elapsed() > RENEWAL_INTERVAL;
        if held != in_use || state.is_uncertain || is_old {
            self.write_in_use(&mut state, bucket, own).await;
        }
        let counter = self.counter();
        counter.held == 0 && counter.in_use == 0 && !state.is_uncertain
    }

    /// Writes the number of places in use into the entry. The other places count as given back at once, so that none is used while the
    /// answer is on its way.
    async fn write_in_use(&self, state: &mut PlacesState, bucket: &GrantBucket, own: &Holder) {
        let in_use = {
            let mut counter = self.counter();
            counter.held = counter.in_use;
            counter.in_use
        };
        let change = |entry: &mut PlacesEntry| {
            entry.set(own, in_use);
            Some(())
        };
        match bucket.change(&mut state.seen, &self.name, change).await {
            Ok(_) => {
                (state.is_uncertain, state.written_at) = (false, Instant::now());
                self.counter().others = state.seen.value.of_others(own);
            }
            Err(_) => state.is_uncertain = true,
        }
    }

    /// Returns the number of places that are left, as far as this gateway knows.
    pub fn remaining(&self, limit: u64) -> u64 {
        let counter = self.counter();
        limit.saturating_sub(counter.others).saturating_sub(counter.in_use)
    }

    fn counter(&self) -> MutexGuard<'_, PlacesCounter> {
        lock(&self.counter)
    }
}
