//! The prices of a model's tokens, for amounts that are reserved before a call: the probable cost, and a bound of the cost.

use time::OffsetDateTime;

use super::catalogue::RateCard;
use super::price_book::PriceBook;
use super::price_key::PriceKey;
use super::rate::Rate;

/// The number of units of 10⁻¹⁵ dollars in a nano-dollar, for the price of a million tokens.
const PER_NANODOLLAR: u128 = 1_000_000 * 1_000_000;

/// The same for the price of a thousand requests.
const PER_NANODOLLAR_OF_THOUSANDS: u128 = 1_000 * 1_000_000;

/// The prices of a model's tokens at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPrices {
    standard: RateCard,
    /// The prices of all service tiers.
    all: Vec<RateCard>,
    /// The maximum number of tokens of prompt and answer together, where the list names it.
    pub context_window: Option<u64>,
}

impl TokenPrices {
    /// Finds the prices of a model at an upstream; `None` if the lists have none.
    pub fn find(book: &PriceBook, at: OffsetDateTime, upstream: &str, model: &str) -> Option<Self> {
        let found = book.find(at, upstream, None, model)?;
        let all = found.model.all_rates(at);
        Some(Self { standard: all.first()?.clone(), all, context_window: found.model.context_window })
    }

    /// Returns the cost of a call with these tokens at standard prices, in nano-dollars, rounded up.
    pub fn likely(&self, input: u64, output: u64) -> u64 {
        let price = |key| self.standard.0.get(&key).map_or(0, |rate: &Rate| rate.at(input).femtodollars());
        total(input, price(PriceKey::Input), output, price(PriceKey::Output), price(PriceKey::Requests))
    }

    /// Returns a bound of the cost of a call with at most these tokens, in nano-dollars: no kind of token, tier or service tier costs
    /// more. `None` if the model has prices of other things than tokens, such as seconds of audio.
    pub fn greatest(&self, input: u64, output: u64) -> Option<u64> {
        let is_bounded = |key: &PriceKey| is_input(*key) || is_output(*key) || *key == PriceKey::Requests;
        if self.all.iter().any(|card| !card.0.is_empty() && !card.0.keys().any(is_bounded)) {
            return None;
        }
        let greatest = |of: fn(PriceKey) -> bool| {
            let rates = self.all.iter().flat_map(|card| &card.0).filter(|(key, _)| of(**key));
            rates.map(|(_, rate)| greatest_price(rate, input)).max().unwrap_or(0)
        };
        Some(total(input, greatest(is_input), output, greatest(is_output), greatest(|key| key == PriceKey::Requests)))
    }
}

/// Returns the highest price of a rate for calls with up to `input` tokens.
fn greatest_price(rate: &Rate, input: u64) -> u64 {
    let tiers = rate.tiers.iter().filter(|tier| tier.start < input).map(|tier| tier.price);
    tiers.chain([rate.base]).map(super::rate::Price::femtodollars).max().unwrap_or(0)
}

fn total(input: u64, of_input: u64, output: u64, of_output: u64, of_request: u64) -> u64 {
    let tokens = |count: u64, price: u64| u128::from(count) * u128::from(price);
    let exact = tokens(input, of_input).saturating_add(tokens(output, of_output));
    let nanodollars = exact.div_ceil(PER_NANODOLLAR) + u128::from(of_request).div_ceil(PER_NANODOLLAR_OF_THOUSANDS);
    u64::try_from(nanodollars).unwrap_or(u64::MAX)
}

fn is_input(key: PriceKey) -> bool {
    key == PriceKey::Input || key.required() == Some(PriceKey::Input)
}

fn is_output(key: PriceKey) -> bool {
    key == PriceKey::Output || key.required() == Some(PriceKey::Output)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::prices::{Cost, PricedCall, TokenCounts};

    const AT: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
    const MODELS: [(&str, &str); 4] = [
        ("openai", "gpt-5"),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.5-pro"),
        ("openai", "gpt-4o-audio-preview"),
    ];

    #[test]
    fn likely_costs_are_those_of_the_call() {
        let book = PriceBook::default();
        for (upstream, model) in MODELS {
            let prices = TokenPrices::find(&book, AT, upstream, model).unwrap();
            for (input, output) in [(0, 0), (1, 1), (1234, 567), (300_000, 20)] {
                let tokens = Some(TokenCounts { uncached_input: input, output, ..TokenCounts::default() });
                let call = PricedCall {
                    upstream,
                    answered_model: None,
                    requested_model: model,
                    started_at: AT,
                    tokens,
                    raw_usage: &Value::Null,
                    input_seconds: None,
                };
                let cost = Cost::of_call(&call, &book).unwrap().total().unsigned_abs();
                let likely = prices.likely(input, output);
                assert!(likely == cost || likely == cost + 1, "{model}: {likely}, {cost}");
            }
        }
        assert!(TokenPrices::find(&book, AT, "nobody", "no-model").is_none());
    }

    proptest! {
        /// Whatever kinds of tokens a call used, and in whatever service tier, its cost is within the bound.
        #[test]
        fn no_call_costs_more_than_the_bound(
            model in 0..MODELS.len(), counts in prop::array::uniform5(0..300_000_u64), audio in 0..400_000_u64,
            tier in 0..4_usize, for_an_hour in 0..300_000_u64,
        ) {
            let (upstream, model) = MODELS[model];
            let [uncached_input, cache_read, cache_write, output, reasoning] = counts;
            let raw = json!({
                "service_tier": (["default", "priority", "flex", "batch"][tier]),
                "prompt_tokens_details": {"audio_tokens": audio}, "completion_tokens_details": {"audio_tokens": audio},
                "cache_creation": {"ephemeral_1h_input_tokens": for_an_hour},
            });
            let call = PricedCall {
                upstream, answered_model: None, requested_model: model, started_at: AT,
                tokens: Some(TokenCounts { uncached_input, cache_read, cache_write, output, reasoning }),
                raw_usage: &raw, input_seconds: None,
            };
            let book = PriceBook::default();
            let cost = Cost::of_call(&call, &book).unwrap().total().unsigned_abs();
            let prices = TokenPrices::find(&book, AT, upstream, model).unwrap();
            let greatest = prices.greatest(uncached_input + cache_read + cache_write, output + reasoning).unwrap();
            prop_assert!(cost <= greatest, "{cost} of {model}, bound {greatest}");
        }
    }
}
