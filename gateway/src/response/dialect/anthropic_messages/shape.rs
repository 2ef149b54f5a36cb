//! The events and blocks of a message, as lenient serde types: members of unexpected types are absent.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::lenient::{Count, List, Members, Object, Text};
use crate::json::text_or_json::TextOrJson;

/// The data of an event, for all event types.
#[derive(Deserialize)]
pub(super) struct MessageEvent<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default)]
    pub(super) index: Count,
    #[serde(default, borrow)]
    pub(super) message: Object<MessageObject<'a>>,
    #[serde(default, borrow)]
    pub(super) content_block: Object<ContentBlock<'a>>,
    #[serde(default, borrow)]
    pub(super) delta: Object<BlockDelta<'a>>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
    /// The usage as Amazon Bedrock sends it with the last event.
    #[serde(default, rename = "amazon-bedrock-invocationMetrics")]
    pub(super) invocation_metrics: Object<InvocationMetrics>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// Counts of tokens in the words of Amazon Bedrock.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InvocationMetrics {
    #[serde(default)]
    pub(super) input_token_count: Count,
    #[serde(default)]
    pub(super) output_token_count: Count,
    #[serde(default)]
    pub(super) cache_read_input_token_count: Count,
    #[serde(default)]
    pub(super) cache_write_input_token_count: Count,
}

/// A message, complete or at its start.
#[derive(Deserialize)]
pub(super) struct MessageObject<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) model: Text<'a>,
    #[serde(default, borrow)]
    pub(super) content: Option<MessageContent<'a>>,
    #[serde(default, borrow)]
    pub(super) stop_reason: Text<'a>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
}

/// The content of a message: blocks. Some providers send plain text.
pub(super) enum MessageContent<'a> {
    Text(Cow<'a, str>),
    Blocks(List<Object<ContentBlock<'a>>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for MessageContent<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&'a RawValue>::deserialize(deserializer)?.get();
        let read = if json.starts_with('"') {
            serde_json::from_str::<Text<'_>>(json).map(|text| Self::Text(text.0.unwrap_or_default()))
        } else {
            serde_json::from_str(json).map(Self::Blocks)
        };
        read.map_err(serde::de::Error::custom)
    }
}

/// A block of a message's content.
#[derive(Deserialize)]
pub(super) struct ContentBlock<'a> {
    #[serde(default, borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(default, borrow)]
    pub(super) text: Text<'a>,
    #[serde(default, borrow)]
    pub(super) thinking: Text<'a>,
    #[serde(default, borrow)]
    pub(super) id: Text<'a>,
    #[serde(default, borrow)]
    pub(super) name: Text<'a>,
    #[serde(default, borrow)]
    pub(super) input: TextOrJson<'a>,
    /// The model that takes over, in a block of the type `fallback`.
    #[serde(default, borrow)]
    pub(super) to: Object<ServingModel<'a>>,
}

/// The model that serves the rest of a message.
#[derive(Deserialize)]
pub(super) struct ServingModel<'a> {
    #[serde(default, borrow)]
    pub(super) model: Text<'a>,
}

/// An addition to a block or to the message.
#[derive(Deserialize)]
pub(super) struct BlockDelta<'a> {
    #[serde(default, borrow)]
    pub(super) text: Text<'a>,
    #[serde(default, borrow)]
    pub(super) thinking: Text<'a>,
    #[serde(default, borrow)]
    pub(super) partial_json: Text<'a>,
    #[serde(default, borrow)]
    pub(super) stop_reason: Text<'a>,
    #[serde(default, borrow)]
    pub(super) usage: Option<&'a RawValue>,
}

impl InvocationMetrics {
    /// The counts as a usage object in Anthropic's words. `None` without any count.
    pub(super) fn to_usage(&self) -> Option<Box<RawValue>> {
        let counts = [
            ("input_tokens", self.input_token_count),
            ("output_tokens", self.output_token_count),
            ("cache_read_input_tokens", self.cache_read_input_token_count),
            ("cache_creation_input_tokens", self.cache_write_input_token_count),
        ];
        let counts: Vec<_> = counts.iter().filter_map(|(name, count)| Some((*name, count.0?.to_string()))).collect();
        let usage = Members::to_json(counts.iter().map(|(name, count)| (*name, count.as_str())));
        RawValue::from_string(usage).ok().filter(|_| !counts.is_empty())
    }
}
