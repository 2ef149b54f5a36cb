//! Converts reported usage into disjoint parts. A reported zero counts as reported.

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::usage::{Usage, UsageParts, UsageSource};

use crate::json::lenient::{Count, List, Object, text_or_json};
use crate::json::repair::parse;
use crate::response::transcript::Transcript;

/// The note for a total that is not the sum of its parts, or parts that are larger than the count that they belong to.
pub(super) const DOES_NOT_ADD_UP: &str = "usage_does_not_add_up";

/// The note for input that includes the cached input, against the rules of the dialect.
const INPUT_INCLUDES_CACHE: &str = "usage_input_includes_cache";

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
    /// Cached input, as reported by Mistral.
    num_cached_tokens: Count,
    /// Anthropic's names, which some proxies send in addition to OpenAI's.
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    /// Reasoning, as reported by Perplexity and xAI.
    reasoning_tokens: Count,
    /// The names of proxies in JavaScript.
    #[serde(rename = "promptTokens")]
    prompt_tokens_in_camel_case: Count,
    #[serde(rename = "completionTokens")]
    completion_tokens_in_camel_case: Count,
    #[serde(rename = "totalTokens")]
    total_tokens_in_camel_case: Count,
    #[serde(rename = "inputTokens")]
    input_tokens_in_camel_case: Count,
    #[serde(rename = "outputTokens")]
    output_tokens_in_camel_case: Count,
    /// The counts of Cohere: those that are billed, and all. All take precedence.
    billed_units: Object<CohereCounts>,
    tokens: Object<CohereCounts>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct CohereCounts {
    input_tokens: Count,
    output_tokens: Count,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    /// Input written to a cache, as reported by LiteLLM.
    cache_creation_tokens: Count,
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
    /// The same count, split by how long the cache keeps the input.
    cache_creation: Object<CacheCreation>,
    output_tokens: Count,
    output_tokens_details: Object<OutputDetails>,
    /// The passes that made up the response.
    iterations: List<Object<AnthropicPass>>,
    /// Names that some imitators send in addition. Both counts include the cached input.
    prompt_tokens: Count,
    total_tokens: Count,
}

/// Input that was written to a cache, by how long the cache keeps the input.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

/// One pass of a response in the Anthropic dialect.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AnthropicPass {
    #[serde(rename = "type", deserialize_with = "text_or_json")]
    kind: Option<String>,
    #[serde(deserialize_with = "text_or_json")]
    model: Option<String>,
    input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    output_tokens: Count,
}

/// Reported usage in the Gemini dialect.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct GeminiUsage {
    /// The input, which includes cached input, and excludes what tools of the provider added.
    prompt_token_count: Count,
    tool_use_prompt_token_count: Count,
    cached_content_token_count: Count,
    /// The output, which excludes thoughts.
    candidates_token_count: Count,
    thoughts_token_count: Count,
    total_token_count: Count,
}

/// Converts usage of the Gemini dialect. The whole input is the prompt and the input that the provider's tools added; the
/// whole output is that of the candidates and the thoughts.
pub(super) fn from_gemini(transcript: &mut Transcript) -> Usage {
    let Some(raw) = transcript.usage.take() else { return Usage::default() };
    let Some(Object(Some(reported))) = parse::<Object<GeminiUsage>>(raw.get()) else { return unreadable(raw) };
    let inputs = [reported.prompt_token_count.0, reported.tool_use_prompt_token_count.0];
    let outputs = [reported.candidates_token_count.0, reported.thoughts_token_count.0];
    let prompt = inputs.into_iter().flatten().reduce(u64::saturating_add);
    let completion = outputs.into_iter().flatten().reduce(u64::saturating_add);
    if prompt.is_none() && completion.is_none() && reported.total_token_count.0.is_none() {
        return unreadable(raw);
    }
    let input = prompt.unwrap_or(0);
    let total = total_of(reported.total_token_count, input.saturating_add(completion.unwrap_or(0)), transcript);
    let cached = reported.cached_content_token_count.0.unwrap_or(0);
    let cache_read = cached.min(input);
    let parts = UsageParts {
        uncached_input: input - cache_read,
        cache_read,
        cache_write: 0,
        output: outputs[0].unwrap_or(0),
        reasoning: outputs[1].unwrap_or(0),
    };
    if cache_read != cached || total != sum_of(parts) {
        transcript.note(DOES_NOT_ADD_UP);
    }
    Usage {
        source: UsageSource::Reported,
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: Some(total),
        parts,
        raw: Some(raw),
    }
}

/// Converts usage of the OpenAI dialects, where cached input is part of the input, and reasoning is part of the output.
pub(super) fn from_openai(transcript: &mut Transcript) -> Usage {
    let Some(raw) = transcript.usage.take() else { return Usage::default() };
    let Some(Object(Some(reported))) = parse::<Object<OpenaiUsage>>(raw.get()) else { return unreadable(raw) };
    let [billed, all] = [reported.billed_units, reported.tokens].map(Object::unwrap_or_default);
    let prompt = first_positive([
        reported.prompt_tokens,
        reported.input_tokens,
        reported.prompt_tokens_in_camel_case,
        reported.input_tokens_in_camel_case,
        all.input_tokens,
        billed.input_tokens,
    ]);
    let completion = first_positive([
        reported.completion_tokens,
        reported.output_tokens,
        reported.completion_tokens_in_camel_case,
        reported.output_tokens_in_camel_case,
        all.output_tokens,
        billed.output_tokens,
    ]);
    let reported_total = Count(first_positive([reported.total_tokens, reported.total_tokens_in_camel_case]));
    if prompt.is_none() && completion.is_none() && reported_total.0.is_none() {
        return unreadable(raw);
    }
    let input_details = [reported.prompt_tokens_details, reported.input_tokens_details].map(Object::unwrap_or_default);
    let output_details =
        [reported.completion_tokens_details, reported.output_tokens_details].map(Object::unwrap_or_default);
    let reasoning = first_positive([
        output_details[0].reasoning_tokens,
        output_details[1].reasoning_tokens,
        reported.reasoning_tokens,
    ]);
    let cached = first_positive([
        input_details[0].cached_tokens,
        input_details[1].cached_tokens,
        input_details[0].cache_read_input_tokens,
        reported.prompt_cache_hit_tokens,
        reported.cached_tokens,
        reported.num_cached_tokens,
        reported.cache_read_input_tokens,
    ]);
    let written = first_positive([
        input_details[0].cache_write_tokens,
        input_details[1].cache_write_tokens,
        input_details[0].cache_creation_tokens,
        input_details[0].cache_creation_input_tokens,
        reported.cache_creation_input_tokens,
    ]);
    let [input, output, reasoning, cached, written] =
        [prompt, completion, reasoning, cached, written].map(|count| count.unwrap_or(0));
    let sum = input.saturating_add(output);
    let total = total_of(reported_total, sum, transcript);
    // Most providers count reasoning as part of the completion. The total shows if reasoning is counted in addition.
    let is_reasoning_additional = reasoning > output || (reasoning > 0 && total == sum.saturating_add(reasoning));
    let cache_read = cached.min(input);
    let cache_write = written.min(input - cache_read);
    let parts = UsageParts {
        uncached_input: input - cache_read - cache_write,
        cache_read,
        cache_write,
        output: if is_reasoning_additional { output } else { output - reasoning },
        reasoning,
    };
    if (cache_read, cache_write) != (cached, written) || (total != sum_of(parts)) {
        transcript.note(DOES_NOT_ADD_UP);
    }
    Usage {
        source: UsageSource::Reported,
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: Some(total),
        parts,
        raw: Some(raw),
    }
}

/// Converts usage of the Anthropic dialect, where `input_tokens` excludes input read from or written to the cache. The
/// whole input is the sum of three numbers. The passes in which the conversation was compacted are not part of these
/// numbers, and are added.
pub(super) fn from_anthropic(transcript: &mut Transcript) -> Usage {
    let Some(raw) = transcript.usage.take() else { return Usage::default() };
    let Some(Object(Some(mut reported))) = parse::<Object<AnthropicUsage>>(raw.get()) else { return unreadable(raw) };
    reported.cache_creation_input_tokens = reported.whole_cache_creation();
    let mut counts = [
        reported.input_tokens.0,
        reported.cache_read_input_tokens.0,
        reported.cache_creation_input_tokens.0,
        reported.output_tokens.0,
    ];
    if reported.includes_cache_in_input() {
        transcript.note(INPUT_INCLUDES_CACHE);
        let cached = counts[1].unwrap_or(0) + counts[2].unwrap_or(0);
        counts[0] = counts[0].map(|input| input - cached);
    }
    for pass in reported.compactions(transcript.model.as_deref()) {
        let added =
            [pass.input_tokens, pass.cache_read_input_tokens, pass.cache_creation_input_tokens, pass.output_tokens];
        for (count, added) in counts.iter_mut().zip(added) {
            *count = added.0.map(|added| added.saturating_add(count.unwrap_or(0))).or(*count);
        }
    }
    if counts.iter().all(Option::is_none) {
        return unreadable(raw);
    }
    let prompt = counts[..3].iter().flatten().copied().reduce(u64::saturating_add);
    let completion = counts[3];
    let [uncached_input, cache_read, cache_write, output] = counts.map(|count| count.unwrap_or(0));
    let thinking = reported.output_tokens_details.0.and_then(|details| details.thinking_tokens.0).unwrap_or(0);
    if thinking > output {
        transcript.note(DOES_NOT_ADD_UP);
    }
    let reasoning = thinking.min(output);
    Usage {
        source: UsageSource::Reported,
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: Some(prompt.unwrap_or(0).saturating_add(output)),
        parts: UsageParts { uncached_input, cache_read, cache_write, output: output - reasoning, reasoning },
        raw: Some(raw),
    }
}

impl AnthropicUsage {
    /// The input that was written to a cache: the whole count, else the sum of its parts, which some imitators send alone.
    fn whole_cache_creation(&self) -> Count {
        let parts = self.cache_creation.0.unwrap_or_default();
        let counts = [parts.ephemeral_5m_input_tokens.0, parts.ephemeral_1h_input_tokens.0];
        let sum = counts.into_iter().flatten().reduce(u64::saturating_add);
        Count(first_positive([self.cache_creation_input_tokens, Count(sum)]))
    }

    /// True if another member of the object proves that `input_tokens` includes the cached input, as some imitators of
    /// Anthropic count it.
    fn includes_cache_in_input(&self) -> bool {
        let [cache_read, cache_write] = [self.cache_read_input_tokens, self.cache_creation_input_tokens];
        let cached = cache_read.0.unwrap_or(0).saturating_add(cache_write.0.unwrap_or(0));
        let (Some(input), output) = (self.input_tokens.0, self.output_tokens.0.unwrap_or(0)) else { return false };
        let is_whole_prompt = self.prompt_tokens.0 == Some(input);
        let is_whole_total = self.total_tokens.0 == Some(input.saturating_add(output));
        cached > 0 && cached <= input && (is_whole_prompt || is_whole_total)
    }

    /// The passes that compacted the conversation with the model that answered. Such a pass names no model, the model of
    /// the response, or the model of another pass that wrote the message.
    fn compactions(&self, model: Option<&str>) -> impl Iterator<Item = &AnthropicPass> {
        let passes = || self.iterations.0.iter().filter_map(|pass| pass.0.as_ref());
        let is_of = |pass: &AnthropicPass, kind: &str| pass.kind.as_deref() == Some(kind);
        let has_answered = move |name: &str| {
            model.is_none_or(|model| model == name)
                || passes().any(|pass| is_of(pass, "message") && pass.model.as_deref() == Some(name))
        };
        passes().filter(move |pass| is_of(pass, "compaction") && pass.model.as_deref().is_none_or(&has_answered))
    }
}

/// The usage of a response whose content the provider has not counted yet: only the input is known.
pub(super) fn without_answer(usage: Usage) -> Usage {
    let parts = UsageParts { output: 0, reasoning: 0, ..usage.parts };
    Usage { source: UsageSource::Unknown, completion_tokens: None, total_tokens: None, parts, ..usage }
}

/// The usage for an object without any known count. The object is kept.
fn unreadable(raw: Box<RawValue>) -> Usage {
    Usage { raw: Some(raw), ..Usage::default() }
}

/// The reported total, or the sum where no total was reported. The total of a merged object is at least the sum, because
/// the total and its parts may come from different events.
fn total_of(reported: Count, sum: u64, transcript: &Transcript) -> u64 {
    match reported.0 {
        None | Some(0) => sum,
        Some(total) if transcript.is_usage_merged => total.max(sum),
        Some(total) => total,
    }
}

fn sum_of(parts: UsageParts) -> u64 {
    let UsageParts { uncached_input, cache_read, cache_write, output, reasoning } = parts;
    [uncached_input, cache_read, cache_write, output, reasoning].into_iter().fold(0, u64::saturating_add)
}

/// The first positive count, else the first reported one. Some providers send a count under several names and fill only
/// one.
fn first_positive<const N: usize>(counts: [Count; N]) -> Option<u64> {
    let reported = || counts.iter().filter_map(|count| count.0);
    reported().find(|count| *count > 0).or(reported().next())
}

#[cfg(test)]
mod tests;
