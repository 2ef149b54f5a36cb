//! The events and items of a response, as lenient serde types: members of unexpected types are absent.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::lenient::{BorrowedText, Count, List, Object, Text, compact};

/// The data of an event, for all event types.
#[derive(Deserialize)]
pub(super) struct ResponseEvent<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default)]
    pub(super) output_index: Count,
    #[serde(default)]
    pub(super) content_index: Count,
    #[serde(default)]
    pub(super) summary_index: Count,
    #[serde(default, borrow)]
    pub(super) delta: Text<'a>,
    #[serde(default, borrow)]
    pub(super) item: Object<OutputItem<'a>>,
    #[serde(default, borrow)]
    pub(super) response: Object<ResponseObject<'a>>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// A response object, complete or in progress.
#[derive(Deserialize)]
pub(super) struct ResponseObject<'a> {
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) model: Text<'a>,
    #[serde(default, borrow)]
    pub(super) status: Text<'a>,
    #[serde(default, borrow)]
    pub(super) incomplete_details: Object<IncompleteDetails<'a>>,
    #[serde(default, borrow)]
    pub(super) output: Option<List<Object<OutputItem<'a>>>>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// The reason for which a response is incomplete.
#[derive(Deserialize)]
pub(super) struct IncompleteDetails<'a> {
    #[serde(default, borrow)]
    pub(super) reason: Text<'a>,
}

/// An item of a response's output.
#[derive(Deserialize)]
pub(super) struct OutputItem<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) call_id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) name: Text<'a>,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
    #[serde(default, borrow)]
    content: List<Object<ItemContentPart<'a>>>,
    #[serde(default, borrow)]
    summary: List<Object<ItemContentPart<'a>>>,
}

/// A part of the content or summary of an item.
#[derive(Deserialize)]
pub(super) struct ItemContentPart<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default, borrow)]
    pub(super) text: Text<'a>,
    #[serde(default, borrow)]
    pub(super) refusal: Text<'a>,
}

impl<'a> OutputItem<'a> {
    /// The arguments of a function call. Some providers send an object in place of a string.
    pub(super) fn arguments(&self) -> Cow<'a, str> {
        text_or_json(self.arguments)
    }

    /// The input of a custom tool call.
    pub(super) fn input(&self) -> Cow<'a, str> {
        text_or_json(self.input)
    }

    /// The parts of the item's content.
    pub(super) fn contents(&self) -> impl Iterator<Item = &ItemContentPart<'a>> {
        parts(&self.content)
    }

    /// The parts of the item's reasoning summary.
    pub(super) fn summaries(&self) -> impl Iterator<Item = &ItemContentPart<'a>> {
        parts(&self.summary)
    }
}

fn parts<'p, 'a>(parts: &'p List<Object<ItemContentPart<'a>>>) -> impl Iterator<Item = &'p ItemContentPart<'a>> {
    parts.0.iter().filter_map(|part| part.0.as_ref())
}

fn text_or_json(raw: Option<&RawValue>) -> Cow<'_, str> {
    let Some(raw) = raw else { return Cow::Borrowed("") };
    match serde_json::from_str(raw.get()) {
        Ok(BorrowedText(text)) => text,
        Err(_) => Cow::Owned(compact(raw)),
    }
}
