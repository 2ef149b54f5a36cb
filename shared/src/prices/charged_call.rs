//! The facts of an ended call that determine its cost, as both services read them from the event of the call's end.

use serde_json::Value;
use time::OffsetDateTime;

use super::cost::{Cost, PricedCall};
use super::price_book::PriceBook;
use super::quantities::TokenCounts;
use crate::event::{Event, FailureStage, Media, UpstreamAnswer};
use crate::usage::{Usage, UsageSource};

/// The facts of an ended call that determine the cost.
#[derive(Clone, Copy, Debug)]
pub struct ChargedCall<'a> {
    /// The stage at which the call failed; none if the call completed.
    pub failed_at_stage: Option<FailureStage>,
    /// True when an answer was recorded, whole or partial.
    pub has_message: bool,
    /// The upstream that answered.
    pub upstream: Option<&'a UpstreamAnswer>,
    /// The model that the client asked for.
    pub model: &'a str,
    /// The time of admission.
    pub started_at: OffsetDateTime,
    /// The tokens, and the provider's own usage object.
    pub usage: &'a Usage,
    /// Sizes, counts and durations of a call that is no chat.
    pub media: Option<&'a Media>,
}

/// The charge that a provider makes for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// No charge: no provider answered.
    Nothing,
    /// A charge, or none: the gateway was lost, and nobody knows what the provider did.
    Unknown,
    /// The price of what was used.
    ByUsage,
}

impl Charge {
    /// Returns the kind of charge for a call that failed at this stage, or completed.
    pub fn of(failed_at_stage: Option<FailureStage>, usage: UsageSource, has_message: bool) -> Self {
        let is_used = usage != UsageSource::Unknown || has_message;
        match failed_at_stage {
            None => Self::ByUsage,
            Some(_) if is_used => Self::ByUsage,
            Some(FailureStage::GatewayLost) => Self::Unknown,
            Some(_) => Self::Nothing,
        }
    }
}

/// Makes whole numbers of numbers such as `1e2`. A column of JSON gives such a number back as `100`, and a call has to have the same
/// cost in its event and in its row.
pub fn with_whole_numbers(mut value: Value) -> Value {
    write_out_whole_numbers(&mut value);
    value
}

fn write_out_whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let is_whole = |float: &f64| float.fract() == 0.0 && (0.0..9e15).contains(float);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
            if let Some(float) = number.as_f64().filter(is_whole) {
                *value = Value::from(float as u64);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(write_out_whole_numbers),
        Value::Object(members) => members.values_mut().for_each(write_out_whole_numbers),
        _ => {}
    }
}

impl<'a> ChargedCall<'a> {
    /// Returns the facts in the event of a call's end; `None` for other events.
    pub fn of_event(event: &'a Event) -> Option<Self> {
        match event {
            Event::MessageCompleted(event) => Some(Self {
                failed_at_stage: None,
                has_message: event.message.is_some(),
                upstream: Some(&event.upstream),
                model: &event.model,
                started_at: event.started_at,
                usage: &event.usage,
                media: event.media.as_ref(),
            }),
            Event::ChatFailed(event) => Some(Self {
                failed_at_stage: Some(event.stage),
                has_message: event.message.is_some(),
                upstream: event.upstream.as_ref(),
                model: &event.model,
                started_at: event.started_at,
                usage: &event.usage,
                media: event.media.as_ref(),
            }),
            _ => None,
        }
    }

    /// Returns the kind of charge.
    pub fn charge(&self) -> Charge {
        Charge::of(self.failed_at_stage, self.usage.source, self.has_message)
    }

    /// Returns the provider's own usage object, or null.
    pub fn raw_usage(&self) -> Value {
        let raw = self.usage.raw.as_ref().and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        with_whole_numbers(raw.unwrap_or(Value::Null))
    }

    /// Returns the price of what was used; `None` if the prices are not known. `raw` is the result of [`Self::raw_usage`].
    pub fn cost(&self, raw: &Value, book: &PriceBook) -> Option<Cost> {
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

    /// Returns the cost that the record has of the call, in nano-dollars: 0 for a call without a charge, `None` for a call without
    /// a known price, which is in no sum of costs.
    pub fn recorded_cost(&self, book: &PriceBook) -> Option<u64> {
        match self.charge() {
            Charge::Nothing => Some(0),
            Charge::Unknown => None,
            Charge::ByUsage => self.cost(&self.raw_usage(), book).map(|cost| cost.total().unsigned_abs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        let value: Value = serde_json::from_str(r#"{"a": [1e2, 100.0, 1.5, -3.0, 7], "b": 1e300}"#).unwrap();
        let whole: Value = serde_json::from_str(r#"{"a": [100, 100, 1.5, -3.0, 7], "b": 1e300}"#).unwrap();
        assert_eq!(with_whole_numbers(value), whole);
    }
}
