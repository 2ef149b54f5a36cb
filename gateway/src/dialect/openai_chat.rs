//! OpenAI chat completions, as OpenAI and everyone who says "compatible" send them.
//!
//! Looser than any SDK: what cannot be read is passed over and noted. The rules where providers differ:
//!
//! - text is that of choice 0; a content in parts gives its text parts, an object its compact JSON;
//! - reasoning is, per delta, the first that is filled of `reasoning_content`, `reasoning`, `reasoning_text`, the thinking
//!   parts of the content, and the texts or summaries of `reasoning_details`;
//! - a tool call's id and name are the first non-empty ones; another non-empty id on a known index opens a new call;
//!   a delta without an index opens a call if it has an id, else extends the last;
//! - usage is the last that came, never a sum: top level, else on a choice, else under `x_groq`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::{ChatError, ToolCall};
use shared::usage::{Usage, UsageParts, UsageSource};

use super::{Signal, bounded};
use crate::loose::{Count, List, Object, Text, words};
use crate::sse::{DONE, SseEvent};
use crate::transcript::{Part, Transcript};

/// The fold of one answer.
#[derive(Debug, Default)]
pub struct Fold {
    /// What it has come to so far.
    pub transcript: Transcript,
    /// The `index` that each tool call of the transcript was opened with.
    tool_indexes: Vec<Option<u64>>,
    /// Usage came at the top level: what other places say no longer counts.
    has_top_usage: bool,
}

/// A chunk of a stream, or a whole answer.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default, borrow)]
    id: Text<'a>,
    #[serde(default, borrow)]
    model: Text<'a>,
    #[serde(default, borrow)]
    choices: List<Object<Choice<'a>>>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    x_groq: Object<Groq<'a>>,
}

#[derive(Deserialize)]
struct Groq<'a> {
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Count,
    #[serde(default, borrow)]
    delta: Object<Delta<'a>>,
    #[serde(default, borrow)]
    message: Object<Delta<'a>>,
    #[serde(default, borrow)]
    finish_reason: Text<'a>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
}

/// What is new in a choice; in a whole answer, everything.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(default, borrow)]
    content: Option<Content<'a>>,
    #[serde(default, borrow)]
    reasoning_content: Text<'a>,
    #[serde(default, borrow)]
    reasoning: Text<'a>,
    #[serde(default, borrow)]
    reasoning_text: Text<'a>,
    #[serde(default, borrow)]
    reasoning_details: List<Object<ReasoningDetail<'a>>>,
    #[serde(default, borrow)]
    refusal: Text<'a>,
    #[serde(default, borrow)]
    tool_calls: List<Object<ToolCallDelta<'a>>>,
    #[serde(default, borrow)]
    function_call: Object<FunctionDelta<'a>>,
}

#[derive(Deserialize)]
struct ReasoningDetail<'a> {
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    summary: Text<'a>,
}

#[derive(Deserialize)]
struct ToolCallDelta<'a> {
    #[serde(default)]
    index: Count,
    #[serde(default, borrow)]
    id: Text<'a>,
    #[serde(default, borrow)]
    function: Object<FunctionDelta<'a>>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    #[serde(default, borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

/// A content: text mostly; parts, or an object, from some.
enum Content<'a> {
    Text(Cow<'a, str>),
    Parts { text: String, thinking: String },
    Nothing,
}

impl Fold {
    /// Folds one event of a stream.
    pub fn event(&mut self, event: &SseEvent<'_>) -> Signal {
        let Some(data) = event.data else { return Signal::Pass };
        if data == DONE {
            self.transcript.ended = true;
            return Signal::End;
        }
        if event.name == "error" && error_in(data).is_none() {
            self.error(ChatError { message: bounded(&String::from_utf8_lossy(data)), ..ChatError::default() });
            return Signal::Pass;
        }
        self.chunk(data)
    }

    /// Folds an answer that is one JSON document.
    pub fn document(&mut self, body: &[u8]) {
        self.chunk(body);
    }

    fn chunk(&mut self, json: &[u8]) -> Signal {
        let chunk: Chunk<'_> = match serde_json::from_slice(json) {
            Ok(chunk) => chunk,
            Err(_) => {
                if let Some(error) = error_in(json) {
                    self.error(error);
                } else {
                    self.transcript.note("unreadable_chunk");
                }
                return Signal::Pass;
            }
        };
        if self.transcript.response_id.is_none() {
            self.transcript.response_id = chunk.id.filled().map(str::to_owned);
        }
        if self.transcript.model.is_none() {
            self.transcript.model = chunk.model.filled().map(str::to_owned);
        }
        let groq = chunk.x_groq.0;
        if let Some(error) = chunk.error.or(groq.as_ref().and_then(|groq| groq.error)).and_then(error_object) {
            self.error(error);
        } else if chunk.choices.0.is_empty()
            && chunk.usage.is_none()
            && let Some(error) = error_in(json)
        {
            self.error(error);
        }
        let mut side_usage = groq.and_then(|groq| groq.usage);
        let is_usage_only = chunk.choices.0.is_empty() && chunk.usage.is_some();
        for choice in chunk.choices.0.into_iter().filter_map(|choice| choice.0) {
            if choice.index.0.unwrap_or(0) != 0 {
                self.transcript.note("several_choices");
                continue;
            }
            side_usage = choice.usage.or(side_usage);
            if let Some(reason) = choice.finish_reason.filled() {
                self.transcript.finish_reason = Some(reason.to_owned());
                self.transcript.ended = true;
            }
            if let Some(delta) = choice.delta.0.or(choice.message.0) {
                self.delta(delta);
            }
        }
        if let Some(usage) = chunk.usage {
            self.has_top_usage = true;
            self.transcript.usage = Some(usage.to_owned());
        } else if let Some(usage) = side_usage
            && !self.has_top_usage
        {
            self.transcript.usage = Some(usage.to_owned());
        }
        if is_usage_only { Signal::UsageOnly } else { Signal::Pass }
    }

    fn delta(&mut self, delta: Delta<'_>) {
        let (text, thinking) = match delta.content {
            Some(Content::Text(text)) => (text, String::new()),
            Some(Content::Parts { text, thinking }) => (Cow::Owned(text), thinking),
            Some(Content::Nothing) | None => (Cow::Borrowed(""), String::new()),
        };
        self.transcript.push(Part::Text, &text);
        let reasoning = [&delta.reasoning_content, &delta.reasoning, &delta.reasoning_text]
            .into_iter()
            .find_map(Text::filled)
            .or(Some(thinking.as_str()).filter(|thinking| !thinking.is_empty()));
        if let Some(reasoning) = reasoning {
            self.transcript.push(Part::Reasoning, reasoning);
        } else {
            for detail in delta.reasoning_details.0.iter().filter_map(|detail| detail.0.as_ref()) {
                let words = detail.text.filled().or(detail.summary.filled()).unwrap_or("");
                self.transcript.push(Part::Reasoning, words);
            }
        }
        self.transcript.push(Part::Refusal, delta.refusal.filled().unwrap_or(""));
        for call in delta.tool_calls.0.iter().filter_map(|call| call.0.as_ref()) {
            self.tool_call(call.index.0, call.id.filled(), call.function.0.as_ref());
        }
        if let Some(function) = &delta.function_call.0 {
            self.tool_call(Some(0), None, Some(function));
        }
    }

    fn tool_call(&mut self, index: Option<u64>, id: Option<&str>, function: Option<&FunctionDelta<'_>>) {
        let calls = &mut self.transcript.tool_calls;
        let known = match index {
            Some(_) => self.tool_indexes.iter().rposition(|known| *known == index),
            None if id.is_some() => None,
            None => calls.len().checked_sub(1),
        };
        let extends = known.filter(|&at| id.is_none_or(|id| calls[at].id.is_empty() || calls[at].id == id));
        let at = extends.unwrap_or_else(|| {
            calls.push(ToolCall::default());
            self.tool_indexes.push(index);
            calls.len() - 1
        });
        let call = &mut calls[at];
        if call.id.is_empty() {
            id.unwrap_or("").clone_into(&mut call.id);
        }
        let Some(function) = function else { return };
        if call.name.is_empty() {
            function.name.filled().unwrap_or("").clone_into(&mut call.name);
        }
        if let Some(arguments) = function.arguments {
            // Text, almost always; some send the object itself.
            let text = serde_json::from_str::<Cow<'_, str>>(arguments.get());
            let text = text.unwrap_or_else(|_| Cow::Owned(compact(arguments)));
            self.transcript.push(Part::Arguments(at), &text);
        }
    }

    fn error(&mut self, error: ChatError) {
        self.transcript.error.get_or_insert(error);
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct ContentPart<'a> {
            #[serde(default, borrow)]
            text: Text<'a>,
            #[serde(default, borrow)]
            thinking: Option<&'a RawValue>,
        }
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        let json = raw.get();
        Ok(match json.as_bytes()[0] {
            b'"' => serde_json::from_str(json).map_or(Content::Nothing, |Borrowed(text)| Content::Text(text)),
            b'[' => {
                let (mut text, mut thinking) = (String::new(), String::new());
                let List(parts) = serde_json::from_str::<List<&'a RawValue>>(json).unwrap_or_default();
                for part in parts {
                    if let Ok(Borrowed(words)) = serde_json::from_str(part.get()) {
                        text.push_str(&words);
                    } else if let Ok(part) = serde_json::from_str::<ContentPart<'_>>(part.get()) {
                        text.push_str(part.text.filled().unwrap_or(""));
                        match part.thinking.map(|inner| serde_json::from_str::<Content<'_>>(inner.get())) {
                            Some(Ok(Content::Text(words))) => thinking.push_str(&words),
                            Some(Ok(Content::Parts { text: words, .. })) => thinking.push_str(&words),
                            _ => {}
                        }
                    }
                }
                Content::Parts { text, thinking }
            }
            b'{' => Content::Text(Cow::Owned(compact(raw))),
            _ => Content::Nothing,
        })
    }
}

/// A string that borrows where it can.
#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

/// The value without white space between its tokens.
fn compact(raw: &RawValue) -> String {
    serde_json::from_str::<serde_json::Value>(raw.get())
        .map_or_else(|_| raw.get().to_owned(), |value| value.to_string())
}

/// The usage that this object reports, normalised into disjoint parts. A reported zero is a zero.
pub fn usage(raw: Option<&RawValue>) -> Usage {
    #[derive(Default, Deserialize)]
    struct Reported {
        #[serde(default)]
        prompt_tokens: Count,
        #[serde(default)]
        completion_tokens: Count,
        #[serde(default)]
        total_tokens: Count,
        #[serde(default)]
        prompt_tokens_details: Object<PromptDetails>,
        #[serde(default)]
        completion_tokens_details: Object<CompletionDetails>,
        /// DeepSeek's place for cached input.
        #[serde(default)]
        prompt_cache_hit_tokens: Count,
    }
    #[derive(Default, Deserialize)]
    struct PromptDetails {
        #[serde(default)]
        cached_tokens: Count,
        #[serde(default)]
        cache_write_tokens: Count,
    }
    #[derive(Default, Deserialize)]
    struct CompletionDetails {
        #[serde(default)]
        reasoning_tokens: Count,
    }

    let Some(raw) = raw else { return Usage::default() };
    let Some(Object(Some(reported))) = crate::loose::shaped::<Object<Reported>>(raw.get()) else {
        return Usage { raw: Some(raw.to_owned()), ..Usage::default() };
    };
    let (prompt, completion) = (reported.prompt_tokens.0, reported.completion_tokens.0);
    if prompt.is_none() && completion.is_none() && reported.total_tokens.0.is_none() {
        return Usage { raw: Some(raw.to_owned()), ..Usage::default() };
    }
    let prompt_details = reported.prompt_tokens_details.0.unwrap_or_default();
    let reasoning = reported.completion_tokens_details.0.and_then(|details| details.reasoning_tokens.0).unwrap_or(0);
    let (input, output) = (prompt.unwrap_or(0), completion.unwrap_or(0));
    let total = reported.total_tokens.0.unwrap_or_else(|| input.saturating_add(output));
    // Most count reasoning within the completion; where the total shows that it comes on top, it does.
    let on_top =
        reasoning > output || (reasoning > 0 && total == input.saturating_add(output).saturating_add(reasoning));
    let cached = prompt_details.cached_tokens.0.or(reported.prompt_cache_hit_tokens.0).unwrap_or(0).min(input);
    let written = prompt_details.cache_write_tokens.0.unwrap_or(0).min(input - cached);
    Usage {
        source: UsageSource::Reported,
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: Some(total),
        parts: UsageParts {
            uncached_input: input - cached - written,
            cache_read: cached,
            cache_write: written,
            output: if on_top { output } else { output - reasoning },
            reasoning,
        },
        raw: Some(raw.to_owned()),
    }
}

/// The error in a body or chunk, if there is one in any of the known shapes.
pub fn error_in(json: &[u8]) -> Option<ChatError> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(default, borrow)]
        error: Option<&'a RawValue>,
        #[serde(default, borrow)]
        detail: Option<&'a RawValue>,
        #[serde(default, borrow)]
        message: Text<'a>,
        #[serde(default, rename = "type", deserialize_with = "words")]
        kind: Option<String>,
        #[serde(default, deserialize_with = "words")]
        code: Option<String>,
        #[serde(default, borrow)]
        object: Text<'a>,
    }
    if let Ok([only]) = serde_json::from_slice::<[&RawValue; 1]>(json) {
        return error_in(only.get().as_bytes());
    }
    let body: Body<'_> = serde_json::from_slice(json).ok()?;
    if let Some(error) = body.error.and_then(error_object) {
        return Some(error);
    }
    if let Some(detail) = body.detail {
        return Some(ChatError {
            kind: body.kind,
            code: body.code,
            message: bounded(&plain(detail)),
            ..ChatError::default()
        });
    }
    let says_error = body.object.filled() == Some("error") || body.kind.is_some() || body.code.is_some();
    let message = body.message.filled().filter(|_| says_error)?;
    Some(ChatError { kind: body.kind, code: body.code, message: bounded(message), ..ChatError::default() })
}

/// The error in an `error` member: an object, or plain text.
fn error_object(raw: &RawValue) -> Option<ChatError> {
    #[derive(Deserialize)]
    struct ErrorObject<'a> {
        #[serde(default, borrow)]
        message: Option<&'a RawValue>,
        #[serde(default, rename = "type", deserialize_with = "words")]
        kind: Option<String>,
        #[serde(default, deserialize_with = "words")]
        code: Option<String>,
        #[serde(default)]
        status: Count,
    }
    match serde_json::from_str::<Object<ErrorObject<'_>>>(raw.get()).ok()?.0 {
        Some(error) => Some(ChatError {
            status: error.status.0.and_then(|status| u16::try_from(status).ok()),
            kind: error.kind,
            code: error.code,
            message: bounded(&error.message.map_or_else(|| raw.get().to_owned(), plain)),
        }),
        None => Some(plain(raw))
            .filter(|text| !matches!(text.as_str(), "" | "null" | "false"))
            .map(|text| ChatError { message: bounded(&text), ..ChatError::default() }),
    }
}

/// A string as it is, anything else as its JSON.
fn plain(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}
