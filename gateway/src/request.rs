//! What the client asks: read once at the edge, forwarded as it was sent.
//!
//! The body is taken apart into its members without touching their values, so that whatever else the client sent reaches
//! the upstream unchanged, and the record too.

pub mod caller_metadata;
pub mod conversation_id;
mod invalid_request;
mod new_message;
#[cfg(test)]
mod tests;
pub mod thread_id;
pub mod ui_message;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::DialectName;

use self::invalid_request::{invalid_member, missing_member, not_an_object};
use crate::json::lenient::Members;

pub use invalid_request::InvalidRequest;
pub use new_message::NewMessage;

/// A chat request, understood as far as the gateway needs to.
#[derive(Debug)]
pub struct ChatRequest {
    /// The wire format.
    pub dialect: DialectName,
    /// The model asked for.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The sampling temperature asked for.
    pub temperature: Option<f64>,
    /// The conversation that the body names, if it does.
    pub conversation_id: Option<String>,
    /// The client's own thread that the body names, if it does.
    pub thread_id: Option<String>,
    /// The messages as sent; in a responses request, the input.
    pub messages: Box<RawValue>,
    /// Every other member, as sent.
    pub parameters: Box<RawValue>,
    /// The message that is new: the last one that is no assistant's.
    pub new_message: Option<NewMessage>,
    /// The answer is to be made though nobody waits for it, and fetched later: one that is streamed comes all the same.
    pub is_background: bool,
    /// The body for the upstream.
    pub upstream_body: Bytes,
    /// The gateway asks for a usage chunk that the client did not ask for.
    pub added_usage_option: bool,
    /// The body as it came, and from whom.
    original: (Bytes, ApiSurface),
}

/// Who asks: what is left to them to say, and what is taken for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiSurface {
    /// `/v1/chat/completions`: an OpenAI client; the body is forwarded as sent.
    ChatCompletions,
    /// `/api/chat`: a frontend of ours; streams unless told otherwise, and may name its conversation in the body.
    Frontend,
    /// `/v1/responses`: an OpenAI client.
    Responses,
    /// `/v1/messages`: an Anthropic client.
    Messages,
}

impl ApiSurface {
    /// The wire format.
    pub fn dialect(self) -> DialectName {
        match self {
            Self::ChatCompletions | Self::Frontend => DialectName::OpenaiChat,
            Self::Responses => DialectName::OpenaiResponses,
            Self::Messages => DialectName::AnthropicMessages,
        }
    }

    /// Where it is served, below an upstream's base URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Frontend => "/chat/completions",
            Self::Responses => "/responses",
            Self::Messages => "/messages",
        }
    }

    /// The member that holds what is asked.
    fn messages_member(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Frontend | Self::Messages => "messages",
            Self::Responses => "input",
        }
    }
}

impl ChatRequest {
    /// Reads a body.
    pub fn parse(body: &Bytes, surface: ApiSurface) -> Result<Self, InvalidRequest> {
        let members: Members<'_> = serde_json::from_slice(body).map_err(|error| not_an_object(&error))?;
        let model: String =
            member(&members, "model", "a model name")?.ok_or_else(|| missing_member("model", "a model name"))?;
        if model.is_empty() || model.len() > 256 {
            return Err(invalid_member("model", "expected a model name of 1 to 256 bytes"));
        }
        let (messages, new_message) = match surface {
            ApiSurface::ChatCompletions | ApiSurface::Frontend => new_message::from_chat_completions(&members)?,
            ApiSurface::Responses => new_message::from_responses_input(&members)?,
            ApiSurface::Messages => new_message::from_anthropic_messages(&members)?,
        };
        let temperature = member(&members, "temperature", "a number")?;
        let stream = member(&members, "stream", "true or false")?;
        let conversation_id = match surface {
            ApiSurface::Frontend => member(&members, "conversationId", "a conversation id")?,
            ApiSurface::ChatCompletions | ApiSurface::Responses | ApiSurface::Messages => None,
        };
        let is_stream = stream.unwrap_or(surface == ApiSurface::Frontend);
        let asks_for_background =
            surface == ApiSurface::Responses && member(&members, "background", "true or false")?.unwrap_or(false);
        let is_background = asks_for_background && !is_stream;
        let asks_for_usage = surface.dialect() != DialectName::OpenaiChat || asks_for_usage(&members)?;

        let parameters = write_members(&members, |name| name != surface.messages_member(), &[]);
        let mut added: Vec<(&str, &str)> = Vec::new();
        if is_stream && stream.is_none() {
            added.push(("stream", "true"));
        }
        let stream_options = (is_stream && !asks_for_usage).then(|| stream_options_with_usage(&members));
        if let Some(options) = &stream_options {
            added.push(("stream_options", options));
        }
        let is_dropped = |name: &str| {
            (surface == ApiSurface::Frontend && name == "conversationId")
                || added.iter().any(|(known, _)| *known == name)
        };
        let upstream_body = if added.is_empty() && !members.0.iter().any(|(name, _)| is_dropped(name)) {
            body.clone()
        } else {
            Bytes::from(write_members(&members, |name| !is_dropped(name), &added))
        };
        Ok(Self {
            dialect: surface.dialect(),
            added_usage_option: stream_options.is_some(),
            model,
            stream: is_stream,
            temperature,
            conversation_id,
            thread_id: thread_id::from_body(surface.dialect(), &members),
            messages,
            parameters: RawValue::from_string(parameters).map_err(|error| not_an_object(&error))?,
            new_message,
            is_background,
            upstream_body,
            original: (body.clone(), surface),
        })
    }

    /// The body for an upstream that must not be asked for usage.
    pub fn body_without_usage_option(&self) -> Bytes {
        let (sent, surface) = &self.original;
        let Ok(members) = serde_json::from_slice::<Members<'_>>(sent) else { return self.upstream_body.clone() };
        let is_dropped = |name: &str| *surface == ApiSurface::Frontend && name == "conversationId";
        let adds_stream = self.stream && members.get("stream").is_none_or(|raw| raw.get() == "null");
        if !adds_stream && !members.0.iter().any(|(name, _)| is_dropped(name)) {
            return sent.clone();
        }
        let added: &[(&str, &str)] = if adds_stream { &[("stream", "true")] } else { &[] };
        Bytes::from(write_members(&members, |name| !(is_dropped(name) || (adds_stream && name == "stream")), added))
    }
}

/// The value of a member if it is there and not null.
fn member<'a, T: Deserialize<'a>>(
    members: &Members<'a>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, InvalidRequest> {
    members
        .get(name)
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map(Option::flatten)
        .map_err(|_| invalid_member(name, &format!("expected {expected}")))
}

fn asks_for_usage(members: &Members<'_>) -> Result<bool, InvalidRequest> {
    #[derive(Deserialize)]
    struct StreamOptions {
        #[serde(default)]
        include_usage: Option<bool>,
    }
    let options: Option<StreamOptions> =
        member(members, "stream_options", "an object with include_usage true or false")?;
    Ok(options.and_then(|options| options.include_usage) == Some(true))
}

/// The stream options as sent, but asking for usage.
fn stream_options_with_usage(members: &Members<'_>) -> String {
    let sent = members.get("stream_options").and_then(|raw| serde_json::from_str(raw.get()).ok());
    write_members(&sent.unwrap_or_default(), |name| name != "include_usage", &[("include_usage", "true")])
}

/// An object of the members that `is_kept` keeps, and these in addition.
fn write_members(members: &Members<'_>, is_kept: impl Fn(&str) -> bool, added: &[(&str, &str)]) -> String {
    let selected = members.0.iter().filter(|(name, _)| is_kept(name)).map(|(name, value)| (name.as_ref(), value.get()));
    Members::to_json(selected.chain(added.iter().copied()))
}
