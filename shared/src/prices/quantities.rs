//! The quantities of a call for which a provider may charge, each counted once.

use serde_json::Value;

use super::price_key::PriceKey;

/// The token counts of a call in disjoint parts, as in the columns of `chats`. Their sum is the whole usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of UsageParts")]
pub struct TokenCounts {
    pub uncached_input: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// A part of the cost of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CostPart {
    /// Input that was neither read from nor written to a cache, images included, audio excluded.
    Input,
    /// Input read from the provider's cache.
    CacheRead,
    /// Input written to the provider's cache for five minutes, or for a time that the provider does not name.
    CacheWrite5m,
    /// Input written to the provider's cache for an hour.
    CacheWrite1h,
    /// Output without reasoning, images included, audio excluded.
    Output,
    /// Reasoning.
    Reasoning,
    /// Spoken input and output.
    Audio,
    /// Searches of the provider's own tools, pages, and charges for each request.
    Other,
}

impl CostPart {
    /// All parts, in the order in which amounts are rounded.
    pub const ALL: [Self; 8] = [
        Self::Input,
        Self::CacheRead,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::Output,
        Self::Reasoning,
        Self::Audio,
        Self::Other,
    ];

    /// Returns the name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::Audio => "audio",
            Self::Other => "other",
        }
    }
}

/// A counted quantity: the part of the cost to which it belongs, and the prices that may apply, the most specific first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    pub(super) part: CostPart,
    pub(super) count: u64,
    pub(super) keys: &'static [PriceKey],
}

/// The quantities of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quantities {
    pub(super) all: Vec<Quantity>,
    /// The number of input tokens, which determines the tier of a price.
    pub(super) input_tokens: u64,
}

impl Quantities {
    /// Counts what is known of a call. `raw` is the provider's own usage object, which splits some counts further.
    pub(super) fn of_call(tokens: Option<TokenCounts>, raw: &Value, input_seconds: Option<f64>) -> Self {
        let mut all = Vec::new();
        let mut add = |part, count, keys| all.push(Quantity { part, count, keys });
        let input_tokens = tokens.map_or(0, |counts| {
            counts.uncached_input.saturating_add(counts.cache_read).saturating_add(counts.cache_write)
        });
        if let Some(counts) = tokens {
            for (part, count, keys) in input(counts, raw).into_iter().chain(output(counts, raw)) {
                add(part, count, keys);
            }
        }
        add(CostPart::Other, 1, &[PriceKey::Requests]);
        let pages = count(raw, &["pages_processed"]);
        for (count, keys) in [(searches(raw), &[PriceKey::WebSearches]), (pages, &[PriceKey::InputDocumentPages])] {
            if let Some(count) = count {
                add(CostPart::Other, count, keys);
            }
        }
        if let Some(count) = milliseconds(input_seconds.or_else(|| raw.get("seconds").and_then(Value::as_f64))) {
            add(CostPart::Audio, count, &[PriceKey::InputAudioHours, PriceKey::AudioHours]);
        }
        Self { all, input_tokens }
    }
}

type Counted = (CostPart, u64, &'static [PriceKey]);

fn input(counts: TokenCounts, raw: &Value) -> [Counted; 10] {
    use PriceKey::*;
    let cached = |modality| of_modality(raw, Side::Cached, modality);
    let [cached_audio, cached_image, cached_video] = split(counts.cache_read, Modality::ALL.map(cached));
    // The count of a modality includes the cached tokens of the modality, where a provider reports both.
    let uncached = |modality| of_modality(raw, Side::Input, modality).saturating_sub(cached(modality));
    let [audio, image, video] = split(counts.uncached_input, Modality::ALL.map(uncached));
    let for_an_hour = count(raw, &["cache_creation", "ephemeral_1h_input_tokens"]).unwrap_or(0).min(counts.cache_write);
    [
        (CostPart::Input, counts.uncached_input - audio - image - video, &[InputText, Input]),
        (CostPart::Audio, audio, &[InputAudio, Input]),
        (CostPart::Input, image, &[InputImage, Input]),
        (CostPart::Input, video, &[InputVideo, Input]),
        (CostPart::CacheRead, counts.cache_read - cached_audio - cached_image - cached_video, &[CacheRead, Input]),
        (CostPart::CacheRead, cached_audio, &[CacheAudioRead, CacheRead, InputAudio, Input]),
        (CostPart::CacheRead, cached_image, &[CacheImageRead, CacheRead, InputImage, Input]),
        (CostPart::CacheRead, cached_video, &[CacheVideoRead, CacheRead, InputVideo, Input]),
        (CostPart::CacheWrite5m, counts.cache_write - for_an_hour, &[CacheWrite5m, CacheWrite, Input]),
        (CostPart::CacheWrite1h, for_an_hour, &[CacheWrite1h, CacheWrite, Input]),
    ]
}

fn output(counts: TokenCounts, raw: &Value) -> [Counted; 6] {
    use PriceKey::*;
    let counts = without_excess_reasoning(counts, raw);
    let [audio, image, video] =
        split(counts.output, Modality::ALL.map(|modality| of_modality(raw, Side::Output, modality)));
    // Perplexity reports the tokens of citations beside the output.
    let citations = count(raw, &["citation_tokens"]).unwrap_or(0);
    [
        (CostPart::Output, counts.output - audio - image - video, &[OutputText, Output]),
        (CostPart::Audio, audio, &[OutputAudio, Output]),
        (CostPart::Output, image, &[OutputImage, Output]),
        (CostPart::Output, video, &[OutputVideo, Output]),
        (CostPart::Output, citations, &[OutputCitation, Output]),
        (CostPart::Reasoning, counts.reasoning, &[OutputReasoning, Output]),
    ]
}

/// Bounds the output by the completion where a provider reports more reasoning than completion, and a total without the
/// excess. The total is what the provider charges.
fn without_excess_reasoning(counts: TokenCounts, raw: &Value) -> TokenCounts {
    let either = |names: [&str; 2]| names.into_iter().find_map(|name| count(raw, &[name]));
    let prompt = either(["prompt_tokens", "input_tokens"]).unwrap_or(0);
    let Some(completion) = either(["completion_tokens", "output_tokens"]) else { return counts };
    let is_whole = count(raw, &["total_tokens"]) == Some(prompt.saturating_add(completion));
    if !is_whole || counts.reasoning <= completion {
        return counts;
    }
    TokenCounts { output: 0, reasoning: completion, ..counts }
}

/// Bounds the counts of modalities so that their sum is at most `whole`.
fn split(whole: u64, counts: [u64; 3]) -> [u64; 3] {
    let mut rest = whole;
    counts.map(|count| {
        let count = count.min(rest);
        rest -= count;
        count
    })
}

#[derive(Clone, Copy)]
enum Side {
    Input,
    Cached,
    Output,
}

#[derive(Clone, Copy)]
enum Modality {
    Audio,
    Image,
    Video,
}

impl Modality {
    const ALL: [Self; 3] = [Self::Audio, Self::Image, Self::Video];
}

/// Returns the tokens of one modality, as OpenAI or Google reports them.
fn of_modality(raw: &Value, side: Side, modality: Modality) -> u64 {
    let (member, names): (_, &[&str]) = match modality {
        Modality::Audio => ("audio_tokens", &["AUDIO"]),
        // Google charges pages of documents as images.
        Modality::Image => ("image_tokens", &["IMAGE", "DOCUMENT"]),
        Modality::Video => ("video_tokens", &["VIDEO"]),
    };
    let (objects, lists): ([&[&str]; 4], &[&str]) = match side {
        Side::Input => (
            [&["prompt_tokens_details"], &["input_tokens_details"], &["input_token_details"], &[]],
            &["promptTokensDetails", "toolUsePromptTokensDetails"],
        ),
        Side::Cached => (
            [
                &["prompt_tokens_details", "cached_tokens_details"],
                &["input_tokens_details", "cached_tokens_details"],
                &["input_token_details", "cached_tokens_details"],
                &[],
            ],
            &["cacheTokensDetails"],
        ),
        Side::Output => (
            [&["completion_tokens_details"], &["output_tokens_details"], &["output_token_details"], &[]],
            &["candidatesTokensDetails"],
        ),
    };
    let objects = objects.into_iter().filter(|path| !path.is_empty());
    let in_objects = objects.filter_map(|path| count(raw, &[path, &[member]].concat())).max().unwrap_or(0);
    let entries = lists.iter().filter_map(|list| raw.get(list)?.as_array()).flatten();
    let of_name =
        entries.filter(|entry| entry.get("modality").and_then(Value::as_str).is_some_and(|name| names.contains(&name)));
    of_name.filter_map(|entry| count(entry, &["tokenCount"])).fold(in_objects, u64::saturating_add)
}

/// Returns the number of searches in the web by the provider's own tools.
fn searches(raw: &Value) -> Option<u64> {
    let paths: [&[&str]; 3] = [
        &["server_tool_use", "web_search_requests"],
        &["num_search_queries"],
        &["tool_calls_details", "search_web", "invocation"],
    ];
    paths.into_iter().find_map(|path| count(raw, path))
}

fn count(value: &Value, path: &[&str]) -> Option<u64> {
    path.iter().try_fold(value, |value, member| value.get(member))?.as_u64()
}

fn milliseconds(seconds: Option<f64>) -> Option<u64> {
    let milliseconds = (seconds? * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..1e15).contains(&milliseconds).then_some(milliseconds as u64)
}
