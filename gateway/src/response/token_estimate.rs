//! Estimates usage with a tokenizer, for responses without reported usage. Estimated usage is marked as such.
//!
//! Pure, but slow: a millisecond for several kilobytes, and a tenth of a second for the first use of the tokenizer.
//! Callers run the estimate off the stream's path. The tokenizer is that of OpenAI's newer models (o200k), for all
//! models: most other tokenizers are not published, and their counts differ by some tens of per cent at most.

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use shared::event::AssistantMessage;
use shared::usage::{Usage, UsageParts, UsageSource};

use crate::json::lenient::Members;

/// The number of bytes of the prompt's text that are kept and counted. The count is scaled to the length of the whole
/// text.
const MAX_PROMPT_BYTES: usize = 16 << 10;

/// The maximum size of a request that is kept as is until an estimate is needed, which is rare. Copying is cheaper than
/// parsing.
const MAX_RAW_BYTES: usize = 4 << 10;

/// The number of bytes of each text in a response that are counted.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The tokens of a message in addition to its text, for the role and the delimiters.
const MESSAGE_TOKENS: u64 = 4;

/// Members of a request that belong to the prompt, besides the messages.
const PROMPT_MEMBERS: [&str; 3] = ["system", "instructions", "tools"];

/// Members, at any depth of a message or tool, with text that the model reads.
const TEXT_MEMBERS: [&str; 13] = [
    "arguments",
    "content",
    "description",
    "input",
    "instructions",
    "name",
    "output",
    "parameters",
    "reasoning_content",
    "summary",
    "system",
    "text",
    "thinking",
];

/// The bytes of text to which one token is taken to correspond before a call.
const BYTES_PER_TOKEN: usize = 4;

/// The members of a request that name the maximum number of tokens of the answer.
const MAX_ANSWER_MEMBERS: [&str; 3] = ["max_completion_tokens", "max_output_tokens", "max_tokens"];

/// The prompt of a chat, as far as an estimate needs the prompt.
#[derive(Debug)]
pub enum Prompt {
    /// A short request, kept as is: few chats need an estimate.
    Raw {
        /// The messages, or the input of a Responses request.
        messages: Box<RawValue>,
        /// The other members of the request.
        parameters: Box<RawValue>,
    },
    /// The text extracted from a long request.
    Extracted(PromptText),
}

/// The text of a prompt, bounded.
#[derive(Debug, Default)]
pub struct PromptText {
    /// The beginning of the text, at most `MAX_PROMPT_BYTES`.
    text: String,
    /// The length of the whole text, in bytes.
    bytes: usize,
    messages: u64,
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Extracted(PromptText::default())
    }
}

impl Prompt {
    /// The prompt of a request with these messages and other members.
    pub fn from_request(messages: &RawValue, parameters: &RawValue) -> Self {
        if messages.get().len() + parameters.get().len() <= MAX_RAW_BYTES {
            return Self::Raw { messages: messages.to_owned(), parameters: parameters.to_owned() };
        }
        Self::Extracted(PromptText::from_request(messages, parameters))
    }

    fn token_count(&self) -> u64 {
        match self {
            Self::Raw { messages, parameters } => PromptText::from_request(messages, parameters).token_count(),
            Self::Extracted(texts) => texts.token_count(),
        }
    }
}

impl PromptText {
    fn from_request(messages: &RawValue, parameters: &RawValue) -> Self {
        let mut prompt = Self::default();
        prompt.collect(messages);
        if let Ok(list) = serde_json::from_str::<Vec<IgnoredAny>>(messages.get()) {
            prompt.messages = list.len() as u64;
        } else {
            prompt.messages = 1;
        }
        if let Ok(parameters) = serde_json::from_str::<Members<'_>>(parameters.get()) {
            PROMPT_MEMBERS.iter().filter_map(|name| parameters.get(name)).for_each(|raw| prompt.collect(raw));
        }
        prompt
    }

    fn collect(&mut self, raw: &RawValue) {
        // Invalid JSON is not counted.
        let _ = TextCollector { prompt: self, is_collected: true }
            .deserialize(&mut serde_json::Deserializer::from_str(raw.get()));
    }

    fn add(&mut self, text: &str) {
        self.bytes = self.bytes.saturating_add(text.len());
        let room = MAX_PROMPT_BYTES.saturating_sub(self.text.len());
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
    }

    fn token_count(&self) -> u64 {
        scaled_token_count(&self.text, self.bytes) + self.messages * MESSAGE_TOKENS
    }
}

/// Returns the tokens of a request's prompt, by the length of its text, and the maximum number of tokens of the answer, if the request
/// names one. Fast: no text is tokenized.
pub fn expected_tokens(messages: &RawValue, parameters: &RawValue) -> (u64, Option<u64>) {
    let prompt = PromptText::from_request(messages, parameters);
    let tokens = prompt.bytes.div_ceil(BYTES_PER_TOKEN) as u64 + prompt.messages * MESSAGE_TOKENS;
    let number = |raw: &RawValue| serde_json::from_str::<u64>(raw.get()).ok();
    let max_answer = serde_json::from_str::<Members<'_>>(parameters.get()).ok().and_then(|members| {
        let google =
            members.get("generationConfig").and_then(|raw| serde_json::from_str::<Members<'_>>(raw.get()).ok());
        let google = google.and_then(|config| config.get("maxOutputTokens").and_then(number));
        MAX_ANSWER_MEMBERS.iter().find_map(|name| members.get(name).and_then(number)).or(google)
    });
    (tokens, max_answer)
}

/// Estimates the usage of a prompt and its response.
pub fn estimate_usage(prompt: &Prompt, answer: &AssistantMessage) -> Usage {
    let texts = [Some(answer.text.as_str()), answer.refusal.as_deref(), answer.audio_transcript.as_deref()];
    let said: u64 = texts.into_iter().flatten().map(count_tokens).sum();
    let called: u64 =
        answer.tool_calls.iter().map(|call| count_tokens(&call.name) + count_tokens(&call.arguments)).sum();
    let reasoning = answer.reasoning.as_deref().map_or(0, count_tokens);
    let (input, output) = (prompt.token_count(), said + called);
    Usage {
        source: UsageSource::Estimated,
        prompt_tokens: Some(input),
        completion_tokens: Some(output + reasoning),
        total_tokens: Some(input + output + reasoning),
        parts: UsageParts { uncached_input: input, output, reasoning, ..UsageParts::default() },
        raw: None,
    }
}

/// Completes usage by an estimate. Input that the provider has counted stays.
pub fn complete(known: &mut Usage, estimated: Usage) {
    let (raw, prompt_tokens, input) = (known.raw.take(), known.prompt_tokens, known.parts);
    *known = estimated;
    known.raw = raw;
    if let Some(prompt) = prompt_tokens {
        known.prompt_tokens = Some(prompt);
        known.total_tokens = known.completion_tokens.map(|answer| answer.saturating_add(prompt));
        known.parts = UsageParts { output: known.parts.output, reasoning: known.parts.reasoning, ..input };
    }
}

fn count_tokens(text: &str) -> u64 {
    scaled_token_count(&text[..text.floor_char_boundary(MAX_ANSWER_BYTES)], text.len())
}

/// The tokens of a text with a length of `bytes`, extrapolated from its beginning.
fn scaled_token_count(beginning: &str, bytes: usize) -> u64 {
    let tokens = bpe_openai::o200k_base().count(beginning) as u64;
    match beginning.len() {
        0 => 0,
        counted if counted == bytes => tokens,
        counted => u64::try_from(u128::from(tokens) * bytes as u128 / counted as u128).unwrap_or(u64::MAX),
    }
}

/// A visitor for JSON values that collects text that the model reads.
struct TextCollector<'a> {
    prompt: &'a mut PromptText,
    is_collected: bool,
}

impl<'de> DeserializeSeed<'de> for TextCollector<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextCollector<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.is_collected {
            self.prompt.add(text);
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(TextCollector { prompt: self.prompt, is_collected: self.is_collected })?.is_some() {
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let is_collected = TEXT_MEMBERS.contains(&name.as_ref());
            map.next_value_seed(TextCollector { prompt: self.prompt, is_collected })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use shared::id::MessageId;

    use super::*;
    use crate::response::transcript::{Transcript, TranscriptPart};

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn prompt(messages: &str, parameters: &str) -> PromptText {
        PromptText::from_request(&raw(messages), &raw(parameters))
    }

    #[test]
    fn a_raw_prompt_counts_the_same_as_an_extracted_one() {
        let parameters = raw(r#"{"model":"m","system":"Be brief."}"#);
        for words in [1, 10, 100, 1000, 10_000] {
            let messages = raw(&format!(r#"[{{"role":"user","content":"{}"}}]"#, "word ".repeat(words)));
            let prompt = Prompt::from_request(&messages, &parameters);
            let extracted = PromptText::from_request(&messages, &parameters);
            assert_eq!(prompt.token_count(), extracted.token_count(), "{words} words");
            assert_eq!(matches!(prompt, Prompt::Raw { .. }), words < 800, "{words} words");
        }
    }

    #[test]
    fn only_the_texts_that_a_model_reads_are_counted() {
        let messages = r#"[{"role":"user","content":[{"type":"text","text":"How are you?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]"#;
        let text = prompt(messages, r#"{"model":"m","system":"Be brief.","tools":[{"name":"f"}],"user":"u"}"#);
        assert_eq!(text.text, "How are you?Be brief.f");
        assert_eq!(prompt(r#""How are you?""#, "{}").text, "How are you?");
        // Four tokens of text and four for the message.
        assert_eq!(prompt(r#"[{"role":"user","content":"How are you?"}]"#, "{}").token_count(), 8);
    }

    #[test]
    fn an_estimate_is_marked_as_estimated_and_adds_up() {
        let mut transcript = Transcript::default();
        transcript.append(TranscriptPart::Text, "Hello there");
        transcript.append(TranscriptPart::Reasoning, "hm");
        let usage = estimate_usage(&Prompt::default(), &transcript.message(MessageId(uuid::Uuid::nil())));
        assert_eq!(usage.source, UsageSource::Estimated);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (Some(0), Some(3), Some(3)));
        assert_eq!((usage.parts.output, usage.parts.reasoning), (2, 1));
        assert!(usage.raw.is_none());
    }

    #[test]
    fn long_texts_are_counted_by_their_beginning() {
        let long = format!(r#"[{{"role":"user","content":"{}"}}]"#, "word ".repeat(200_000));
        let text = prompt(&long, "{}");
        assert!(text.text.len() <= MAX_PROMPT_BYTES);
        assert!((190_000..=210_000).contains(&text.token_count()), "{}", text.token_count());
        // A single very long word must not take unbounded time.
        assert!(count_tokens(&"a".repeat(3 << 20)) > 0);
    }
}
