//! The events and items of a response, as lenient serde types: members of unexpected types are absent.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::lenient::{Count, List, Object, Text};
use crate::json::text_or_json::TextOrJson;

/// The data of an event, for all event types.
#[derive(Deserialize)]
pub(super) struct ResponseEvent<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default)]
    pub(super) sequence_number: Count,
    #[serde(default)]
    pub(super) output_index: Count,
    #[serde(default, borrow)]
    pub(super) item_id: Text<'a>,
    #[serde(default)]
    pub(super) content_index: Count,
    #[serde(default)]
    pub(super) summary_index: Count,
    #[serde(default, borrow)]
    pub(super) delta: Text<'a>,
    #[serde(default, borrow)]
    pub(super) name: Text<'a>,
    #[serde(default, borrow)]
    pub(super) part: Object<ItemContentPart<'a>>,
    #[serde(default, borrow)]
    pub(super) item: Object<OutputItem<'a>>,
    #[serde(default, borrow)]
    pub(super) response: Object<ResponseObject<'a>>,
    /// Usage beside the response.
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
    /// The complete text of a part, in the event that ends the part.
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    refusal: Text<'a>,
    #[serde(default, borrow)]
    transcript: Text<'a>,
    #[serde(default, borrow)]
    arguments: TextOrJson<'a>,
    #[serde(default, borrow)]
    input: TextOrJson<'a>,
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
    /// The text of all messages, which some imitations send in place of `output`.
    #[serde(default, borrow)]
    pub(super) output_text: Text<'a>,
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
    pub(super) execution: Text<'a>,
    #[serde(default, borrow)]
    name: Text<'a>,
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    environment: Object<Environment<'a>>,
    #[serde(default, borrow)]
    arguments: TextOrJson<'a>,
    #[serde(default, borrow)]
    input: TextOrJson<'a>,
    #[serde(default, borrow)]
    action: TextOrJson<'a>,
    #[serde(default, borrow)]
    actions: TextOrJson<'a>,
    #[serde(default, borrow)]
    operation: TextOrJson<'a>,
    #[serde(default, borrow)]
    content: ItemContent<'a>,
    #[serde(default, borrow)]
    summary: ItemContent<'a>,
}

/// The place where a shell call runs.
#[derive(Deserialize)]
struct Environment<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Text<'a>,
}

/// The content of an item: parts. Some imitations send plain text.
#[derive(Default)]
struct ItemContent<'a>(Vec<ItemContentPart<'a>>);

/// A part of the content or summary of an item.
#[derive(Default, Deserialize)]
pub(super) struct ItemContentPart<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default, borrow)]
    refusal: Text<'a>,
    #[serde(default, borrow)]
    transcript: Text<'a>,
}

impl ResponseEvent<'_> {
    /// The complete content of the part that the event ends.
    pub(super) fn complete_content(&self) -> &str {
        let texts = [&self.text, &self.refusal, &self.transcript];
        match texts.into_iter().find_map(Text::non_empty) {
            Some(text) => text,
            None => self.arguments.non_empty().or(self.input.non_empty()).unwrap_or(""),
        }
    }
}

impl OutputItem<'_> {
    /// The id of a tool call: the one that the client's answer names.
    pub(super) fn tool_call_id(&self) -> Option<&str> {
        self.call_id.non_empty().or(self.id.non_empty())
    }

    /// The name of a tool call: that of the tool, else the type of the item.
    pub(super) fn tool_name(&self) -> Option<&str> {
        let named_tool = matches!(self.kind.non_empty(), Some("function_call" | "custom_tool_call"));
        self.name.non_empty().or(self.kind.non_empty().filter(|_| !named_tool))
    }

    /// The arguments of a tool call: a string, or the JSON of what the client is asked to do.
    pub(super) fn tool_arguments(&self) -> &str {
        let members = [&self.arguments, &self.input, &self.action, &self.actions, &self.operation];
        members.into_iter().find_map(TextOrJson::non_empty).unwrap_or("")
    }

    /// True if a shell call runs in a container of the provider, and not at the client.
    pub(super) fn runs_in_container(&self) -> bool {
        let environment = self.environment.0.as_ref().and_then(|environment| environment.kind.non_empty());
        environment.is_some_and(|kind| kind.starts_with("container"))
    }

    /// True if the item has content parts or text.
    pub(super) fn has_content(&self) -> bool {
        !self.content.0.is_empty() || self.text.non_empty().is_some()
    }

    /// The text of an item without parts.
    pub(super) fn bare_text(&self) -> Option<&str> {
        self.text.non_empty().filter(|_| self.content.0.is_empty())
    }

    /// The parts of the item's content.
    pub(super) fn contents(&self) -> &[ItemContentPart<'_>] {
        &self.content.0
    }

    /// The parts of the item's reasoning summary.
    pub(super) fn summaries(&self) -> &[ItemContentPart<'_>] {
        &self.summary.0
    }
}

impl ItemContentPart<'_> {
    /// The text, refusal or transcript of the part.
    pub(super) fn content(&self) -> &str {
        let texts = [&self.text, &self.refusal, &self.transcript];
        texts.into_iter().find_map(Text::non_empty).unwrap_or("")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ItemContent<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&'a RawValue>::deserialize(deserializer)?.get();
        let read = if json.starts_with('"') {
            serde_json::from_str(json).map(|text| vec![ItemContentPart { text, ..ItemContentPart::default() }])
        } else {
            serde_json::from_str::<List<Object<ItemContentPart<'_>>>>(json)
                .map(|List(parts)| parts.into_iter().map(|part| part.0.unwrap_or_default()).collect())
        };
        read.map(Self).map_err(serde::de::Error::custom)
    }
}
