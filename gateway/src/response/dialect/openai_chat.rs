//! OpenAI chat completions, as OpenAI and everyone who says "compatible" send them.
//!
//! Looser than any SDK: what cannot be read is passed over and noted. The rules where providers differ:
//!
//! - text is that of choice 0, the other choices are kept beside it; a content in parts gives its text parts, an object its compact JSON;
//! - reasoning is, per delta, the first that is filled of `reasoning_content`, `reasoning`, `reasoning_text`, the thinking
//!   parts of the content, and the texts or summaries of `reasoning_details`;
//! - a tool call's id and name are the first non-empty ones; another non-empty id on a known index opens a new call;
//!   a delta without an index opens a call if it has an id, else extends the last;
//! - usage is the last that came, never a sum: top level, else on a choice, else under `x_groq`;
//! - an error within the stream ends it: clients raise it and read no further; one on a choice they do not see, so that it
//!   ends nothing.

mod plain;
mod shape;
mod template;

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::error_shape::{error_in, error_object, spoken};
use super::json_values::each_value;
use super::signal::Signal;
use crate::json::lenient::{Text, compact};
use crate::json::repair::righted;
use crate::response::sse::{SseEvent, is_done};
use crate::response::transcript::{Part, Transcript};
use plain::Plain;
use shape::{Choice, Chunk, Content, Delta, FunctionDelta};
use template::Template;

/// The fold of one answer.
#[derive(Debug, Default)]
pub struct Fold {
    /// What it has come to so far.
    pub transcript: Transcript,
    /// The tool calls of choice 0.
    calls: Calls,
    /// Those of the other choices.
    other_calls: Vec<(u64, Calls)>,
    /// Where the usage came from that stands.
    usage_place: Option<UsagePlace>,
    /// What the chunks have in common.
    template: Template,
}

/// The `index` that each tool call of a choice was opened with.
type Calls = Vec<Option<u64>>;

/// Where usage is looked for; a later word goes before an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum UsagePlace {
    Groq,
    Choice,
    Top,
}

/// What a chunk says of a choice: what is new, or all of it. Some have both in one, and fill only the one that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// In a stream: `delta`, what is new.
    Delta,
    /// In a document: `message`, all of it.
    Message,
}

impl Fold {
    /// Folds one event of a stream.
    pub fn event(&mut self, event: &SseEvent<'_>) -> Signal {
        let Some(data) = event.data else { return Signal::Pass };
        if is_done(data) {
            self.transcript.ended = true;
            return Signal::End;
        }
        if event.name == "error" && error_in(data).is_none() {
            self.transcript.fail(spoken(data));
            return Signal::End;
        }
        self.chunk(data, Said::Delta)
    }

    /// Folds an answer that is one JSON document, or several in a row.
    pub fn document(&mut self, body: &[u8]) {
        each_value(body, |json| {
            self.chunk(json, Said::Message);
        });
    }

    fn chunk(&mut self, json: &[u8], said: Said) -> Signal {
        if said == Said::Delta
            && let Some((part, text)) = self.template.text(json)
        {
            self.transcript.push(part, &text);
            return Signal::Pass;
        }
        // Found to be UTF-8 once for the whole, not once for each string in it.
        let text = std::str::from_utf8(json);
        if let (Ok(text), Said::Delta) = (text, said)
            && let Some(plain) = Plain::read(text)
        {
            self.plain(&plain);
            self.template.learn(text, &plain);
            return Signal::Pass;
        }
        self.chunk_of_any_kind(json, text.ok(), said)
    }

    /// A chunk that is what most are.
    fn plain(&mut self, chunk: &Plain<'_>) {
        let transcript = &mut self.transcript;
        transcript.identify(filled(chunk.id), filled(chunk.model));
        if let Some(reason) = filled(chunk.finish_reason) {
            transcript.finish(reason);
        }
        transcript.push(Part::Text, &chunk.content);
        let reasoning = chunk.reasoning.iter().find(|reasoning| !reasoning.is_empty());
        transcript.push(Part::Reasoning, reasoning.map_or("", |reasoning| reasoning.as_ref()));
        transcript.push(Part::Refusal, &chunk.refusal);
    }

    /// A chunk, or a whole answer, whatever is in it.
    fn chunk_of_any_kind(&mut self, json: &[u8], text: Option<&str>, said: Said) -> Signal {
        let read = match text {
            Some(text) => serde_json::from_str(text),
            None => serde_json::from_slice(json),
        };
        let chunk: Chunk<'_> = match read {
            Ok(chunk) => chunk,
            Err(_) => return self.unreadable(json, said),
        };
        self.transcript.identify(chunk.id.filled(), chunk.model.filled());
        let groq = chunk.x_groq.0;
        let has_choices = !chunk.choices.0.is_empty();
        let error = match chunk.error.or(groq.as_ref().and_then(|groq| groq.error)) {
            Some(raw) => error_object(raw).and_then(|error| error_in(json).or(Some(error))),
            None if !has_choices && chunk.usage.is_none() => error_in(json),
            None => None,
        };
        if let Some(usage) = groq.and_then(|groq| groq.usage) {
            self.usage(UsagePlace::Groq, usage);
        }
        for choice in chunk.choices.0.into_iter().filter_map(|choice| choice.0) {
            if let Some(usage) = choice.usage {
                self.usage(UsagePlace::Choice, usage);
            }
            self.choice(choice, said);
        }
        if let Some(usage) = chunk.usage {
            self.usage(UsagePlace::Top, usage);
        }
        match error {
            Some(error) => {
                self.transcript.fail(error);
                Signal::End
            }
            None if !has_choices && chunk.usage.is_some() => Signal::UsageOnly,
            None => Signal::Pass,
        }
    }

    fn unreadable(&mut self, json: &[u8], said: Said) -> Signal {
        if let Some((righted, note)) = righted(json) {
            self.transcript.note(note);
            return self.chunk(righted.as_bytes(), said);
        }
        if let Some(error) = error_in(json) {
            self.transcript.fail(error);
            return Signal::End;
        }
        self.transcript.note("unreadable_chunk");
        Signal::Pass
    }

    fn usage(&mut self, place: UsagePlace, usage: &RawValue) {
        if self.usage_place <= Some(place) {
            self.usage_place = Some(place);
            self.transcript.report(usage);
        }
    }

    fn choice(&mut self, choice: Choice<'_>, said: Said) {
        let index = choice.index.0.unwrap_or(0);
        let (transcript, calls) = if index == 0 {
            (&mut self.transcript, &mut self.calls)
        } else {
            self.transcript.note("several_choices");
            let Some(transcript) = self.transcript.other(index) else { return };
            let known = self.other_calls.iter().position(|(number, _)| *number == index);
            let place = known.unwrap_or_else(|| {
                self.other_calls.push((index, Calls::new()));
                self.other_calls.len() - 1
            });
            (transcript, &mut self.other_calls[place].1)
        };
        if let Some(reason) = choice.finish_reason.filled() {
            transcript.finish(reason);
        }
        if let Some(error) = choice.error.and_then(error_object) {
            transcript.fail(error);
        }
        match (choice.delta.0, choice.message.0, said) {
            (_, Some(message), Said::Message) | (None, Some(message), Said::Delta) => {
                fold_delta(transcript, calls, message, Said::Message);
            }
            (Some(delta), _, _) => fold_delta(transcript, calls, delta, Said::Delta),
            (None, None, _) => {}
        }
    }
}

fn filled(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn fold_delta(transcript: &mut Transcript, calls: &mut Calls, delta: Delta<'_>, said: Said) {
    let (text, thinking) = match delta.content {
        Some(Content::Text(text)) => (text, String::new()),
        Some(Content::Parts { text, thinking }) => (Cow::Owned(text), thinking),
        Some(Content::Nothing) | None => (Cow::Borrowed(""), String::new()),
    };
    transcript.push(Part::Text, &text);
    let reasoning = [&delta.reasoning_content, &delta.reasoning, &delta.reasoning_text]
        .into_iter()
        .find_map(Text::filled)
        .or(Some(thinking.as_str()).filter(|thinking| !thinking.is_empty()));
    if let Some(reasoning) = reasoning {
        transcript.push(Part::Reasoning, reasoning);
    } else {
        for detail in delta.reasoning_details.0.iter().filter_map(|detail| detail.0.as_ref()) {
            let words = detail.text.filled().or(detail.summary.filled()).unwrap_or("");
            transcript.push(Part::Reasoning, words);
        }
    }
    transcript.push(Part::Refusal, delta.refusal.filled().unwrap_or(""));
    if let Some(audio) = &delta.audio.0 {
        transcript.push(Part::AudioTranscript, audio.transcript.filled().unwrap_or(""));
    }
    for mut call in delta.tool_calls.0.into_iter().filter_map(|call| call.0) {
        let (index, id) = (call.index.0, std::mem::take(&mut call.id));
        let known = match said {
            Said::Delta => known_call(transcript, calls, index, id.filled()),
            Said::Message => None,
        };
        fold_call(transcript, calls, known, index, id.filled(), call.called().as_ref());
    }
    // Some fill in every field that there is, with nothing.
    if let Some(function) = delta.function_call.0.as_ref().filter(|function| function.says_anything()) {
        let known = known_call(transcript, calls, Some(0), None);
        fold_call(transcript, calls, known, Some(0), None, Some(function));
    }
}

/// The place of the call that a delta goes on with.
fn known_call(transcript: &Transcript, calls: &Calls, index: Option<u64>, id: Option<&str>) -> Option<usize> {
    let place = match index {
        Some(_) => calls.iter().rposition(|known| *known == index),
        None if id.is_some() => None,
        None => calls.len().checked_sub(1),
    }?;
    let known = &transcript.tool_calls[place].id;
    id.is_none_or(|id| known.is_empty() || known == id).then_some(place)
}

fn fold_call(
    transcript: &mut Transcript,
    calls: &mut Calls,
    known: Option<usize>,
    index: Option<u64>,
    id: Option<&str>,
    function: Option<&FunctionDelta<'_>>,
) {
    let Some(place) = known.or_else(|| {
        calls.push(index);
        transcript.open_call()
    }) else {
        calls.pop();
        return;
    };
    transcript.name_call(place, id, function.and_then(|function| function.name.filled()));
    if let Some(arguments) = function.and_then(|function| function.arguments) {
        // Text, almost always; some send the object itself.
        let text = serde_json::from_str::<Cow<'_, str>>(arguments.get());
        let text = text.unwrap_or_else(|_| Cow::Owned(compact(arguments)));
        transcript.push(Part::Arguments(place), &text);
    }
}
