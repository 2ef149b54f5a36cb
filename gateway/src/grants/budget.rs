//! Counting the money of a budget in one period: the part of the ledger that one gateway holds. The ledger's entry, which all gateways
//! share, is in [`shared::budget_ledger`].
//!
//! A call reserves its probable cost before it begins, and is settled with its cost at its end. A gateway reserves only within its part
//! of the ledger, so that all gateways together reserve at most the amount. A cost beyond the reservation counts in any case.

use shared::budget_ledger::{LedgerClaim, LedgerEntry};

/// The part of an amount that a gateway takes at once, as a divisor: a gateway holds at most one part in 256 of the amount unused.
const SLICE_DIVISOR: u64 = 256;

/// The money of one period that this gateway holds, in nano-dollars.
#[derive(Clone, Debug, Default)]
pub struct BudgetCounter {
    /// The costs of the calls that have ended.
    spent: u64,
    /// The reservations of the calls that run.
    reserved: u64,
    /// This gateway's part in the entry, as last seen.
    granted: u64,
    /// The parts of all others, as last seen.
    others: u64,
    /// The time from which this run counts its calls, in microseconds since 1970. The record counts the calls before.
    since: i64,
    /// True once the entry was read: a part that this run already had is known to be spent, and `since` is that of the entry.
    has_joined: bool,
    /// The start times and costs of calls that started before `since` and ended before the entry was read.
    early: Vec<(i64, u64)>,
    /// True if money was reserved or spent since the last call of [`Self::is_idle`].
    was_used: bool,
}

impl BudgetCounter {
    /// Creates a counter of the calls that start at the given time or later, if the entry does not say that this run counts from an
    /// earlier time on.
    pub fn new(since: i64) -> Self {
        Self { since, ..Self::default() }
    }

    /// Returns the money that is spent or reserved.
    pub fn used(&self) -> u64 {
        self.spent.saturating_add(self.reserved)
    }

    /// Reserves money within the part that this gateway holds. Returns false, and reserves nothing, if the part or the amount is too
    /// small: an amount that was lowered counts at once.
    pub fn take(&mut self, amount: u64, money: u64) -> bool {
        let used = self.used().saturating_add(money);
        let is_held = self.has_joined && used <= self.granted && self.others.saturating_add(used) <= amount;
        if is_held {
            self.reserve(money);
        }
        is_held
    }

    /// Reserves money without asking, because the broker is away: at most `allowance` beyond the part that this gateway holds.
    pub fn borrow(&mut self, allowance: u64, money: u64) -> bool {
        let is_allowed = self.used().saturating_add(money) <= self.granted.saturating_add(allowance);
        if is_allowed {
            self.reserve(money);
        }
        is_allowed
    }

    /// Reserves money in any case, for a budget that refuses no call.
    pub fn reserve(&mut self, money: u64) {
        self.reserved = self.reserved.saturating_add(money);
        self.was_used = true;
    }

    /// Ends a call: its cost replaces its reservation, if this run counts the call.
    pub fn settle(&mut self, reserved: u64, cost: u64, started_at: i64) {
        self.reserved = self.reserved.saturating_sub(reserved);
        self.was_used = true;
        if started_at >= self.since {
            self.spent = self.spent.saturating_add(cost);
        } else if !self.has_joined {
            self.early.push((started_at, cost));
        }
    }

    /// Asks the entry for a part from which `money` can be reserved. Returns the part, or `None` if the others leave too little; the
    /// entry then has what this gateway uses. Called again with the present entry after a conflict.
    pub fn ask(&mut self, entry: &mut LedgerEntry, claim: LedgerClaim<'_>, amount: u64, money: u64) -> Option<u64> {
        let claim = self.join(entry, claim);
        let need = self.used().saturating_add(money);
        entry.grant(claim, amount, self.used(), need, need.saturating_add(amount / SLICE_DIVISOR))
    }

    /// Writes into the entry what this gateway uses, and holds nothing beyond from now on, also while the answer is on its way.
    pub fn give_back(&mut self, entry: &mut LedgerEntry, claim: LedgerClaim<'_>) {
        let claim = self.join(entry, claim);
        self.granted = self.granted.min(self.used());
        entry.set(claim, self.used());
    }

    /// Notes the entry after a change of it.
    pub fn note(&mut self, entry: &LedgerEntry, claim: LedgerClaim<'_>) {
        (self.granted, self.others) = (entry.of_run(claim.run), entry.of_others(claim.run));
    }

    /// Takes over the part and the time that this run has in the entry, when the entry is read for the first time: a counter without
    /// running calls is dropped, and its part is then what was spent. Calls reach a new counter in another order than they start, so the
    /// time of the entry alone says which calls are this run's. Returns the claim with that time, also for an entry from which a recorder
    /// has removed this run by mistake.
    fn join<'a>(&mut self, entry: &LedgerEntry, claim: LedgerClaim<'a>) -> LedgerClaim<'a> {
        if !self.has_joined {
            self.has_joined = true;
            if let Some(part) = entry.runs.get(&claim.run) {
                self.spent = self.spent.saturating_add(part.granted);
                self.since = part.since;
            }
            let own = std::mem::take(&mut self.early).into_iter().filter(|(started_at, _)| *started_at >= self.since);
            self.spent = own.fold(self.spent, |sum, (_, cost)| sum.saturating_add(cost));
        }
        LedgerClaim { since: self.since, ..claim }
    }

    /// Returns true if a greater part should be asked for before it is needed.
    pub fn is_low(&self, amount: u64) -> bool {
        let slice = amount / SLICE_DIVISOR;
        self.granted.saturating_sub(self.used()) < slice / 2 && self.others.saturating_add(self.granted) < amount
    }

    /// Returns true if the entry should be changed at once: more is held unused than a slice, as after a call that cost less than its
    /// reservation.
    pub fn is_excessive(&self, amount: u64) -> bool {
        self.granted > self.used().saturating_add(amount / SLICE_DIVISOR)
    }

    /// Returns true if the entry should be changed by and by: unused money was held for the whole time since the last call, or more is
    /// used than the entry knows.
    pub fn is_idle(&mut self) -> bool {
        let was_used = std::mem::take(&mut self.was_used);
        self.granted < self.used() || (!was_used && self.granted > self.used())
    }

    /// Returns the money that is left for all gateways, as far as this gateway knows.
    pub fn remaining(&self, amount: u64) -> u64 {
        amount.saturating_sub(self.others.saturating_add(self.used()))
    }

    /// Returns true if no call runs and the entry has exactly what was spent, so that another counter can take over.
    pub fn is_void(&self) -> bool {
        self.reserved == 0 && self.granted == self.spent
    }
}

#[cfg(test)]
mod tests;
