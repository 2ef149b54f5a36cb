//! The parts of items: texts, refusals, summaries, arguments, each with a key.

use super::item_kind::ItemKind;
use super::shape::{ItemContentPart, ResponseEvent};

/// The key of a part within an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartKey {
    pub(super) kind: PartKind,
    /// The position of the item in the table of items.
    pub(super) item: usize,
    pub(super) part: u64,
}

/// The kind of a part, which decides its place in the transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    Text,
    Refusal,
    Summary,
    Reasoning,
    AudioTranscript,
    Arguments,
}

impl PartKind {
    /// The kind of part that an event with text is about. Older names and those of the Realtime API are included.
    pub(super) fn of_event(event_kind: &str) -> Option<Self> {
        let name = event_kind.strip_prefix("response.")?;
        let name = name.strip_suffix(".delta").or_else(|| name.strip_suffix(".done"))?;
        Some(match name {
            "output_text" | "text" => Self::Text,
            "refusal" => Self::Refusal,
            "reasoning_summary_text" | "reasoning_summary" => Self::Summary,
            "reasoning_text" | "reasoning" | "reasoning_content" => Self::Reasoning,
            "audio.transcript" | "audio_transcript" | "output_audio_transcript" => Self::AudioTranscript,
            "function_call_arguments" | "custom_tool_call_input" => Self::Arguments,
            _ => return None,
        })
    }

    /// The kind of a content part. `None` for content that is not recorded.
    pub(super) fn of_content(part: &ItemContentPart<'_>, item_kind: ItemKind) -> Option<Self> {
        Some(match part.kind.non_empty().unwrap_or("") {
            "refusal" => Self::Refusal,
            "reasoning_text" => Self::Reasoning,
            _ if item_kind == ItemKind::Reasoning => Self::Reasoning,
            "output_text" | "text" | "" => Self::Text,
            "output_audio" | "audio" => Self::AudioTranscript,
            _ => return None,
        })
    }

    /// True if a part has content that is not recorded: a picture, a file, a sound without a transcript.
    pub(super) fn is_unrecorded(part: &ItemContentPart<'_>, item_kind: ItemKind) -> bool {
        match Self::of_content(part, item_kind) {
            None => true,
            Some(kind) => kind == Self::AudioTranscript && part.content().is_empty(),
        }
    }

    /// The kind of item that the part belongs to.
    pub(super) fn item_kind(self) -> ItemKind {
        match self {
            Self::Text | Self::Refusal | Self::AudioTranscript => ItemKind::Message,
            Self::Summary | Self::Reasoning => ItemKind::Reasoning,
            Self::Arguments => ItemKind::ClientCall,
        }
    }

    /// The number of the part that an event is about.
    pub(super) fn part_number(self, event: &ResponseEvent<'_>) -> u64 {
        if self == Self::Arguments { 0 } else { event.content_index.0.or(event.summary_index.0).unwrap_or(0) }
    }
}
