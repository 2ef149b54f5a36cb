//! Usage that several events of a response report in part. Counts within a response are cumulative: the recorded count is
//! the last positive one, whatever the later events leave out or report as 0.

use bytes::Bytes;
use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use shared::event::DialectName;
use shared::usage::{Usage, UsageSource};

/// The names of the counts in a dialect: input, output, cached input, input written to the cache, reasoning. A name with
/// a slash is a member of a nested object.
type Names = [&'static str; 5];

const OPENAI_CHAT: Names = [
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details/cached_tokens",
    "prompt_tokens_details/cache_write_tokens",
    "completion_tokens_details/reasoning_tokens",
];
const OPENAI_RESPONSES: Names = [
    "input_tokens",
    "output_tokens",
    "input_tokens_details/cached_tokens",
    "input_tokens_details/cache_write_tokens",
    "output_tokens_details/reasoning_tokens",
];
const ANTHROPIC_MESSAGES: Names = [
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens_details/thinking_tokens",
];

/// The names of Gemini's counts. Gemini reports nothing that is written to the cache.
const GOOGLE_GEMINI: Names =
    ["promptTokenCount", "candidatesTokenCount", "cachedContentTokenCount", "unreported", "thoughtsTokenCount"];

/// One report of a count: missing, `null`, a number, or a number as a text.
fn report(largest: u64) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(Value::Null)),
        2 => Just(Some(json!(0))),
        4 => (1..=largest).prop_map(|count| Some(json!(count))),
        1 => (0..=largest).prop_map(|count| Some(json!(count.to_string()))),
    ]
}

/// The reports of one event, for each of the five counts. Parts are smaller than the count that they belong to.
fn reports() -> impl Strategy<Value = [Option<Value>; 5]> {
    (report(90_000), report(9_000), report(9), report(9), report(9))
        .prop_map(|(input, output, read, written, reasoning)| [input, output, read, written, reasoning])
}

fn usage_object(names: Names, reports: &[Option<Value>; 5]) -> Value {
    let mut usage = Map::from_iter([("service_tier".to_owned(), json!("default"))]);
    for (name, report) in names.iter().zip(reports) {
        let Some(report) = report.clone() else { continue };
        match name.split_once('/') {
            Some((object, member)) => {
                let object = usage.entry(object).or_insert_with(|| json!({}));
                object[member] = report;
            }
            None => {
                usage.insert((*name).to_owned(), report);
            }
        }
    }
    Value::Object(usage)
}

/// The count that the record must have: the last positive one, else a reported zero.
fn expected(reports: &[[Option<Value>; 5]], place: usize) -> Option<u64> {
    let count = |report: &Value| report.as_u64().or_else(|| report.as_str()?.parse().ok());
    let counts = || reports.iter().filter_map(|report| report[place].as_ref().and_then(count));
    counts().rfind(|count| *count > 0).or(counts().next())
}

fn read(dialect: DialectName, events: impl Iterator<Item = Value>) -> Usage {
    let stream: String = events.map(|event| format!("data: {event}\n\n")).collect();
    let mut tap = Tap::new(Fold::new(dialect), ExpectedBody::Answer, UsageChunkPolicy::Forward);
    tap.feed(Bytes::from(stream));
    tap.finish();
    tap.take_transcript().1
}

fn check(dialect: DialectName, names: Names, reports: &[[Option<Value>; 5]]) -> Result<(), TestCaseError> {
    let usage = reports.iter().map(|report| usage_object(names, report)).enumerate();
    let last = reports.len() - 1;
    let usage = read(
        dialect,
        usage.map(|(place, usage)| match dialect {
            DialectName::OpenaiResponses if place == last => {
                json!({"type": "response.completed", "response": {"status": "completed", "usage": usage}})
            }
            DialectName::OpenaiResponses => {
                json!({"type": "response.in_progress", "response": {"status": "in_progress", "usage": usage}})
            }
            DialectName::GoogleGemini => json!({"candidates": [], "usageMetadata": usage}),
            DialectName::AnthropicMessages if place == 0 => {
                json!({"type": "message_start", "message": {"content": [], "usage": usage}})
            }
            DialectName::AnthropicMessages => json!({"type": "message_delta", "delta": {}, "usage": usage}),
            _ => json!({"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": usage}),
        }),
    );
    let counts: Vec<Option<u64>> = (0..5).map(|place| expected(reports, place)).collect();
    let [input, output, read, written, reasoning] = [0, 1, 2, 3, 4].map(|place| counts[place].unwrap_or(0));
    let is_anthropic = dialect == DialectName::AnthropicMessages;
    if dialect == DialectName::GoogleGemini {
        return check_gemini(&usage, &counts);
    }
    let is_known = counts[0].is_some() || counts[1].is_some() || (is_anthropic && (counts[2].or(counts[3])).is_some());
    prop_assert_eq!(usage.source == UsageSource::Reported, is_known, "{:?}", &usage);
    if is_known {
        let whole = if is_anthropic { input + read + written } else { input };
        prop_assert_eq!(usage.prompt_tokens.unwrap_or(0), whole, "{:?}", &usage);
        prop_assert_eq!(usage.completion_tokens, counts[1], "{:?}", &usage);
        if input > 20 && output > 10 {
            let parts = usage.parts;
            prop_assert_eq!((parts.cache_read, parts.cache_write, parts.reasoning), (read, written, reasoning));
            prop_assert_eq!(parts.output, output - reasoning);
        }
    }
    Ok(())
}

/// Checks usage of Gemini, whose reasoning is not part of the count of the candidates.
fn check_gemini(usage: &Usage, counts: &[Option<u64>]) -> Result<(), TestCaseError> {
    let [input, output, read, _, reasoning] = counts else { panic!("expected five counts") };
    let completion = [output, reasoning].into_iter().flatten().copied().reduce(|sum, count| sum + count);
    prop_assert_eq!(usage.source == UsageSource::Reported, input.is_some() || completion.is_some(), "{:?}", usage);
    if usage.source == UsageSource::Reported {
        prop_assert_eq!((usage.prompt_tokens, usage.completion_tokens), (*input, completion), "{:?}", usage);
        let read = read.unwrap_or(0).min(input.unwrap_or(0));
        let parts = [read, output.unwrap_or(0), reasoning.unwrap_or(0)];
        prop_assert_eq!([usage.parts.cache_read, usage.parts.output, usage.parts.reasoning], parts, "{:?}", usage);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_never_shrink_to_nothing(reports in prop::collection::vec(reports(), 1..6)) {
        check(DialectName::OpenaiChat, OPENAI_CHAT, &reports)?;
        check(DialectName::OpenaiResponses, OPENAI_RESPONSES, &reports)?;
        check(DialectName::AnthropicMessages, ANTHROPIC_MESSAGES, &reports)?;
        check(DialectName::GoogleGemini, GOOGLE_GEMINI, &reports)?;
    }
}
