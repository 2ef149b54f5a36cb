//! Converts reported usage into disjoint parts. A reported zero counts as reported.

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::usage::{Usage, UsageParts, UsageSource};

use crate::json::lenient::{Count, Object};
use crate::json::repair::parse;

/// Reported usage in the two OpenAI dialects. Without serde aliases: some providers report a number under two names,
/// and an alias would make the second name an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OpenaiUsage {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Object<InputDetails>,
    completion_tokens_details: Object<OutputDetails>,
    /// The names in the Responses dialect.
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Object<InputDetails>,
    output_tokens_details: Object<OutputDetails>,
    /// Cached input, as reported by DeepSeek.
    prompt_cache_hit_tokens: Count,
    /// Cached input, as reported by Moonshot and Together.
    cached_tokens: Count,
    /// Anthropic's names, which some proxies send in addition to OpenAI's.
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    /// Reasoning, as reported by Perplexity and xAI.
    reasoning_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Count,
    thinking_tokens: Count,
}

/// Reported usage in the Anthropic dialect.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AnthropicUsage {
    input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    output_tokens: Count,
    output_tokens_details: Object<OutputDetails>,
}

/// Converts usage of the OpenAI dialects, where cached input is part of the input, and reasoning is part of the output.
pub(super) fn from_openai(raw: Option<&RawValue>) -> Usage {
    let Some(raw) = raw else { return Usage::default() };
    let unreadable = Usage { raw: Some(raw.to_owned()), ..Usage::default() };
    let Some(Object(Some(reported))) = parse::<Object<OpenaiUsage>>(raw.get()) else { return unreadable };
    let prompt = reported.prompt_tokens.0.or(reported.input_tokens.0);
    let completion = reported.completion_tokens.0.or(reported.output_tokens.0);
    if prompt.is_none() && completion.is_none() && reported.total_tokens.0.is_none() {
        return unreadable;
    }
    let input_details = reported.prompt_tokens_details.0.or(reported.input_tokens_details.0).unwrap_or_default();
    let output_details = reported.completion_tokens_details.0.or(reported.output_tokens_details.0).unwrap_or_default();
    let reasoning = output_details.reasoning_tokens.0.or(reported.reasoning_tokens.0).unwrap_or(0);
    let cached = first_reported([
        input_details.cached_tokens,
        input_details.cache_read_input_tokens,
        reported.prompt_cache_hit_tokens,
        reported.cached_tokens,
        reported.cache_read_input_tokens,
    ]);
    let written = first_reported([
        input_details.cache_write_tokens,
        input_details.cache_creation_input_tokens,
        reported.cache_creation_input_tokens,
    ]);
    let (input, output) = (prompt.unwrap_or(0), completion.unwrap_or(0));
    let total = reported.total_tokens.0.unwrap_or_else(|| input.saturating_add(output));
    // Most providers count reasoning as part of the completion. The total shows if reasoning is counted in addition.
    let is_reasoning_additional =
        reasoning > output || (reasoning > 0 && total == input.saturating_add(output).saturating_add(reasoning));
    let cache_read = cached.min(input);
    let cache_write = written.min(input - cache_read);
    Usage {
        source: UsageSource::Reported,
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: Some(total),
        parts: UsageParts {
            uncached_input: input - cache_read - cache_write,
            cache_read,
            cache_write,
            output: if is_reasoning_additional { output } else { output - reasoning },
            reasoning,
        },
        raw: Some(raw.to_owned()),
    }
}

/// Converts usage of the Anthropic dialect, where `input_tokens` excludes input read from or written to the cache. The
/// whole input is the sum of three numbers.
pub(super) fn from_anthropic(raw: Option<&RawValue>) -> Usage {
    let Some(raw) = raw else { return Usage::default() };
    let unreadable = Usage { raw: Some(raw.to_owned()), ..Usage::default() };
    let Some(Object(Some(reported))) = parse::<Object<AnthropicUsage>>(raw.get()) else { return unreadable };
    let (uncached, completion) = (reported.input_tokens.0, reported.output_tokens.0);
    let caches = [reported.cache_read_input_tokens.0, reported.cache_creation_input_tokens.0];
    let inputs = [uncached, caches[0], caches[1]];
    if inputs.iter().all(Option::is_none) && completion.is_none() {
        return unreadable;
    }
    let [uncached_input, cache_read, cache_write] = inputs.map(|count| count.unwrap_or(0));
    let prompt = inputs.iter().flatten().copied().reduce(u64::saturating_add);
    let output = completion.unwrap_or(0);
    let reasoning = reported.output_tokens_details.0.and_then(|details| details.thinking_tokens.0);
    let reasoning = reasoning.unwrap_or(0).min(output);
    Usage {
        source: UsageSource::Reported,
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: Some(prompt.unwrap_or(0).saturating_add(output)),
        parts: UsageParts { uncached_input, cache_read, cache_write, output: output - reasoning, reasoning },
        raw: Some(raw.to_owned()),
    }
}

/// The first reported count, else 0.
fn first_reported<const N: usize>(counts: [Count; N]) -> u64 {
    counts.into_iter().find_map(|count| count.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    /// Checks the totals (prompt, completion, total), and the parts: uncached, read, written, output, reasoning.
    fn check(read: fn(Option<&RawValue>) -> Usage, json: &str, whole: [Option<u64>; 3], parts: [u64; 5]) {
        let usage = read(Some(&raw(json)));
        assert_eq!([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], whole, "{json}");
        let UsageParts { uncached_input, cache_read, cache_write, output, reasoning } = usage.parts;
        assert_eq!([uncached_input, cache_read, cache_write, output, reasoning], parts, "{json}");
        assert_eq!(usage.raw.unwrap().get(), json, "the raw usage object must stay as sent");
    }

    #[test]
    fn parts_are_disjoint() {
        let some = |a, b, c| [Some(a), Some(b), Some(c)];
        check(
            from_openai,
            r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2},"completion_tokens_details":{"reasoning_tokens":5}}"#,
            some(10, 7, 17),
            [4, 4, 2, 2, 5],
        );
        // Reasoning in addition to the completion, as the total shows.
        check(
            from_openai,
            r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":22,"completion_tokens_details":{"reasoning_tokens":5}}"#,
            some(10, 7, 22),
            [10, 0, 0, 7, 5],
        );
        check(
            from_openai,
            r#"{"input_tokens":3,"output_tokens":2,"total_tokens":5,"input_tokens_details":{"cached_tokens":1},"output_tokens_details":{"reasoning_tokens":2}}"#,
            some(3, 2, 5),
            [2, 1, 0, 0, 2],
        );
        check(
            from_openai,
            r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":8}"#,
            some(9, 1, 10),
            [1, 8, 0, 1, 0],
        );
        check(
            from_anthropic,
            r#"{"input_tokens":3,"cache_read_input_tokens":20,"cache_creation_input_tokens":100,"output_tokens":9,"output_tokens_details":{"thinking_tokens":4}}"#,
            some(123, 9, 132),
            [3, 20, 100, 5, 4],
        );
        check(from_anthropic, r#"{"output_tokens":9}"#, [None, Some(9), Some(9)], [0, 0, 0, 9, 0]);
    }

    #[test]
    fn a_reported_zero_is_reported_and_nonsense_is_unknown() {
        let zero = from_openai(Some(&raw(r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#)));
        assert_eq!((zero.source, zero.prompt_tokens), (UsageSource::Reported, Some(0)));
        let zero = from_anthropic(Some(&raw(r#"{"input_tokens":0,"output_tokens":0}"#)));
        assert_eq!((zero.source, zero.completion_tokens), (UsageSource::Reported, Some(0)));
        for odd in ["{}", "[1]", "\"many\"", r#"{"prompt_tokens":"7"}"#, r#"{"input_tokens":-1}"#] {
            for read in [from_openai, from_anthropic] {
                let usage = read(Some(&raw(odd)));
                assert_eq!(usage.source, UsageSource::Unknown, "{odd}");
                assert!(usage.raw.is_some(), "{odd}");
            }
        }
        assert!(from_openai(None).raw.is_none());
    }

    #[test]
    fn very_large_numbers_do_not_overflow() {
        let most = u64::MAX;
        let json = format!(
            r#"{{"prompt_tokens":{most},"completion_tokens":{most},"completion_tokens_details":{{"reasoning_tokens":{most}}}}}"#
        );
        assert_eq!(from_openai(Some(&raw(&json))).total_tokens, Some(most));
        let json = format!(r#"{{"input_tokens":{most},"cache_read_input_tokens":{most},"output_tokens":{most}}}"#);
        assert_eq!(from_anthropic(Some(&raw(&json))).total_tokens, Some(most));
    }
}
