//! The budget of a scope: the money that the calls of a scope may cost in a period.

use serde::{Deserialize, Serialize};

use crate::word::open_words;

/// The money that the calls of a scope may cost in a period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Budget {
    /// The amount in nano-dollars (10⁻⁹ US dollars).
    pub amount_nanodollars: u64,
    /// The period after which the budget begins again.
    pub period: BudgetPeriod,
    /// The time zone in which periods begin: a name of the IANA database. An unknown name counts as `UTC`.
    pub time_zone: String,
    /// The effect of the budget on calls.
    pub policy: BudgetPolicy,
    /// The treatment of calls for whose model no price is known.
    pub unpriced: UnpricedCalls,
    /// The amount that each gateway may spend in a period while the broker is away, in nano-dollars. 0: calls are refused.
    pub offline_nanodollars: u64,
}

open_words! {
    /// The period of a budget. A period begins with an hour, a day, a Monday or a first day of a month of the budget's time zone.
    pub enum BudgetPeriod {
        /// An hour of the clock.
        Hour = "hour",
        /// A day.
        Day = "day",
        /// A week, from Monday on.
        Week = "week",
        /// A calendar month.
        Month = "month",
        /// All time: the budget never begins again.
        Total = "total",
    }
}

open_words! {
    /// The effect of a budget on calls. Gateways take a word that they do not know for `finish`.
    pub enum BudgetPolicy {
        /// No call is refused; headers and metrics tell what is left.
        Soft = "soft",
        /// A call begins if its probable cost fits into the budget. A call that has begun ends.
        Finish = "finish",
        /// As `finish`, and a streamed answer is ended when the budget is used up.
        Cut = "cut",
        /// A call begins if its greatest possible cost fits into the budget.
        Strict = "strict",
    }
}

open_words! {
    /// The treatment of calls for whose model no price is known. Gateways take a word that they do not know for `allow`.
    pub enum UnpricedCalls {
        /// The calls are admitted, and count as free of charge.
        Allow = "allow",
        /// The calls are refused.
        Refuse = "refuse",
    }
}

impl Budget {
    /// The greatest amount, in nano-dollars: a hundred million dollars. A greater amount in an event counts as this one.
    pub const MAX_NANODOLLARS: u64 = 100_000_000_000_000_000;

    /// Returns the amount in nano-dollars.
    pub fn amount(&self) -> u64 {
        self.amount_nanodollars.min(Self::MAX_NANODOLLARS)
    }

    /// The greatest length of a time zone's name, in bytes.
    pub const MAX_ZONE_BYTES: usize = 64;
}
