//! The expected reading of an exchange, as stated by the corpus, and the comparison with an actual reading.

use gateway::response::transcript::Transcript;
use serde::Deserialize;
use serde_json::Value;
use shared::event::{ChatError, DialectName, ToolCall};
use shared::usage::UsageSource;

use crate::Reading;

/// The compared parts of `expected.json`.
#[derive(Deserialize)]
pub(crate) struct Expected {
    text: String,
    reasoning: Option<String>,
    refusal: Option<String>,
    audio_transcript: Option<String>,
    tool_calls: Option<Vec<Call>>,
    server_tool_calls: u64,
    finish_reason: Option<String>,
    model: Option<String>,
    response_id: Option<String>,
    usage: Option<ReportedUsage>,
    error: Option<ExpectedError>,
    choices: Option<Vec<Choice>>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Call {
    id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
}

/// Usage as sent by the provider, without computed values.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct ReportedUsage {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    reasoning: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct ExpectedError {
    status: Option<u16>,
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<Value>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    index: u64,
    text: String,
    reasoning: Option<String>,
    refusal: Option<String>,
    audio_transcript: Option<String>,
    tool_calls: Option<Vec<Call>>,
    finish_reason: Option<String>,
}

impl Expected {
    /// Lists all differences between the expectation and a reading.
    pub(crate) fn differences(&self, dialect: DialectName, reading: &Reading) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug| {
            let (expected, got) = (format!("{expected:?}"), format!("{got:?}"));
            if expected != got {
                let short = |text: String| text[..text.floor_char_boundary(400)].to_owned();
                differences.push(format!("{what}: expected {}, got {}", short(expected), short(got)));
            }
        };
        let transcript = &reading.transcript;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        compare("text", &self.text, &transcript.text);
        compare("reasoning", &non_empty(self.reasoning.as_ref()), &some(&transcript.reasoning));
        compare("refusal", &non_empty(self.refusal.as_ref()), &some(&transcript.refusal));
        compare("audio", &non_empty(self.audio_transcript.as_ref()), &some(&transcript.audio_transcript));
        compare("tool calls", &expected_calls(self.tool_calls.as_ref()), &calls(&transcript.tool_calls));
        compare("server tool calls", &self.server_tool_calls, &transcript.server_tool_calls);
        compare("finish reason", &non_empty(self.finish_reason.as_ref()), &transcript.finish_reason);
        compare("model", &self.model, &transcript.model);
        compare("response id", &non_empty(self.response_id.as_ref()), &transcript.response_id);
        compare("usage", &self.usage, &reported_usage(dialect, reading));
        match (self.error.as_ref().and_then(ExpectedError::is_cut_short), &reading.error) {
            (Some(page), Some(error)) => compare("error page", &true, &error.message.starts_with(page.trim())),
            (_, error) => {
                compare("error", &self.error.as_ref().map(ExpectedError::comparable), &error.as_ref().map(comparable));
            }
        }
        if let Some(choices) = &self.choices {
            let expected: Vec<_> = choices.iter().filter(|choice| choice.index > 0).map(Choice::comparable).collect();
            compare("other choices", &expected, &other_choices(reading));
        }
        if let Some(problem) = usage_problem(reading) {
            differences.push(problem);
        }
        differences
    }
}

fn non_empty(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

type ComparableCalls = Vec<(String, String, String)>;

fn expected_calls(calls: Option<&Vec<Call>>) -> ComparableCalls {
    let word = |text: &Option<String>| text.clone().unwrap_or_default();
    calls.into_iter().flatten().map(|call| (word(&call.id), word(&call.name), word(&call.arguments))).collect()
}

fn calls(calls: &[ToolCall]) -> ComparableCalls {
    calls.iter().map(|call| (call.id.clone(), call.name.clone(), call.arguments.clone())).collect()
}

/// The counts in the provider's own usage object, from the members that the dialect defines.
fn reported_usage(dialect: DialectName, reading: &Reading) -> Option<ReportedUsage> {
    let raw: Value = serde_json::from_str(reading.usage.raw.as_ref()?.get()).ok()?;
    raw.as_object()?;
    let at = |paths: &[&str]| paths.iter().find_map(|path| raw.pointer(path).and_then(Value::as_u64));
    Some(match dialect {
        DialectName::OpenaiChat | DialectName::Openai => ReportedUsage {
            prompt: at(&["/prompt_tokens"]),
            completion: at(&["/completion_tokens"]),
            total: at(&["/total_tokens"]),
            cached: at(&[
                "/prompt_tokens_details/cached_tokens",
                "/prompt_cache_hit_tokens",
                "/cached_tokens",
                "/cache_read_input_tokens",
            ]),
            cache_write: at(&["/prompt_tokens_details/cache_write_tokens", "/cache_creation_input_tokens"]),
            reasoning: at(&["/completion_tokens_details/reasoning_tokens", "/reasoning_tokens"]),
        },
        DialectName::OpenaiResponses => ReportedUsage {
            prompt: at(&["/input_tokens"]),
            completion: at(&["/output_tokens"]),
            total: at(&["/total_tokens"]),
            cached: at(&["/input_tokens_details/cached_tokens"]),
            // The corpus does not read this count in the dialect, so the count is not compared here. `usage_problem`
            // still covers it.
            cache_write: None,
            reasoning: at(&["/output_tokens_details/reasoning_tokens"]),
        },
        DialectName::AnthropicMessages => ReportedUsage {
            prompt: at(&["/input_tokens"]),
            completion: at(&["/output_tokens"]),
            total: None,
            cached: at(&["/cache_read_input_tokens"]),
            cache_write: at(&["/cache_creation_input_tokens"]),
            reasoning: at(&["/output_tokens_details/thinking_tokens"]),
        },
        DialectName::GoogleGemini | DialectName::Other(_) => return None,
    })
}

/// Checks that the parts of the usage add up to the totals. Usage with an unknown source must have no usage object.
fn usage_problem(reading: &Reading) -> Option<String> {
    let usage = &reading.usage;
    if usage.source != UsageSource::Reported {
        return usage.raw.as_ref().map(|raw| format!("usage {} is not understood", raw.get()));
    }
    let parts = &usage.parts;
    let input = parts.uncached_input + parts.cache_read + parts.cache_write;
    let output = parts.output + parts.reasoning;
    let reported = usage.completion_tokens.unwrap_or(0);
    let fits =
        input == usage.prompt_tokens.unwrap_or(0) && (output == reported || output == reported + parts.reasoning);
    (!fits).then(|| format!("the parts {parts:?} do not add up to {usage:?}"))
}

impl ExpectedError {
    fn comparable(&self) -> (Option<u16>, Option<String>, Option<String>, String) {
        let code = self.code.as_ref().filter(|code| !code.is_null()).map(|code| match code {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let message = self.message.clone().unwrap_or_default();
        (self.status, non_empty(self.kind.as_ref()), code, same(&message))
    }

    /// The message, if the corpus has shortened it. The corpus keeps 2000 characters of a long error page.
    fn is_cut_short(&self) -> Option<&str> {
        self.message.as_deref().filter(|message| message.chars().count() == 2_000)
    }
}

fn comparable(error: &ChatError) -> (Option<u16>, Option<String>, Option<String>, String) {
    (error.status, error.kind.clone(), error.code.clone(), same(&error.message))
}

/// Normalizes a message: JSON without added white space, other text trimmed like an error body.
fn same(message: &str) -> String {
    match serde_json::from_str::<Value>(message) {
        Ok(value) => value.to_string(),
        Err(_) => message.trim().to_owned(),
    }
}

type ComparableChoice = (u64, String, [Option<String>; 4], ComparableCalls);

impl Choice {
    fn comparable(&self) -> ComparableChoice {
        let comparable = [&self.reasoning, &self.refusal, &self.audio_transcript, &self.finish_reason];
        (
            self.index,
            self.text.clone(),
            comparable.map(|text| non_empty(text.as_ref())),
            expected_calls(self.tool_calls.as_ref()),
        )
    }
}

fn other_choices(reading: &Reading) -> Vec<ComparableChoice> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let comparable = |(index, choice): &(u64, Transcript)| {
        let [reasoning, refusal, audio] =
            [&choice.reasoning, &choice.refusal, &choice.audio_transcript].map(|text| some(text));
        let comparable = [reasoning, refusal, audio, choice.finish_reason.clone()];
        (*index, choice.text.clone(), comparable, calls(&choice.tool_calls))
    };
    reading.transcript.other_choices.iter().map(comparable).collect()
}
