//! The cost of a chat in its row: a function of the event of the chat's end and of the price lists.
//!
//! A row keeps the version of the price list with which it was priced. An event that is delivered again changes no cost, even if the
//! program has newer prices by then.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use shared::event::{FailureStage, Media, UpstreamAnswer};
use shared::usage::{Usage, UsageSource};
use time::OffsetDateTime;

use super::pg_value::{PgJson, pg_text, to_pg_json};
use shared::prices::{Cost, CostPart, PriceBook, PricedCall, TokenCounts, provider_cost};

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

/// The facts of an ended call that determine the cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChargedCall<'a> {
    /// The stage at which the call failed; none if the call completed.
    pub(super) failed_at_stage: Option<FailureStage>,
    /// True when an answer was recorded, whole or partial.
    pub(super) has_message: bool,
    /// The upstream that answered.
    pub(super) upstream: Option<&'a UpstreamAnswer>,
    /// The model that the client asked for.
    pub(super) model: &'a str,
    /// The time of admission.
    pub(super) started_at: OffsetDateTime,
    /// The tokens, and the provider's own usage object.
    pub(super) usage: &'a Usage,
    /// Sizes, counts and durations of a call that is no chat.
    pub(super) media: Option<&'a Media>,
}

/// Prices a call. Returns the result, and the provider's own figure for the cost in nano-dollars.
pub(super) fn price(call: &ChargedCall<'_>) -> (Option<Pricing>, Option<i64>) {
    let raw = call.usage.raw.as_ref().and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
    let raw = raw.unwrap_or(Value::Null);
    let book = PriceBook::default();
    let cost = match call.charge() {
        Charge::Nothing => return (None, provider_cost(&raw)),
        Charge::Unknown => None,
        Charge::ByUsage => call.cost(&raw, &book),
    };
    let price_version =
        cost.as_ref().map_or_else(|| book.base_version(call.started_at).to_owned(), |cost| cost.price_version.clone());
    (Some(Pricing { price_version, cost: cost.as_ref().map(CostOfChat::new) }), provider_cost(&raw))
}

/// The charge that a provider makes for a call.
enum Charge {
    /// No charge: no provider answered.
    Nothing,
    /// A charge, or none: the gateway was lost, and nobody knows what the provider did.
    Unknown,
    /// The price of what was used.
    ByUsage,
}

// === impl ChargedCall ===

impl ChargedCall<'_> {
    fn charge(&self) -> Charge {
        let is_used = self.usage.source != UsageSource::Unknown || self.has_message;
        match self.failed_at_stage {
            None => Charge::ByUsage,
            Some(_) if is_used => Charge::ByUsage,
            Some(FailureStage::GatewayLost) => Charge::Unknown,
            Some(_) => Charge::Nothing,
        }
    }

    fn cost(&self, raw: &Value, book: &PriceBook) -> Option<Cost> {
        let parts = self.usage.parts;
        let is_counted = matches!(self.usage.source, UsageSource::Reported | UsageSource::Estimated);
        let call = PricedCall {
            upstream: self.upstream.map_or("", |upstream| &upstream.name),
            answered_model: self.upstream.and_then(|upstream| upstream.model.as_deref()),
            requested_model: self.model,
            started_at: self.started_at,
            tokens: is_counted.then_some(TokenCounts {
                uncached_input: parts.uncached_input,
                cache_read: parts.cache_read,
                cache_write: parts.cache_write,
                output: parts.output,
                reasoning: parts.reasoning,
            }),
            raw_usage: raw,
            input_seconds: self.media.and_then(|media| media.input_seconds),
        };
        Cost::of_call(&call, book)
    }
}

// === impl Pricing ===

impl Pricing {
    /// Joins the results for two equal endings, whose events may still name different models or times. Of results with the same
    /// price list, the lower cost wins; otherwise the first result stays, so that new prices change no recorded cost.
    pub(super) fn join(mine: &mut Option<Self>, theirs: Option<Self>) {
        if let (Some(mine), Some(theirs)) = (mine, theirs)
            && mine.price_version == theirs.price_version
            && theirs.order(mine) == Ordering::Less
        {
            *mine = theirs;
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |pricing: &Self| {
            let cost = pricing.cost.as_ref()?;
            let parts: BTreeMap<String, i64> = serde_json::from_str(cost.parts.as_str()).unwrap_or_default();
            Some((cost.nanodollars, cost.priced_as.clone(), parts))
        };
        key(self).cmp(&key(other))
    }
}

// === impl CostOfChat ===

impl CostOfChat {
    fn new(cost: &Cost) -> Self {
        let parts = CostPart::ALL.iter().zip(cost.parts).filter(|(_, amount)| *amount != 0);
        let parts: Map<String, Value> = parts.map(|(part, amount)| (part.name().to_owned(), amount.into())).collect();
        Self { nanodollars: cost.total(), parts: to_pg_json(&parts), priced_as: pg_text(&cost.priced_as) }
    }
}
