//! JSON without free text: numbers, booleans and listed words, below names that are kept.

use serde_json::value::RawValue;

use crate::json::lenient::{BorrowedText, Members};

/// The maximum nesting depth that is kept.
const MAX_DEPTH: u32 = 16;

/// The maximum length of the name of a count, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The ends of the names of counts and of objects with counts in providers' usage objects, in lower case. A name that ends otherwise may
/// be text, such as the name of a tool.
const ENDS_OF_COUNTS: [&str; 23] = [
    "_ms",
    "_sec",
    "breakdown",
    "byok",
    "cost",
    "count",
    "counts",
    "details",
    "duration",
    "estimate",
    "per_second",
    "processed",
    "request",
    "requests",
    "seconds",
    "tier",
    "time",
    "token",
    "tokencount",
    "tokens",
    "units",
    "usage",
    "used",
];

/// Other names of usage objects that are kept.
const NAMES_OF_COUNTS: [&str; 17] = [
    "amount",
    "cache_creation",
    "cacheTokensDetails",
    "cost_in_usd_ticks",
    "credits",
    "currency",
    "input",
    "iterations",
    "modality",
    "output",
    "server_tool_use",
    "speed",
    "total",
    "type",
    "usage",
    "used_credits",
    "value",
];

/// The settings of requests that are kept if their values are numbers, booleans or listed words. All other settings may have text.
const SETTINGS: [&str; 48] = [
    "background",
    "budget_tokens",
    "candidateCount",
    "dimensions",
    "effort",
    "encoding_format",
    "frequencyPenalty",
    "frequency_penalty",
    "generationConfig",
    "includeThoughts",
    "include_usage",
    "logprobs",
    "maxOutputTokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tool_calls",
    "n",
    "outputDimensionality",
    "parallel_tool_calls",
    "presencePenalty",
    "presence_penalty",
    "quality",
    "reasoning",
    "reasoning_effort",
    "responseLogprobs",
    "return_documents",
    "seed",
    "service_tier",
    "speed",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "thinking",
    "thinkingBudget",
    "thinkingConfig",
    "thinkingLevel",
    "tool_choice",
    "topK",
    "topP",
    "top_k",
    "top_logprobs",
    "top_n",
    "top_p",
    "truncation",
    "type",
    "verbosity",
];

/// The words that are kept as values: levels and tiers of settings, and the words of usage objects.
const WORDS: [&str; 37] = [
    "AUDIO",
    "DOCUMENT",
    "IMAGE",
    "TEXT",
    "VIDEO",
    "adaptive",
    "any",
    "auto",
    "base64",
    "batch",
    "compaction",
    "default",
    "disabled",
    "duration",
    "enabled",
    "flex",
    "float",
    "hd",
    "high",
    "image",
    "low",
    "max",
    "medium",
    "message",
    "minimal",
    "none",
    "not_available",
    "on_demand",
    "performance",
    "priority",
    "request",
    "required",
    "scale",
    "standard",
    "standard_only",
    "tokens",
    "xhigh",
];

/// Returns the settings of a request that are no text: an object.
pub(super) fn settings(parameters: &RawValue) -> Box<RawValue> {
    without_text(parameters, &|name| SETTINGS.contains(&name))
}

/// Returns a provider's usage object with its counts alone.
pub(super) fn counts(usage: &RawValue) -> Box<RawValue> {
    without_text(usage, &is_count)
}

/// Returns true for the name of a count, or of an object with counts.
fn is_count(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    NAMES_OF_COUNTS.contains(&name) || ENDS_OF_COUNTS.iter().any(|end| lower.ends_with(end))
}

/// Returns the object without text. A value that is no object becomes an object without members.
fn without_text(object: &RawValue, keeps: &dyn Fn(&str) -> bool) -> Box<RawValue> {
    let kept = Some(object.get()).filter(|json| json.starts_with('{')).and_then(|json| plain(json, keeps, MAX_DEPTH));
    kept.and_then(|json| RawValue::from_string(json).ok()).unwrap_or_else(empty_object)
}

/// Returns an object without members.
pub(super) fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

/// Returns the value without text, or `None` if nothing is left of it.
fn plain(json: &str, keeps: &dyn Fn(&str) -> bool, depth: u32) -> Option<String> {
    match json.as_bytes().first()? {
        b'{' => {
            let depth = depth.checked_sub(1)?;
            let Members(members) = serde_json::from_str(json).ok()?;
            let kept = members.iter().filter(|(name, _)| keeps(name));
            let kept: Vec<_> =
                kept.filter_map(|(name, value)| Some((name.as_ref(), plain(value.get(), keeps, depth)?))).collect();
            Some(Members::to_json(kept.iter().map(|(name, value)| (*name, value.as_str()))))
        }
        b'[' => {
            let depth = depth.checked_sub(1)?;
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            let kept: Vec<_> = items.iter().filter_map(|item| plain(item.get(), keeps, depth)).collect();
            Some(format!("[{}]", kept.join(",")))
        }
        b'"' => {
            let BorrowedText(text) = serde_json::from_str(json).ok()?;
            let is_count = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            (is_count || WORDS.contains(&text.as_ref())).then(|| json.to_owned())
        }
        _ => Some(json.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn settings_keep_numbers_and_listed_words_of_listed_names() {
        let sent = r#"{"model":"m","max_tokens":7,"temperature":0.70,"stop":["secret"],"seed":1,"secret":1,
            "reasoning":{"effort":"high","secret":2,"summary":"secret"},"service_tier":"secret","tool_choice":"auto",
            "tools":[{"name":"secret"}],"logit_bias":{"5":1},"generationConfig":{"topK":4,"stopSequences":["secret"]}}"#;
        assert_eq!(
            settings(&raw(sent)).get(),
            r#"{"max_tokens":7,"temperature":0.70,"seed":1,"reasoning":{"effort":"high"},"tool_choice":"auto","generationConfig":{"topK":4}}"#
        );
        for other in ["[1]", "null", "\"secret\"", "7"] {
            assert_eq!(settings(&raw(other)).get(), "{}", "{other}");
        }
    }

    #[test]
    fn counts_of_usage_stay_as_they_were_written() {
        let sent = r#"{"prompt_tokens":5,"cost":0.00012345678901234567,"text_tokens":"12","service_tier":"flex","note":"a secret",
            "promptTokensDetails":[{"modality":"AUDIO","tokenCount":3},{"modality":"secret"}],"a secret":{"b_tokens":1},"secret_tool":7,"more_details":{"secret":1,"other_tokens":null}}"#;
        assert_eq!(
            counts(&raw(sent)).get(),
            r#"{"prompt_tokens":5,"cost":0.00012345678901234567,"text_tokens":"12","service_tier":"flex","promptTokensDetails":[{"modality":"AUDIO","tokenCount":3},{}],"more_details":{"other_tokens":null}}"#
        );
        let deep = format!("{}1{}", r#"{"total":"#.repeat(40), "}".repeat(40));
        assert!(counts(&raw(&deep)).get().len() < deep.len());
    }
}
