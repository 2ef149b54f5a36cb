//! The ledger of a budget in one period: an entry of the bucket `BUDGETS`, which gateways and recorders change by compare-and-set alone.
//!
//! Each run of a gateway has a part of the amount, which covers the costs of its ended calls, the reservations of its running calls and
//! a small rest. A gateway begins no call beyond its part. When a run is over, a recorder replaces its part by the costs on the record.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::budget_window::BudgetWindow;
use crate::event::LimitScope;

/// The name of the bucket.
pub const BUCKET: &str = "BUDGETS";

/// The maximum size of the bucket, in bytes: about a million periods of scopes. Recorders remove the entries of periods that are over.
pub const MAX_BYTES: i64 = 256 << 20;

/// The part of what is left of an amount that a run takes beyond its need, as a divisor, so that the last dollars are taken as needed.
const REST_DIVISOR: u64 = 8;

/// The entry of a scope and period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The costs on the record of the period's calls that no run of the list counts, in nano-dollars.
    #[serde(default)]
    pub recorded: u64,
    /// True once a recorder has computed `recorded`: the calls before the first run of the list are in it.
    #[serde(default)]
    pub is_recorded: bool,
    /// The runs of gateways, by the id of the run.
    #[serde(default)]
    pub runs: BTreeMap<Uuid, LedgerRun>,
}

/// The part of one run of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRun {
    /// The name of the gateway, as in events.
    pub gateway: String,
    /// A time by the gateway's clock, in microseconds since 1970: the run counts its calls that started then or later, and no others.
    pub since: i64,
    /// The part, in nano-dollars.
    pub granted: u64,
}

/// A run that asks for a part.
#[derive(Clone, Copy, Debug)]
pub struct LedgerClaim<'a> {
    /// The id of the run.
    pub run: Uuid,
    /// The name of the gateway.
    pub gateway: &'a str,
    /// The time from which the run counts its calls, in microseconds since 1970.
    pub since: i64,
}

impl LedgerEntry {
    /// Returns the part of all others: the other runs, and what is on the record.
    pub fn of_others(&self, run: Uuid) -> u64 {
        let others = self.runs.iter().filter(|(id, _)| **id != run);
        others.fold(self.recorded, |sum, (_, part)| sum.saturating_add(part.granted))
    }

    /// Returns the part of one run.
    pub fn of_run(&self, run: Uuid) -> u64 {
        self.runs.get(&run).map_or(0, |part| part.granted)
    }

    /// Sets the part of a run. The time from which the run counts its calls stays as it is.
    pub fn set(&mut self, claim: LedgerClaim<'_>, granted: u64) {
        match self.runs.get_mut(&claim.run) {
            Some(run) => run.granted = granted,
            None => {
                let run = LedgerRun { gateway: claim.gateway.to_owned(), since: claim.since, granted };
                self.runs.insert(claim.run, run);
            }
        }
    }

    /// Sets the part of a run to `need` at least and `want` at best, if the amount allows `need`. Otherwise sets the part to `used`,
    /// the money that the run has spent or reserved already, and returns `None`.
    pub fn grant(&mut self, claim: LedgerClaim<'_>, amount: u64, used: u64, need: u64, want: u64) -> Option<u64> {
        let free = amount.saturating_sub(self.of_others(claim.run));
        if need > free {
            self.set(claim, used);
            return None;
        }
        let granted = want.min(need.saturating_add((free - need) / REST_DIVISOR)).max(need);
        self.set(claim, granted);
        Some(granted)
    }
}

/// Returns the name of an entry.
pub fn name(scope: &LimitScope, window: BudgetWindow) -> String {
    format!("budget.{}.{}.{}", URL_SAFE_NO_PAD.encode(scope.to_string()), window.start, window.end)
}

/// Reads the name of an entry; `None` for an entry of a later version.
pub fn parse_name(name: &str) -> Option<(LimitScope, BudgetWindow)> {
    let mut parts = name.strip_prefix("budget.")?.split('.');
    let scope = String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok()?.parse().ok()?;
    let window = BudgetWindow { start: parts.next()?.parse().ok()?, end: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some((scope, window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let scope: LimitScope = "user:idp|ann.*>".parse().unwrap();
        let window = BudgetWindow { start: -60, end: 3600 };
        assert_eq!(parse_name(&name(&scope, window)), Some((scope, window)));
        for bad in
            ["", "budget.", "budget.x.1.2", "budget.ZXZlcnlvbmU.1", "budget.ZXZlcnlvbmU.1.2.3", "other.ZXZlcnlvbmU.1.2"]
        {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_entry_of_an_earlier_or_later_version_is_read() {
        let entry: LedgerEntry = serde_json::from_str(r#"{"runs": {}, "later": 1}"#).unwrap();
        assert_eq!(entry, LedgerEntry::default());
    }
}
