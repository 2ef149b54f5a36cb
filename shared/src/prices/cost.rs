//! The cost of a call: a pure function of the call's usage and of the prices in force when the call started.

use serde_json::Value;
use time::OffsetDateTime;

use super::catalogue::RateCard;
use super::price_book::PriceBook;
use super::price_key::PriceKey;
use super::quantities::{CostPart, Quantities, TokenCounts};

/// The facts of a call that determine its cost. All of them are in the event of the call's end.
#[derive(Clone, Debug)]
pub struct PricedCall<'a> {
    /// The name of the upstream that answered.
    pub upstream: &'a str,
    /// The model that the answer named.
    pub answered_model: Option<&'a str>,
    /// The model that the client asked for.
    pub requested_model: &'a str,
    /// The time of admission.
    pub started_at: OffsetDateTime,
    /// The tokens, where known.
    pub tokens: Option<TokenCounts>,
    /// The provider's own usage object, or null.
    pub raw_usage: &'a Value,
    /// The length of the audio that the call read, in seconds.
    pub input_seconds: Option<f64>,
}

/// The cost of a call in nano-dollars (10⁻⁹ US dollars).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The cost of each part, in the order of [`CostPart::ALL`].
    pub parts: [i64; CostPart::ALL.len()],
    /// The price list: the first 16 digits of its hash.
    pub price_version: String,
    /// The provider and the model whose prices applied, such as `openai/gpt-5`.
    pub priced_as: String,
}

impl Cost {
    /// Returns the cost of a call, or `None` if no list has a price for anything that was counted.
    pub fn of_call(call: &PricedCall<'_>, prices: &PriceBook) -> Option<Self> {
        let found = prices.find(call.started_at, call.upstream, call.answered_model, call.requested_model)?;
        let tier =
            call.raw_usage.get("service_tier").or_else(|| call.raw_usage.get("serviceTier")).and_then(Value::as_str);
        let context = match tier.filter(|_| found.is_own) {
            None => Vec::new(),
            Some("batch") => vec![("service_tier", "batch"), ("processing", "batch")],
            Some(tier) => vec![("service_tier", tier)],
        };
        let rates = found.model.rates(call.started_at, &context);
        let quantities = Quantities::of_call(call.tokens, call.raw_usage, call.input_seconds);
        let is_by_token = [PriceKey::Input, PriceKey::Output].iter().any(|key| rates.0.contains_key(key));
        if call.tokens.is_none() && is_by_token {
            // A charge for each request or search would be a part of the cost alone.
            return None;
        }
        let parts = amounts(&quantities, &rates)?;
        let priced_as = format!("{}/{}", found.provider, found.model.id);
        Some(Self { parts, price_version: found.list.version().to_owned(), priced_as })
    }

    /// Returns the whole cost: the sum of the parts.
    pub fn total(&self) -> i64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Returns the cost of one part.
    pub fn part(&self, part: CostPart) -> i64 {
        CostPart::ALL.iter().zip(self.parts).find(|(other, _)| **other == part).map_or(0, |(_, amount)| amount)
    }
}

/// The least common multiple of the numbers of units that one price pays for.
const UNITS: u128 = 9_000_000_000;

/// The number of steps of an exact amount in a nano-dollar: an exact amount is counted in 10⁻¹⁵ dollars, divided by [`UNITS`].
const STEPS: u128 = UNITS * 1_000_000;

/// Returns the amount of each part in nano-dollars, or `None` if no price applies to anything that was counted. The amounts are
/// those of `rates`; an empty rate card is that of a model free of charge.
///
/// The whole amount is rounded once, half up, so that rounding errors do not add up. The parts are the steps between the rounded
/// sums of the parts up to each, and add up to the whole: each part is at most one nano-dollar from its exact amount.
fn amounts(quantities: &Quantities, rates: &RateCard) -> Option<[i64; CostPart::ALL.len()]> {
    let mut exact = [0_u128; CostPart::ALL.len()];
    let mut is_priced = rates.0.is_empty();
    for quantity in &quantities.all {
        let Some((key, rate)) = quantity.keys.iter().find_map(|key| Some((key, rates.0.get(key)?))) else { continue };
        is_priced = true;
        let price = u128::from(rate.at(quantities.input_tokens).femtodollars());
        let amount = price.saturating_mul(u128::from(quantity.count)).saturating_mul(UNITS / u128::from(key.per()));
        if let Some(index) = CostPart::ALL.iter().position(|part| *part == quantity.part) {
            exact[index] = exact[index].saturating_add(amount);
        }
    }
    let (mut sum, mut before) = (0_u128, 0_i64);
    let parts = exact.map(|amount| {
        sum = sum.saturating_add(amount);
        let rounded = sum.saturating_add(STEPS / 2) / STEPS;
        let rounded = i64::try_from(rounded).unwrap_or(i64::MAX).min(MAX_NANODOLLARS);
        let part = rounded - before;
        before = rounded;
        part
    });
    is_priced.then_some(parts)
}

/// The highest cost of a call, in nano-dollars: a million dollars. Sums of costs stay within 64 bits for nine thousand such calls,
/// which no provider has ever answered.
const MAX_NANODOLLARS: i64 = 1_000_000_000_000_000;

/// Returns the provider's own figure for the cost of a call in nano-dollars, where the provider's usage object has one.
pub fn provider_cost(raw_usage: &Value) -> Option<i64> {
    let dollars = |value: &Value| value.as_f64().map(|dollars| dollars * 1e9);
    let cost = raw_usage.get("cost");
    let nanodollars = cost
        .and_then(dollars)
        .or_else(|| cost.and_then(|cost| cost.get("total_cost")).and_then(dollars))
        // xAI counts in ten thousand millionths of a dollar.
        .or_else(|| raw_usage.get("cost_in_usd_ticks").and_then(Value::as_f64).map(|ticks| ticks / 10.0))?;
    #[expect(clippy::cast_precision_loss, reason = "the bound is exact in a double")]
    let is_plausible = (0.0..=MAX_NANODOLLARS as f64).contains(&nanodollars);
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    is_plausible.then_some(nanodollars.round() as i64)
}

#[cfg(test)]
mod tests;
