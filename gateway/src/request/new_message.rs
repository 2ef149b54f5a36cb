//! The messages that a request adds to its conversation: the messages of the user and the tool results after the last message of
//! the assistant. One function per dialect.
//!
//! An assistant's message at the end of a request is the beginning of the answer to come, and no boundary. Instructions (`system`,
//! `developer`) are no messages of the conversation.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::{self, MAX_NEW_MESSAGES};
use shared::id::ChatId;

use super::invalid_request::{InvalidRequest, invalid_member, missing_member, not_an_object};
use crate::json::lenient::{Flag, List, Members, Object, Text, compact};

/// A message added by the client.
#[derive(Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// The role: `user`, or `tool` for the result of a tool call (`function` in the older form of the API).
    pub role: String,
    /// The text of the message. If the content is a list of parts: the text parts, joined.
    pub text: String,
    /// The id of the tool call that the message answers.
    pub tool_call_id: Option<String>,
}

/// The new messages of a request.
#[derive(Debug, Default)]
pub(super) struct NewMessages {
    /// The messages in their order: the last [`MAX_NEW_MESSAGES`].
    pub(super) messages: Vec<NewMessage>,
    /// True if the request has more new messages.
    pub(super) has_more: bool,
}

type ParsedMessages = Result<(Box<RawValue>, NewMessages), InvalidRequest>;

/// Collects new messages from the end of a request to its beginning.
#[derive(Debug, Default)]
struct Collector {
    /// The last message first.
    reversed: Vec<NewMessage>,
    has_more: bool,
    is_complete: bool,
}

impl NewMessage {
    /// Returns the new messages of a chat as in the start event, with their ids.
    pub fn with_ids(new: Vec<Self>, chat: ChatId) -> Vec<event::NewMessage> {
        let count = new.len();
        let with_id = |(index, new): (usize, Self)| event::NewMessage {
            id: chat.new_message(count - 1 - index),
            role: new.role,
            text: new.text,
            tool_call_id: new.tool_call_id,
        };
        new.into_iter().enumerate().map(with_id).collect()
    }

    fn user(text: String) -> Self {
        Self { role: "user".to_owned(), text, tool_call_id: None }
    }

    fn tool(text: String, call_id: &Text<'_>) -> Self {
        Self { role: "tool".to_owned(), text, tool_call_id: call_id.non_empty().map(str::to_owned) }
    }
}

impl Collector {
    fn push(&mut self, message: NewMessage) {
        if self.reversed.len() < MAX_NEW_MESSAGES { self.reversed.push(message) } else { self.has_more = true }
    }

    /// Takes note of a message of the assistant. All earlier messages are history, unless nothing followed this message.
    fn reach_assistant(&mut self) {
        self.is_complete |= !self.reversed.is_empty();
    }

    fn finish(mut self) -> NewMessages {
        self.reversed.reverse();
        NewMessages { messages: self.reversed, has_more: self.has_more }
    }
}

/// Finds the new messages of a chat completion.
pub(super) fn from_chat_completions(members: &Members<'_>) -> ParsedMessages {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
        #[serde(default, borrow)]
        tool_call_id: Text<'a>,
    }
    let (messages, list) = messages_list(members)?;
    let mut new = Collector::default();
    for (index, raw) in list.iter().enumerate().rev() {
        let message: Message<'_> =
            serde_json::from_str(raw.get()).map_err(|error| invalid_message("a role", index, &error))?;
        match message.role.as_ref() {
            "assistant" => new.reach_assistant(),
            "user" | "tool" | "function" if !new.is_complete => {
                let text = match message.content {
                    Some(content) => content_text(content).ok_or_else(|| {
                        invalid_member(
                            "messages",
                            &format!("expected text or a list of parts at messages[{index}].content"),
                        )
                    })?,
                    None => String::new(),
                };
                let tool_call_id = message.tool_call_id.non_empty().map(str::to_owned);
                new.push(NewMessage { role: message.role.into_owned(), text, tool_call_id });
            }
            _ => {}
        }
    }
    Ok((messages, new.finish()))
}

/// Finds the new messages of an Anthropic request. In this dialect the results of tool calls are blocks of a user message: each
/// result is a message of its own, and so is the text between results.
pub(super) fn from_anthropic_messages(members: &Members<'_>) -> ParsedMessages {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let (messages, list) = messages_list(members)?;
    let mut new = Collector::default();
    for (index, raw) in list.iter().enumerate().rev() {
        let message: Message<'_> =
            serde_json::from_str(raw.get()).map_err(|error| invalid_message("a role and a content", index, &error))?;
        match message.role.as_ref() {
            "assistant" => new.reach_assistant(),
            "user" if !new.is_complete => {
                let expected = "expected text or a list of blocks at";
                let text = content_text(message.content)
                    .ok_or_else(|| invalid_member("messages", &format!("{expected} messages[{index}].content")))?;
                match tool_results(message.content) {
                    Some(results) => results.into_iter().rev().for_each(|message| new.push(message)),
                    None => new.push(NewMessage::user(text)),
                }
            }
            _ => {}
        }
    }
    Ok((messages, new.finish()))
}

/// Finds the new messages in the input of a Responses request: a text or a list of items. Items of an unknown shape are
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
        #[serde(default, borrow)]
        call_id: Text<'a>,
        #[serde(default, borrow)]
        approval_request_id: Text<'a>,
        #[serde(default)]
        approve: Flag,
    }
    let expected = "text or a list of items";
    let Some(input) = members.get("input").filter(|raw| raw.get() != "null") else {
        let continues_conversation =
            ["prompt", "previous_response_id", "conversation"].iter().any(|name| members.get(name).is_some());
        let empty_input = RawValue::from_string("[]".to_owned()).map_err(|error| not_an_object(&error))?;
        return if continues_conversation {
            Ok((empty_input, NewMessages::default()))
        } else {
            Err(missing_member("input", expected))
        };
    };
    let mut new = Collector::default();
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(input.get()) {
        new.push(NewMessage::user(text.into_owned()));
        return Ok((input.to_owned(), new.finish()));
    }
    if !input.get().starts_with('[') {
        return Err(invalid_member("input", &format!("expected {expected}")));
    }
    let List(items) = serde_json::from_str::<List<Object<Item<'_>>>>(input.get()).unwrap_or_default();
    for item in items.iter().rev().filter_map(|item| item.0.as_ref()) {
        let text = |raw: Option<&RawValue>| raw.and_then(content_text).unwrap_or_default();
        match (item.role.non_empty(), item.kind.non_empty()) {
            (Some("user"), _) => new.push(NewMessage::user(text(item.content))),
            // A list of what each command wrote, which has no text parts.
            (_, Some("shell_call_output")) => {
                let written = Some(text(item.output)).filter(|text| !text.is_empty());
                let output = written.or_else(|| item.output.map(compact)).unwrap_or_default();
                new.push(NewMessage::tool(output, &item.call_id));
            }
            (_, Some(kind)) if kind.ends_with("_output") => {
                new.push(NewMessage::tool(text(item.output), &item.call_id));
            }
            // The user's word about a call that waits for approval.
            (_, Some("mcp_approval_response")) => {
                let Flag(approve) = item.approve;
                new.push(NewMessage::tool(format!(r#"{{"approve":{approve}}}"#), &item.approval_request_id));
            }
            (Some("assistant"), _) => new.reach_assistant(),
            (_, Some(kind)) if is_made_by_model(kind) => new.reach_assistant(),
            _ => {}
        }
        if new.is_complete {
            break;
        }
    }
    Ok((input.to_owned(), new.finish()))
}

/// True for the type of an item that an earlier response consisted of: calls, reasoning, and references to such items.
fn is_made_by_model(kind: &str) -> bool {
    kind.ends_with("_call")
        || matches!(kind, "reasoning" | "compaction" | "mcp_list_tools" | "mcp_approval_request" | "item_reference")
}

/// Finds the new messages among the contents of a Gemini request. The results of function calls are parts of a user's
/// content: each result is a message of its own, and so is the text beside the results.
pub(super) fn from_gemini_contents(members: &Members<'_>) -> ParsedMessages {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(default, borrow)]
        role: Text<'a>,
        #[serde(default, borrow)]
        parts: List<Object<Part<'a>>>,
    }
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(default, borrow)]
        text: Text<'a>,
        #[serde(default, borrow, rename = "functionResponse", alias = "function_response")]
        function_response: Object<FunctionResponse<'a>>,
    }
    #[derive(Deserialize)]
    struct FunctionResponse<'a> {
        #[serde(default, borrow)]
        id: Text<'a>,
        #[serde(default, borrow)]
        response: Option<&'a RawValue>,
    }
    let contents = members.get("contents").ok_or_else(|| missing_member("contents", "a list of contents"))?;
    let list: Vec<&RawValue> =
        serde_json::from_str(contents.get()).map_err(|_| invalid_member("contents", "expected a list of contents"))?;
    if list.is_empty() {
        return Err(invalid_member("contents", "expected at least one content"));
    }
    let mut new = Collector::default();
    for (index, raw) in list.iter().enumerate().rev() {
        let content = serde_json::from_str::<Object<Content<'_>>>(raw.get()).ok().and_then(|content| content.0);
        let content = content.ok_or_else(|| {
            invalid_member("contents", &format!("expected an object with parts at contents[{index}]"))
        })?;
        if content.role.non_empty() == Some("model") {
            new.reach_assistant();
        } else if !new.is_complete {
            let parts = || content.parts.0.iter().filter_map(|part| part.0.as_ref());
            let text: String = parts().filter_map(|part| part.text.non_empty()).collect();
            let results: Vec<_> = parts().filter_map(|part| part.function_response.0.as_ref()).collect();
            if !text.is_empty() || results.is_empty() {
                new.push(NewMessage::user(text));
            }
            for result in results.into_iter().rev() {
                new.push(NewMessage::tool(result.response.map(compact).unwrap_or_default(), &result.id));
            }
        }
    }
    Ok((contents.to_owned(), new.finish()))
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

/// The error for a message that cannot be read.
fn invalid_message(members: &str, index: usize, error: &serde_json::Error) -> InvalidRequest {
    let expected = if error.to_string().starts_with("duplicate field") {
        "one member of each name, found two of the same name,".to_owned()
    } else {
        format!("an object with {members}")
    };
    invalid_member("messages", &format!("expected {expected} at messages[{index}]"))
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

/// The messages in the blocks of a user message with tool results: one for each result, and one for each run of text between
/// results. `None` without tool results.
fn tool_results(content: &RawValue) -> Option<Vec<NewMessage>> {
    #[derive(Deserialize)]
    struct Block<'a> {
        #[serde(default, borrow, rename = "type")]
        kind: Text<'a>,
        #[serde(default, borrow)]
        tool_use_id: Text<'a>,
        #[serde(default, borrow)]
        text: Text<'a>,
        #[serde(default, borrow)]
        content: Option<&'a RawValue>,
    }
    let List(blocks) = serde_json::from_str::<List<Object<Block<'_>>>>(content.get()).ok()?;
    let is_result = |block: &Block<'_>| block.kind.non_empty() == Some("tool_result");
    let blocks = || blocks.iter().filter_map(|block| block.0.as_ref());
    if !blocks().any(is_result) {
        return None;
    }
    let (mut messages, mut text) = (Vec::new(), String::new());
    for block in blocks() {
        if is_result(block) {
            if !text.is_empty() {
                messages.push(NewMessage::user(std::mem::take(&mut text)));
            }
            let result = block.content.and_then(content_text).unwrap_or_default();
            messages.push(NewMessage::tool(result, &block.tool_use_id));
        } else {
            text.push_str(block.text.non_empty().unwrap_or_default());
        }
    }
    if !text.is_empty() {
        messages.push(NewMessage::user(text));
    }
    Some(messages)
}
