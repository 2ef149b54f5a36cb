//! The fold of a response's output: items and their parts, each of which a stream contains up to three times.

use super::item_kind::ItemKind;
use super::item_table::{ItemReference, ItemTable, Stage};
use super::part::{PartKey, PartKind};
use super::shape::{OutputItem, ResponseEvent};
use crate::response::transcript::{Transcript, TranscriptPart};

/// The maximum number of distinct parts.
const MAX_PARTS: usize = 4096;

/// The maximum size of content held aside, in bytes: of the reasoning text, and of the content of opening events.
const MAX_HELD_ASIDE_BYTES: usize = 1 << 20;

/// The output of one response.
#[derive(Debug, Default)]
pub(super) struct OutputFold {
    items: ItemTable,
    /// The parts that have been delivered, the latest last.
    delivered_parts: Vec<PartKey>,
    /// The reasoning text. Used only if there is no summary.
    reasoning_text: String,
    /// Content with which items and parts were opened. Used only for parts that no later event delivers.
    opening_content: Vec<(PartKey, String)>,
    opening_content_bytes: usize,
    /// The parts whose opening content was too large to be held aside.
    dropped_openings: Vec<PartKey>,
    /// The reasoning text is longer than what is held aside.
    is_reasoning_cut: bool,
}

/// The event that content comes from, which decides its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentSource {
    /// The event that opens an item or part. Its content is the last resort.
    Opening,
    /// The event with the complete item or part. Its content is used unless deltas have delivered the part.
    Complete,
}

impl OutputFold {
    /// Folds an event with a piece of text or with the complete text of a part.
    pub(super) fn text_event(
        &mut self,
        transcript: &mut Transcript,
        event_kind: &str,
        kind: PartKind,
        event: &ResponseEvent<'_>,
    ) {
        let Some(item) = self.items.assign(&reference(event, Stage::Within, kind.item_kind())) else {
            return note_too_many_parts(transcript);
        };
        let key = PartKey { kind, item, part: kind.part_number(event) };
        if kind == PartKind::Arguments
            && let Some(call) = self.call_index(transcript, item)
        {
            transcript.name_tool_call(call, None, event.name.non_empty());
        }
        if event_kind.ends_with(".done") {
            self.add(transcript, key, event.complete_content(), ContentSource::Complete);
        } else {
            self.append(transcript, key, event.delta.non_empty().unwrap_or(""));
        }
    }

    /// Folds an event with a part of an item.
    pub(super) fn part_event(
        &mut self,
        transcript: &mut Transcript,
        event_kind: &str,
        event: &ResponseEvent<'_>,
        source: ContentSource,
    ) {
        let Some(part) = &event.part.0 else { return };
        let is_of_message = !event_kind.starts_with("response.reasoning_");
        if is_of_message && source == ContentSource::Complete && PartKind::is_unrecorded(part, ItemKind::Message) {
            transcript.has_unrecorded_content = true;
        }
        if part.content().is_empty() {
            return;
        }
        let kind = match event_kind.strip_prefix("response.reasoning_") {
            Some(rest) if rest.starts_with("summary") => Some(PartKind::Summary),
            Some(_) => PartKind::of_content(part, ItemKind::Reasoning),
            None => PartKind::of_content(part, ItemKind::Message),
        };
        if let Some(kind) = kind
            && let Some(item) = self.items.assign(&reference(event, Stage::Within, kind.item_kind()))
        {
            let key = PartKey { kind, item, part: kind.part_number(event) };
            self.add(transcript, key, part.content(), source);
        }
    }

    /// Folds the event that opens an item.
    pub(super) fn open_item(&mut self, transcript: &mut Transcript, event: &ResponseEvent<'_>) {
        self.item_event(transcript, event, Stage::Opened, ContentSource::Opening);
    }

    /// Folds the event with a complete item: content that no earlier event has delivered is taken from the item.
    pub(super) fn finish_item(&mut self, transcript: &mut Transcript, event: &ResponseEvent<'_>) {
        self.item_event(transcript, event, Stage::Done, ContentSource::Complete);
    }

    /// Replaces all content by that of the final output. Content of which the final output has nothing is kept: the
    /// client has seen that content.
    pub(super) fn replace(&mut self, transcript: &mut Transcript, items: &[OutputItem<'_>]) {
        let texts = [
            (TranscriptPart::Text, std::mem::take(&mut transcript.text)),
            (TranscriptPart::Reasoning, std::mem::take(&mut transcript.reasoning)),
            (TranscriptPart::Refusal, std::mem::take(&mut transcript.refusal)),
            (TranscriptPart::AudioTranscript, std::mem::take(&mut transcript.audio_transcript)),
        ];
        let calls = std::mem::take(&mut transcript.tool_calls);
        let Self { reasoning_text, is_reasoning_cut, .. } = std::mem::take(self);
        let has_unrecorded_content = transcript.has_unrecorded_content;
        transcript.clear_content();
        transcript.has_unrecorded_content = has_unrecorded_content;
        for item in items {
            let kind = ItemKind::of(item);
            if kind != ItemKind::Unrecorded
                && let Some(position) = self.items.push(kind)
            {
                self.fold_item(transcript, position, item, ContentSource::Complete);
            }
        }
        for (part, words) in texts {
            let replaced = match part {
                TranscriptPart::Text => transcript.text.is_empty(),
                TranscriptPart::Reasoning => transcript.reasoning.is_empty() && self.reasoning_text.is_empty(),
                TranscriptPart::Refusal => transcript.refusal.is_empty(),
                TranscriptPart::AudioTranscript => transcript.audio_transcript.is_empty(),
                TranscriptPart::Arguments(_) => false,
            };
            if replaced && !words.is_empty() {
                transcript.append(part, &words);
                transcript.note("final_output_incomplete");
            }
        }
        if transcript.reasoning.is_empty() && self.reasoning_text.is_empty() && !reasoning_text.is_empty() {
            (self.reasoning_text, self.is_reasoning_cut) = (reasoning_text, is_reasoning_cut);
            transcript.note("final_output_incomplete");
        }
        if transcript.tool_calls.is_empty() && !calls.is_empty() {
            for call in calls {
                if let Some(index) = transcript.open_tool_call() {
                    transcript.name_tool_call(index, Some(&call.id), Some(&call.name));
                    transcript.append(TranscriptPart::Arguments(index), &call.arguments);
                }
            }
            transcript.note("final_output_incomplete");
        }
    }

    /// Adds the content held aside to the transcript. Called once, after the end.
    pub(super) fn finish(&mut self, transcript: &mut Transcript) {
        let opening_content = std::mem::take(&mut self.opening_content);
        // In a response that breaks off, an item may have been opened with a mere beginning of its content.
        if transcript.is_ended {
            for (key, content) in opening_content {
                self.add(transcript, key, &content, ContentSource::Complete);
            }
            if self.dropped_openings.iter().any(|key| !self.delivered_parts.contains(key)) {
                transcript.mark_truncated();
            }
        }
        let text = std::mem::take(&mut self.reasoning_text);
        if transcript.reasoning.is_empty() {
            transcript.append(TranscriptPart::Reasoning, &text);
            if self.is_reasoning_cut {
                transcript.mark_truncated();
            }
        }
    }

    fn item_event(
        &mut self,
        transcript: &mut Transcript,
        event: &ResponseEvent<'_>,
        stage: Stage,
        source: ContentSource,
    ) {
        let Some(item) = &event.item.0 else { return };
        let kind = ItemKind::of(item);
        if kind == ItemKind::Unrecorded {
            return;
        }
        let item_id = item.id.non_empty().or(event.item_id.non_empty());
        let reference = ItemReference { item_id, call_id: item.call_id.non_empty(), ..reference(event, stage, kind) };
        match self.items.assign(&reference) {
            Some(position) => self.fold_item(transcript, position, item, source),
            None => note_too_many_parts(transcript),
        }
    }

    fn fold_item(
        &mut self,
        transcript: &mut Transcript,
        position: usize,
        item: &OutputItem<'_>,
        source: ContentSource,
    ) {
        let item_kind = ItemKind::of(item);
        let key = |kind, part| PartKey { kind, item: position, part };
        match item_kind {
            ItemKind::ClientCall => {
                if let Some(call) = self.call_index(transcript, position) {
                    transcript.name_tool_call(call, item.tool_call_id(), item.tool_name());
                    self.add(transcript, key(PartKind::Arguments, 0), item.tool_arguments(), source);
                }
            }
            ItemKind::ServerCall => {
                if let Some(known) = self.items.get_mut(position)
                    && !std::mem::replace(&mut known.is_counted, true)
                {
                    transcript.server_tool_calls += 1;
                }
            }
            ItemKind::Message | ItemKind::Reasoning => {
                for (part, content) in (0..).zip(item.contents()) {
                    if let Some(kind) = PartKind::of_content(content, item_kind) {
                        self.add(transcript, key(kind, part), content.content(), source);
                    }
                    if source == ContentSource::Complete && PartKind::is_unrecorded(content, item_kind) {
                        transcript.has_unrecorded_content = true;
                    }
                }
                if let Some(text) = item.bare_text() {
                    let kind = if item_kind == ItemKind::Message { PartKind::Text } else { PartKind::Reasoning };
                    self.add(transcript, key(kind, 0), text, source);
                }
                for (part, summary) in (0..).zip(item.summaries()) {
                    self.add(transcript, key(PartKind::Summary, part), summary.content(), source);
                }
            }
            ItemKind::Unrecorded => {}
        }
    }

    /// Adds the content of a part, unless earlier events have delivered the part.
    fn add(&mut self, transcript: &mut Transcript, key: PartKey, words: &str, source: ContentSource) {
        if words.is_empty() || self.delivered_parts.contains(&key) {
            return;
        }
        match source {
            ContentSource::Complete => self.append(transcript, key, words),
            ContentSource::Opening => {
                let size = self.opening_content_bytes + words.len();
                if size <= MAX_HELD_ASIDE_BYTES && self.opening_content.len() < MAX_PARTS {
                    self.opening_content_bytes = size;
                    self.opening_content.push((key, words.to_owned()));
                } else if self.dropped_openings.len() < MAX_PARTS {
                    self.dropped_openings.push(key);
                }
            }
        }
    }

    fn append(&mut self, transcript: &mut Transcript, key: PartKey, words: &str) {
        if words.is_empty() {
            return;
        }
        if self.delivered_parts.last() != Some(&key) && !self.delivered_parts.contains(&key) {
            if self.delivered_parts.len() == MAX_PARTS {
                return note_too_many_parts(transcript);
            }
            self.delivered_parts.push(key);
        }
        match key.kind {
            PartKind::Text => transcript.append(TranscriptPart::Text, words),
            PartKind::Refusal => transcript.append(TranscriptPart::Refusal, words),
            PartKind::Summary => transcript.append(TranscriptPart::Reasoning, words),
            PartKind::AudioTranscript => transcript.append(TranscriptPart::AudioTranscript, words),
            PartKind::Reasoning => {
                let room = MAX_HELD_ASIDE_BYTES.saturating_sub(self.reasoning_text.len());
                self.is_reasoning_cut |= words.len() > room;
                self.reasoning_text.push_str(&words[..words.floor_char_boundary(room)]);
            }
            PartKind::Arguments => {
                if let Some(call) = self.call_index(transcript, key.item) {
                    transcript.append(TranscriptPart::Arguments(call), words);
                }
            }
        }
    }

    /// The index of the tool call for an item. Opens the tool call if necessary. `None` for a call of the provider's
    /// own tools.
    fn call_index(&mut self, transcript: &mut Transcript, position: usize) -> Option<usize> {
        let item = self.items.get_mut(position).filter(|item| !item.is_counted)?;
        if item.call.is_none() {
            item.call = transcript.open_tool_call();
        }
        item.call
    }
}

/// Notes that content was left out, because the response has too many items or parts.
fn note_too_many_parts(transcript: &mut Transcript) {
    transcript.note("too_many_parts");
    transcript.mark_truncated();
}

/// The members of an event that tell its item.
fn reference<'e>(event: &'e ResponseEvent<'_>, stage: Stage, kind: ItemKind) -> ItemReference<'e> {
    let (output_index, item_id) = (event.output_index.0, event.item_id.non_empty());
    ItemReference { stage, kind: Some(kind), output_index, item_id, call_id: None }
}
