//! Answers in the formats of other APIs, which some upstreams and proxies send in place of a chat completion: a chat
//! completion within another object (DashScope, and services that wrap every answer), and the own formats of Cloudflare
//! Workers AI, of Hugging Face's text generation, of Ollama and of DashScope.
//!
//! Clients of chat completions read nothing of such answers, so the record says that the format is another one.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::shape::{ChoiceDelta, ChunkChoice, ToolCallPieces};
use crate::json::lenient::{Count, Flag, List, Members, Object, Text};

/// An answer, or a chunk of one, that has no choices of its own.
pub(super) enum OtherShape<'a> {
    /// A chat completion that is a member of another object.
    Wrapped(&'a str),
    /// The content of a choice, and a usage object.
    Content(Box<ChunkChoice<'a>>, Option<Box<RawValue>>),
}

#[derive(Deserialize)]
struct OtherObject<'a> {
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
    #[serde(default, borrow)]
    output: Option<&'a RawValue>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    /// The text of Cloudflare, or a chat completion.
    #[serde(default, borrow)]
    response: Option<&'a RawValue>,
    /// The calls of Cloudflare.
    #[serde(default, borrow)]
    tool_calls: ToolCallPieces<'a>,
    #[serde(default, borrow)]
    usage: Option<&'a RawValue>,
    /// The text of DashScope, and the reason for the end.
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    finish_reason: Text<'a>,
    /// The token of a stream, the whole text, and the numbers of Hugging Face.
    #[serde(default, borrow)]
    token: Object<Token<'a>>,
    #[serde(default, borrow)]
    generated_text: Text<'a>,
    #[serde(default, borrow)]
    details: Object<GenerationDetails<'a>>,
    /// The message of Ollama, the mark of the end, and the counts.
    #[serde(default, borrow)]
    message: Object<ChoiceDelta<'a>>,
    #[serde(default, borrow)]
    done: Option<&'a RawValue>,
    #[serde(default, borrow)]
    done_reason: Text<'a>,
    #[serde(default)]
    prompt_eval_count: Count,
    #[serde(default)]
    eval_count: Count,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(default, borrow)]
    text: Text<'a>,
    /// True for a mark such as the end of the text.
    #[serde(default)]
    special: Flag,
}

#[derive(Deserialize)]
struct GenerationDetails<'a> {
    #[serde(default, borrow)]
    finish_reason: Text<'a>,
    #[serde(default)]
    generated_tokens: Count,
    #[serde(default)]
    input_length: Count,
}

/// Reads a chunk without choices. `None` if the chunk has none of the known formats; an error if a text is not valid.
pub(super) fn read_other_shape(json: &str) -> serde_json::Result<Option<OtherShape<'_>>> {
    let Object(Some(object)) = serde_json::from_str::<Object<OtherObject<'_>>>(json)? else { return Ok(None) };
    for wrapper in [object.result, object.output, object.data, object.response].into_iter().flatten() {
        if has_choices(wrapper) {
            return Ok(Some(OtherShape::Wrapped(wrapper.get())));
        }
    }
    if let Some(result) = object.result
        && let Object(Some(result)) = serde_json::from_str::<Object<OtherObject<'_>>>(result.get())?
        && (result.response.is_some() || !result.tool_calls.0.is_empty())
    {
        return Ok(Some(result.into_cloudflare()?));
    }
    if let Some(output) = object.output
        && let Object(Some(output)) = serde_json::from_str::<Object<OtherObject<'_>>>(output.get())?
        && output.text.0.is_some()
    {
        // A chunk of a stream has the whole text so far, as a message has. The reason is the word "null" before the end.
        let finish_reason = Text(output.finish_reason.0.filter(|reason| reason != "null"));
        let message = Object(Some(ChoiceDelta::of_text(output.text.0.unwrap_or_default())));
        return Ok(Some(content(ChunkChoice { message, finish_reason, ..ChunkChoice::default() }, None)));
    }
    if object.token.0.is_some() || object.generated_text.0.is_some() {
        return Ok(Some(object.into_hugging_face()));
    }
    if object.done.is_some() && (object.message.0.is_some() || object.response.is_some()) {
        return Ok(Some(object.into_ollama()?));
    }
    // A text is what the streams of Cloudflare have; other values may have any meaning.
    let is_text = |response: &RawValue| response.get().starts_with('"');
    if object.response.is_some_and(is_text) || (object.response.is_some() && !object.tool_calls.0.is_empty()) {
        return Ok(Some(object.into_cloudflare()?));
    }
    Ok(None)
}

impl<'a> OtherObject<'a> {
    fn into_cloudflare(self) -> serde_json::Result<OtherShape<'a>> {
        let usage = self.usage.map(RawValue::to_owned);
        let mut delta = ChoiceDelta::of_content(self.response)?;
        delta.tool_calls = self.tool_calls;
        Ok(content(ChunkChoice { delta: Object(Some(delta)), ..ChunkChoice::default() }, usage))
    }

    /// The last chunk of a stream repeats the whole text beside the last token.
    fn into_hugging_face(self) -> OtherShape<'a> {
        let text = match self.token.0 {
            Some(token) => token.text.0.filter(|_| !token.special.0),
            None => self.generated_text.0,
        };
        let (finish_reason, usage) = match self.details.0 {
            Some(details) => (details.finish_reason, counts(details.input_length, details.generated_tokens)),
            None => (Text::default(), None),
        };
        let delta = Object(Some(ChoiceDelta::of_text(text.unwrap_or_default())));
        content(ChunkChoice { delta, finish_reason, ..ChunkChoice::default() }, usage)
    }

    fn into_ollama(self) -> serde_json::Result<OtherShape<'a>> {
        let is_done = self.done.is_some_and(|done| done.get() == "true");
        let reason = self.done_reason.0.unwrap_or(Cow::Borrowed("stop"));
        let delta = match self.message.0 {
            Some(message) => message,
            None => ChoiceDelta::of_content(self.response)?,
        };
        let finish_reason = Text(Some(reason).filter(|_| is_done));
        let usage = counts(self.prompt_eval_count, self.eval_count);
        Ok(content(ChunkChoice { delta: Object(Some(delta)), finish_reason, ..ChunkChoice::default() }, usage))
    }
}

fn content<'a>(choice: ChunkChoice<'a>, usage: Option<Box<RawValue>>) -> OtherShape<'a> {
    OtherShape::Content(Box::new(choice), usage)
}

fn has_choices(value: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Choices<'a> {
        #[serde(default, borrow)]
        choices: List<&'a RawValue>,
    }
    serde_json::from_str::<Object<Choices<'_>>>(value.get())
        .is_ok_and(|Object(object)| object.is_some_and(|object| !object.choices.0.is_empty()))
}

/// A usage object with the counts that are known. `None` without any.
fn counts(input: Count, output: Count) -> Option<Box<RawValue>> {
    let counts = [("prompt_tokens", input.0), ("completion_tokens", output.0)];
    let counts: Vec<_> = counts.into_iter().filter_map(|(name, count)| Some((name, count?.to_string()))).collect();
    let usage = Members::to_json(counts.iter().map(|(name, count)| (*name, count.as_str())));
    RawValue::from_string(usage).ok().filter(|_| !counts.is_empty())
}
