//! The money that a call has reserved from all budgets that apply to it, from its admission until its cost is known.

use std::sync::Arc;

use shared::event::Event;
use shared::prices::{ChargedCall, PriceBook};

use super::bucket::GrantBucket;
use super::budget_meter::Reservation;

/// The reservations of a call. Dropping the value ends the call as one that was never made.
#[derive(Debug)]
pub struct BudgetHold {
    bucket: Arc<GrantBucket>,
    prices: Arc<PriceBook>,
    reservations: Vec<Reservation>,
}

impl BudgetHold {
    /// Creates a hold without reservations.
    pub fn new(bucket: &Arc<GrantBucket>, prices: &Arc<PriceBook>) -> Self {
        Self { bucket: Arc::clone(bucket), prices: Arc::clone(prices), reservations: Vec::new() }
    }

    /// Adds a reservation.
    pub fn add(&mut self, reservation: Reservation) {
        self.reservations.push(reservation);
    }

    /// Ends the call with the cost that the record will have for the event of its end.
    pub fn settle(mut self, end: &Event) {
        let cost = ChargedCall::of_event(end).and_then(|call| call.recorded_cost(&self.prices));
        self.end_with(cost.unwrap_or(0));
    }

    fn end_with(&mut self, cost: u64) {
        for reservation in self.reservations.drain(..) {
            reservation.settle(&self.bucket, cost);
        }
    }
}

impl Drop for BudgetHold {
    fn drop(&mut self) {
        self.end_with(0);
    }
}
