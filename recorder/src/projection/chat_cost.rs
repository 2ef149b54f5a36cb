//! The cost of a chat in its row, with the version of the price list with which the row was priced. An event that is delivered again
//! changes no cost, even if the program has newer prices by then.

use serde_json::{Map, Value};
use shared::prices::{Cost, CostPart, provider_cost};
use shared::usage::Usage;

use super::pg_value::{PgJson, pg_text, to_pg_json};

/// The result of pricing a chat: the price list, and the cost according to the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Pricing {
    /// The price list that was asked: the first 16 digits of its SHA-256.
    pub price_version: String,
    /// The cost; none if the list has no price for the call, which is then unpriced.
    pub cost: Option<CostOfChat>,
}

/// The cost of a chat. Estimated usage makes it an estimate, as `usage_source` says.
#[derive(Clone, Debug, PartialEq)]
pub struct CostOfChat {
    /// The whole cost, in nano-dollars (10⁻⁹ US dollars).
    pub nanodollars: i64,
    /// The parts of the cost that are not 0, in nano-dollars, as a JSON object. Their sum is the whole cost.
    pub parts: PgJson,
    /// The provider and the model whose prices applied, such as `openai/gpt-5`.
    pub priced_as: String,
}

/// Returns the provider's own figure for the cost of a call in nano-dollars.
pub(super) fn provider_cost_of(usage: &Usage) -> Option<i64> {
    let raw = usage.raw.as_ref().and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
    provider_cost(&raw.unwrap_or(Value::Null))
}

// === impl CostOfChat ===

impl CostOfChat {
    pub(super) fn new(cost: &Cost) -> Self {
        let parts = CostPart::ALL.iter().zip(cost.parts).filter(|(_, amount)| *amount != 0);
        let parts: Map<String, Value> = parts.map(|(part, amount)| (part.name().to_owned(), amount.into())).collect();
        Self { nanodollars: cost.total(), parts: to_pg_json(&parts), priced_as: pg_text(&cost.priced_as) }
    }
}
