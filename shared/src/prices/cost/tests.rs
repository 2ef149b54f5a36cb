use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::prices::catalogue::Catalogue;

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

fn counts(parts: [u64; 5]) -> TokenCounts {
    let [uncached_input, cache_read, cache_write, output, reasoning] = parts;
    TokenCounts { uncached_input, cache_read, cache_write, output, reasoning }
}

fn cost(upstream: &str, model: &str, parts: [u64; 5], raw: &Value) -> Option<Cost> {
    Cost::of_call(&call(upstream, model, parts, raw), &PriceBook::default())
}

fn call<'a>(upstream: &'a str, model: &'a str, parts: [u64; 5], raw: &'a Value) -> PricedCall<'a> {
    PricedCall {
        upstream,
        answered_model: Some(model),
        requested_model: model,
        started_at: NOW,
        tokens: Some(counts(parts)),
        raw_usage: raw,
        input_seconds: None,
    }
}

fn list(prices: &Value) -> PriceBook {
    let list = json!([{"id": "acme", "models": [{"id": "m", "match": {"equals": "m"}, "prices": prices}]}]);
    let mut book = PriceBook::default();
    let list = Catalogue::parse(list.to_string().as_bytes()).unwrap();
    book.put_in_force("base", datetime!(2000-01-01 0:00 UTC), None, list.into());
    book
}

#[test]
fn each_part_has_its_own_price() {
    let raw = json!({"cache_creation": {"ephemeral_1h_input_tokens": 40}});
    let cost = cost("anthropic", "claude-3-opus-20240229", [1000, 200, 100, 10, 5], &raw).unwrap();
    assert_eq!(cost.priced_as, "anthropic/claude-3-opus-latest");
    assert_eq!(cost.part(CostPart::Input), 1000 * 15_000);
    assert_eq!(cost.part(CostPart::CacheRead), 200 * 1_500);
    assert_eq!(cost.part(CostPart::CacheWrite5m), 60 * 18_750);
    assert_eq!(cost.part(CostPart::CacheWrite1h), 40 * 30_000);
    assert_eq!(cost.part(CostPart::Output), 10 * 75_000);
    assert_eq!(cost.part(CostPart::Reasoning), 5 * 75_000);
    assert_eq!(cost.price_version.len(), 16);
}

#[test]
fn prices_follow_the_date_and_the_service_tier() {
    let at = |started_at, raw: Value| {
        let call = PricedCall { started_at, ..call("openai", "o3", [1_000_000, 0, 0, 0, 0], &raw) };
        Cost::of_call(&call, &PriceBook::default()).unwrap().total()
    };
    assert_eq!(at(datetime!(2025-06-09 23:59 UTC), json!({})), 10_000_000_000);
    assert_eq!(at(datetime!(2025-06-10 0:00 UTC), json!({})), 2_000_000_000);
    assert_eq!(at(NOW, json!({"service_tier": "flex"})), 1_000_000_000);
    assert_eq!(at(NOW, json!({"service_tier": "batch"})), 1_000_000_000);
    assert_eq!(at(NOW, json!({"service_tier": "default"})), 2_000_000_000);
    assert_eq!(at(datetime!(2026-01-01 0:00 UTC), json!({"service_tier": "flex"})), 2_000_000_000);
}

#[test]
fn an_unknown_model_has_no_cost_and_a_free_one_costs_nothing() {
    assert_eq!(cost("openai", "no-such-model", [1, 1, 1, 1, 1], &Value::Null), None);
    assert_eq!(cost("my-server", "my-model", [1, 1, 1, 1, 1], &Value::Null), None);
    let free = Cost::of_call(&call("acme", "m", [9, 9, 9, 9, 9], &Value::Null), &list(&json!({}))).unwrap();
    assert_eq!(free.total(), 0);
}

#[test]
fn a_model_with_prices_for_nothing_that_was_counted_has_no_cost() {
    let book = list(&json!({"audio_hours": 0.36}));
    let raw = Value::Null;
    let transcription = PricedCall { tokens: None, ..call("acme", "m", [0; 5], &raw) };
    assert_eq!(Cost::of_call(&transcription, &book), None);
    let measured = PricedCall { input_seconds: Some(12.5), ..transcription };
    assert_eq!(Cost::of_call(&measured, &book).unwrap().part(CostPart::Audio), 1_250_000);
}

#[test]
fn spoken_tokens_have_the_price_of_speech() {
    let book = list(&json!({"input_mtok": 1, "output_mtok": 2, "input_audio_mtok": 10, "output_audio_mtok": 20}));
    let raw = json!({"prompt_tokens_details": {"audio_tokens": 30}, "completion_tokens_details": {"audio_tokens": 7}});
    let cost = Cost::of_call(&call("acme", "m", [100, 0, 0, 10, 0], &raw), &book).unwrap();
    assert_eq!(cost.part(CostPart::Audio), 30 * 10_000 + 7 * 20_000);
    assert_eq!(cost.part(CostPart::Input), 70 * 1_000);
    assert_eq!(cost.part(CostPart::Output), 3 * 2_000);
}

#[test]
fn reasoning_that_the_total_leaves_out_is_not_charged() {
    let book = list(&json!({"input_mtok": 1, "output_mtok": 2}));
    let raw = json!({"prompt_tokens": 100, "completion_tokens": 16, "total_tokens": 116, "completion_tokens_details": {"reasoning_tokens": 19}});
    let cost = |raw: &Value| Cost::of_call(&call("acme", "m", [100, 0, 0, 16, 19], raw), &book).unwrap().total();
    assert_eq!(cost(&raw), 100 * 1_000 + 16 * 2_000);
    let in_addition = json!({"prompt_tokens": 100, "completion_tokens": 16, "total_tokens": 135});
    assert_eq!(cost(&in_addition), 100 * 1_000 + 35 * 2_000);
}

#[test]
fn an_overlay_prevails_while_it_is_in_force() {
    let overlay = json!([{"id": "openai", "models": [
        {"id": "negotiated", "match": {"equals": "o3"}, "prices": {"input_mtok": 1, "output_mtok": 1}}
    ]}]);
    let overlay = std::sync::Arc::new(Catalogue::parse(overlay.to_string().as_bytes()).unwrap());
    let mut book = PriceBook::default();
    book.put_in_force("deal", datetime!(2026-11-01 0:00 UTC), Some(datetime!(2026-12-01 0:00 UTC)), overlay);
    let at = |upstream, model, started_at| {
        let call = PricedCall { started_at, ..call(upstream, model, [1000, 0, 0, 0, 0], &Value::Null) };
        Cost::of_call(&call, &book).unwrap().total()
    };
    assert_eq!(at("openai", "o3", datetime!(2026-10-31 23:59 UTC)), 2_000_000);
    assert_eq!(at("openai", "o3", datetime!(2026-11-01 0:00 UTC)), 1_000_000);
    assert_eq!(at("openai-europe", "o3", NOW), 1_000_000);
    assert_eq!(at("openai", "gpt-4o", NOW), 2_500_000);
    assert_eq!(at("openai", "o3", datetime!(2026-12-01 0:00 UTC)), 2_000_000);
}

#[test]
fn the_providers_own_figure_is_read() {
    assert_eq!(provider_cost(&json!({"cost": 0.00123})), Some(1_230_000));
    assert_eq!(provider_cost(&json!({"cost": {"total_cost": 0.5}})), Some(500_000_000));
    assert_eq!(provider_cost(&json!({"cost_in_usd_ticks": 25})), Some(3));
    for none in [json!({}), Value::Null, json!({"cost": "much"}), json!({"cost": -1}), json!({"cost": 1e300})] {
        assert_eq!(provider_cost(&none), None, "{none}");
    }
}

#[test]
fn a_wrong_list_is_refused_with_what_is_wrong() {
    let model =
        |prices: Value| json!([{"id": "acme", "models": [{"id": "m", "match": {"equals": "m"}, "prices": prices}]}]);
    for (list, expected) in [
        (json!({}), "format of genai-prices"),
        (model(json!({"input_mtok": -1})), "input_mtok: -1 is no price"),
        (model(json!({"input_mtok": "1"})), "input_mtok: expected a number of dollars"),
        (model(json!({"inputs": 1})), "unknown price \"inputs\""),
        (model(json!({"cache_read_mtok": 1})), "cache_read_mtok without input_mtok"),
        (model(json!([{"prices": {}}, {"prices": {}}])), "exactly one price without a date"),
        (model(json!([{"prices": {}, "constraint": {"start_date": "soon"}}])), "\"soon\" is no date"),
        (json!([{"id": "a", "models": []}, {"id": "A", "models": []}]), "named twice"),
        (json!([{"id": "a", "models": [], "model_match": {"regex": "("}}]), "regular expression"),
    ] {
        let error = Catalogue::parse(list.to_string().as_bytes()).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error}: {cause}").contains(expected), "{list}: {error}: {cause}");
    }
}

fn raw_usage() -> impl Strategy<Value = Value> {
    let number = || prop_oneof![Just(None), (0..2000_u64).prop_map(Some)];
    (number(), number(), number(), number(), number()).prop_map(|(hour, audio, cached, spoken, searches)| {
        json!({
            "cache_creation": {"ephemeral_1h_input_tokens": hour},
            "prompt_tokens_details": {"audio_tokens": audio, "cached_tokens_details": {"audio_tokens": cached}},
            "completion_tokens_details": {"audio_tokens": spoken},
            "server_tool_use": {"web_search_requests": searches},
        })
    })
}

fn rate() -> impl Strategy<Value = Value> {
    let price = || (0..2_000_000_u32).prop_map(|price| f64::from(price) / 1e5);
    prop_oneof![
        price().prop_map(|price| json!(price)),
        (price(), price(), 1..500_u64).prop_map(|(base, more, start)| {
            json!({"base": base.min(more), "tiers": [{"start": start, "price": base.max(more)}]})
        }),
    ]
}

/// Prices with some of the optional keys, each at least that of the less specific key or below, at random.
fn prices() -> impl Strategy<Value = Value> {
    let keys = [
        "cache_read_mtok",
        "cache_write_mtok",
        "cache_write_1h_mtok",
        "input_audio_mtok",
        "output_audio_mtok",
        "output_reasoning_mtok",
        "web_searches_kcount",
        "requests_kcount",
    ];
    (rate(), rate(), prop::collection::vec((prop::sample::select(keys.to_vec()), rate()), 0..6)).prop_map(
        |(input, output, more)| {
            let mut prices = json!({"input_mtok": input, "output_mtok": output});
            for (key, rate) in more {
                prices[key] = rate;
            }
            prices
        },
    )
}

proptest! {
    /// The parts are not negative, and their sum is the exact whole, rounded once.
    #[test]
    fn the_parts_add_up_to_the_whole(parts in prop::array::uniform5(0..100_000_u64), raw in raw_usage(), prices in prices()) {
        let book = list(&prices);
        let call = call("acme", "m", parts, &raw);
        let cost = Cost::of_call(&call, &book).unwrap();
        prop_assert!(cost.parts.iter().all(|part| *part >= 0));
        prop_assert_eq!(cost.total(), cost.parts.iter().sum::<i64>());
        let found = book.find(NOW, "acme", None, "m").unwrap();
        let rates = found.model.rates(NOW, &[]);
        let quantities = Quantities::of_call(call.tokens, &raw, None);
        let mut shuffled = quantities.clone();
        shuffled.all.reverse();
        prop_assert_eq!(amounts(&shuffled, &rates), Some(cost.parts), "the order of the quantities matters");
        for quantity in &quantities.all {
            let alone = Quantities { all: vec![quantity.clone()], ..quantities };
            let alone = amounts(&alone, &rates).map_or(0, |parts| parts.iter().sum::<i64>());
            prop_assert!(cost.total() >= alone - 1);
        }
    }

    /// More tokens of any part never cost less, where no tier is cheaper than the one below.
    #[test]
    fn more_tokens_never_cost_less(
        parts in prop::array::uniform5(0..100_000_u64), raw in raw_usage(), input in rate(), output in rate(),
        part in 0..5_usize, more in 1..5000_u64,
    ) {
        let book = list(&json!({"input_mtok": input, "output_mtok": output}));
        let mut larger = parts;
        larger[part] += more;
        let whole = |parts| Cost::of_call(&call("acme", "m", parts, &raw), &book).unwrap().total();
        prop_assert!(whole(larger) >= whole(parts));
    }

    /// Nothing that a provider reports makes the cost fail or overflow.
    #[test]
    fn any_counts_have_a_cost(parts in prop::array::uniform5(any::<u64>()), raw in raw_usage(), prices in prices()) {
        let cost = Cost::of_call(&call("acme", "m", parts, &raw), &list(&prices)).unwrap();
        prop_assert!((0..=MAX_NANODOLLARS).contains(&cost.total()));
    }
}
