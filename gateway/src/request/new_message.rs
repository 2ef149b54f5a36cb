//! The message that a request adds to its conversation: the last message whose role is not the assistant's. One
//! function per dialect.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::invalid_request::{InvalidRequest, invalid_member, missing_member, not_an_object};
use crate::json::lenient::{List, Members, Object, Text};

/// A message added by the client.
#[derive(Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// The role: `user`, or `tool` for the result of a tool call (`function` in the older form of the API).
    pub role: String,
    /// The text of the message. If the content is a list of parts: the text parts, joined.
    pub text: String,
}

type ParsedMessages = Result<(Box<RawValue>, Option<NewMessage>), InvalidRequest>;

/// Finds the new message in the messages of a chat completion.
pub(super) fn from_chat_completions(members: &Members<'_>) -> ParsedMessages {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
    }
    let (messages, list) = messages_list(members)?;
    let mut new = None;
    for (index, raw) in list.iter().enumerate().rev() {
        let message: Message<'_> = serde_json::from_str(raw.get())
            .map_err(|_| invalid_member("messages", &format!("expected an object with a role at messages[{index}]")))?;
        if new.is_none() && matches!(message.role.as_ref(), "user" | "tool" | "function") {
            let text = match message.content {
                Some(content) => content_text(content).ok_or_else(|| {
                    invalid_member(
                        "messages",
                        &format!("expected text or a list of parts at messages[{index}].content"),
                    )
                })?,
                None => String::new(),
            };
            new = Some(NewMessage { role: message.role.into_owned(), text });
        }
    }
    Ok((messages, new))
}

/// Finds the new message in an Anthropic request. In this dialect the result of a tool call is a block of a user
/// message.
pub(super) fn from_anthropic_messages(members: &Members<'_>) -> ParsedMessages {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let (messages, list) = messages_list(members)?;
    let mut new = None;
    for (index, raw) in list.iter().enumerate().rev() {
        let message: Message<'_> = serde_json::from_str(raw.get()).map_err(|_| {
            invalid_member("messages", &format!("expected an object with a role and a content at messages[{index}]"))
        })?;
        if new.is_none() && message.role == "user" {
            let expected = "expected text or a list of blocks at";
            let text = content_text(message.content)
                .ok_or_else(|| invalid_member("messages", &format!("{expected} messages[{index}].content")))?;
            let results = tool_results_text(message.content);
            new = Some(match results {
                Some(results) if text.is_empty() => NewMessage { role: "tool".to_owned(), text: results },
                _ => NewMessage { role: "user".to_owned(), text },
            });
        }
    }
    Ok((messages, new))
}

/// Finds the new message in the input of a Responses request: a text or a list of items. Items of an unknown shape are
/// not an error: the upstream judges them.
pub(super) fn from_responses_input(members: &Members<'_>) -> ParsedMessages {
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(default, borrow, rename = "type")]
        kind: Text<'a>,
        #[serde(default, borrow)]
        role: Text<'a>,
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
        #[serde(default, borrow)]
        output: Option<&'a RawValue>,
    }
    let expected = "text or a list of items";
    let Some(input) = members.get("input").filter(|raw| raw.get() != "null") else {
        let continues_conversation =
            ["prompt", "previous_response_id", "conversation"].iter().any(|name| members.get(name).is_some());
        let empty_input = RawValue::from_string("[]".to_owned()).map_err(|error| not_an_object(&error))?;
        return if continues_conversation { Ok((empty_input, None)) } else { Err(missing_member("input", expected)) };
    };
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(input.get()) {
        let new = NewMessage { role: "user".to_owned(), text: text.into_owned() };
        return Ok((input.to_owned(), Some(new)));
    }
    if !input.get().starts_with('[') {
        return Err(invalid_member("input", &format!("expected {expected}")));
    }
    let List(items) = serde_json::from_str::<List<Object<Item<'_>>>>(input.get()).unwrap_or_default();
    let new = items.iter().rev().filter_map(|item| item.0.as_ref()).find_map(|item| {
        let text = |raw: Option<&RawValue>| raw.and_then(content_text).unwrap_or_default();
        if item.role.non_empty() == Some("user") {
            return Some(NewMessage { role: "user".to_owned(), text: text(item.content) });
        }
        let is_result = item.kind.non_empty().is_some_and(|kind| kind.ends_with("_output"));
        is_result.then(|| NewMessage { role: "tool".to_owned(), text: text(item.output) })
    });
    Ok((input.to_owned(), new))
}

/// The `messages` member, as sent and as a list with at least one element.
fn messages_list<'a>(members: &Members<'a>) -> Result<(Box<RawValue>, Vec<&'a RawValue>), InvalidRequest> {
    let messages = members.get("messages").ok_or_else(|| missing_member("messages", "a list of messages"))?;
    let list: Vec<&RawValue> =
        serde_json::from_str(messages.get()).map_err(|_| invalid_member("messages", "expected a list of messages"))?;
    if list.is_empty() {
        return Err(invalid_member("messages", "expected at least one message"));
    }
    Ok((messages.to_owned(), list))
}

/// The text of a message content: a string, or a list of parts of which some have text.
fn content_text(content: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Content {
        Text(String),
        Parts(Vec<ContentPart>),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ContentPart {
        Text(String),
        Object {
            #[serde(default)]
            text: Option<String>,
        },
    }
    match serde_json::from_str::<Option<Content>>(content.get()).ok()? {
        None => Some(String::new()),
        Some(Content::Text(text)) => Some(text),
        Some(Content::Parts(parts)) => Some(
            parts
                .into_iter()
                .filter_map(|part| match part {
                    ContentPart::Text(text) => Some(text),
                    ContentPart::Object { text } => text,
                })
                .collect(),
        ),
    }
}

/// The joined text of the tool results among the blocks of a message; `None` without tool results.
fn tool_results_text(content: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Block<'a> {
        #[serde(default, borrow, rename = "type")]
        kind: Text<'a>,
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
    }
    let List(blocks) = serde_json::from_str::<List<Object<Block<'_>>>>(content.get()).ok()?;
    let results = blocks.iter().filter_map(|block| block.0.as_ref());
    let results = results.filter(|block| block.kind.non_empty() == Some("tool_result"));
    let texts: Vec<String> = results.map(|block| block.content.and_then(content_text).unwrap_or_default()).collect();
    (!texts.is_empty()).then(|| texts.concat())
}
