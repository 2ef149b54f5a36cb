//! The money that a call has reserved from all budgets that apply to it, from its admission until its cost is known.

use std::sync::{Arc, Mutex, PoisonError};

use shared::event::{Budget, Event};
use shared::prices::{ChargedCall, PriceBook};
use time::OffsetDateTime;

use super::answer_meter::AnswerMeter;
use super::bucket::GrantBucket;
use super::budget_meter::{PeriodMeter, Reservation};

/// The reservations of a call. Dropping the value ends the call as one that was never made.
#[derive(Debug)]
pub struct BudgetHold {
    bucket: Arc<GrantBucket>,
    prices: Arc<PriceBook>,
    reservations: Vec<Reservation>,
    /// The draws of the answer; empty unless a budget ends answers.
    draws: Vec<BudgetDraw>,
    meter: AnswerMeter,
    /// The draw that the broker is being asked for.
    asked: Option<Arc<Mutex<Asked>>>,
}

/// A budget that the answer draws on while it streams.
#[derive(Clone, Debug)]
struct BudgetDraw {
    period: Arc<PeriodMeter>,
    budget: Arc<Budget>,
    /// The price of one step.
    step: u64,
    started_at: OffsetDateTime,
}

/// The result of a draw.
#[derive(Debug)]
pub enum Drawn {
    /// The budgets have money for what follows, or are being asked.
    Enough,
    /// The broker has to be asked.
    Asking(Asking),
    /// A budget is used up.
    UsedUp,
}

/// A draw for which the broker is to be asked.
#[derive(Debug)]
pub struct Asking {
    bucket: Arc<GrantBucket>,
    draws: Vec<(BudgetDraw, u64)>,
    asked: Arc<Mutex<Asked>>,
}

/// The state of a draw for which the broker is asked.
#[derive(Debug, Default)]
enum Asked {
    #[default]
    Pending,
    Granted(Vec<Reservation>),
    Refused,
    /// The call has ended meanwhile.
    Ended,
}

// === impl BudgetHold ===

impl BudgetHold {
    /// Creates a hold without reservations.
    pub fn new(bucket: &Arc<GrantBucket>, prices: &Arc<PriceBook>) -> Self {
        Self {
            bucket: Arc::clone(bucket),
            prices: Arc::clone(prices),
            reservations: Vec::new(),
            draws: Vec::new(),
            meter: AnswerMeter::default(),
            asked: None,
        }
    }

    /// Adds a reservation. The answer draws on the budget while it streams, `step` for each step, unless `step` is 0.
    pub fn add(&mut self, reservation: Reservation, budget: &Budget, step: u64, started_at: OffsetDateTime) {
        if step > 0 {
            let (period, budget) = (Arc::clone(&reservation.period), Arc::new(budget.clone()));
            self.draws.push(BudgetDraw { period, budget, step, started_at });
        }
        self.reservations.push(reservation);
    }

    /// Returns true if the answer draws on a budget while it streams.
    pub fn is_metered(&self) -> bool {
        !self.draws.is_empty()
    }

    /// Draws on the budgets, if the answer has arrived up to this number of tokens. Money is drawn ahead: at the middle of a step for the
    /// next step.
    pub fn draw(&mut self, arrived: u64) -> Drawn {
        if !self.meter.is_due(arrived) {
            return Drawn::Enough;
        }
        self.draw_steps(arrived)
    }

    fn draw_steps(&mut self, arrived: u64) -> Drawn {
        if let Some(asked) = self.asked.take() {
            let state = std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
            match state {
                Asked::Pending => {
                    self.asked = Some(asked);
                    return Drawn::Enough;
                }
                Asked::Granted(more) => self.absorb(more),
                Asked::Refused | Asked::Ended => return Drawn::UsedUp,
            }
        }
        let steps = self.meter.draw(arrived);
        let mut missing = Vec::new();
        for draw in &self.draws {
            let money = draw.step.saturating_mul(steps);
            let own = self.reservations.iter_mut().find(|held| Arc::ptr_eq(&held.period, &draw.period));
            if !own.is_some_and(|held| held.extend(&self.bucket, money)) {
                missing.push((draw.clone(), money));
            }
        }
        if missing.is_empty() {
            return Drawn::Enough;
        }
        let asked = Arc::default();
        self.asked = Some(Arc::clone(&asked));
        Drawn::Asking(Asking { bucket: Arc::clone(&self.bucket), draws: missing, asked })
    }

    /// Ends the call with the cost that the record will have for the event of its end.
    pub fn settle(mut self, end: &Event) {
        let cost = ChargedCall::of_event(end).and_then(|call| call.recorded_cost(&self.prices));
        self.end_with(cost.unwrap_or(0));
    }

    fn end_with(&mut self, cost: u64) {
        if let Some(asked) = self.asked.take() {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            if let Asked::Granted(more) = std::mem::replace(&mut *asked, Asked::Ended) {
                drop(asked);
                self.absorb(more);
            }
        }
        for reservation in self.reservations.drain(..) {
            reservation.settle(&self.bucket, cost);
        }
    }

    /// Adds what was drawn to the reservations of the admission.
    fn absorb(&mut self, more: Vec<Reservation>) {
        for drawn in more {
            match self.reservations.iter_mut().find(|held| Arc::ptr_eq(&held.period, &drawn.period)) {
                Some(held) => held.absorb(&drawn),
                // Unreachable: an answer draws on budgets of which its call has reserved.
                None => drawn.settle(&self.bucket, 0),
            }
        }
    }
}

impl Drop for BudgetHold {
    fn drop(&mut self) {
        self.end_with(0);
    }
}

// === impl Asking ===

impl Asking {
    /// Asks the broker. Returns false if a budget is used up: the answer is to be ended.
    pub async fn is_granted(self) -> bool {
        let mut granted = Vec::new();
        let mut is_used_up = false;
        for (draw, money) in &self.draws {
            match draw.period.reserve(&self.bucket, &draw.budget, *money, draw.started_at).await {
                Ok(reservation) => granted.push(reservation),
                Err(_) => is_used_up = true,
            }
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if is_used_up || matches!(*asked, Asked::Ended) {
            if matches!(*asked, Asked::Pending) {
                *asked = Asked::Refused;
            }
            drop(asked);
            granted.into_iter().for_each(|reservation| reservation.settle(&self.bucket, 0));
            return !is_used_up;
        }
        *asked = Asked::Granted(granted);
        true
    }
}
