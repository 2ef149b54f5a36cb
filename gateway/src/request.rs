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

use self::invalid_request::{invalid, missing, not_json};
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
    pub thread: Option<String>,
    /// The messages as sent; in a responses request, the input.
    pub messages: Box<RawValue>,
    /// Every other member, as sent.
    pub parameters: Box<RawValue>,
    /// The message that is new: the last one that is no assistant's.
    pub new_message: Option<NewMessage>,
    /// The answer is to be made though nobody waits for it, and fetched later: one that is streamed comes all the same.
    pub is_for_later: bool,
    /// The body for the upstream.
    pub forward: Bytes,
    /// The gateway asks for a usage chunk that the client did not ask for.
    pub strips_usage: bool,
    /// The body as it came, and from whom.
    sent: (Bytes, Surface),
}

/// Who asks: what is left to them to say, and what is taken for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `/v1/chat/completions`: an OpenAI client; the body is forwarded as sent.
    OpenAi,
    /// `/api/chat`: a frontend of ours; streams unless told otherwise, and may name its conversation in the body.
    Frontend,
    /// `/v1/responses`: an OpenAI client.
    Responses,
    /// `/v1/messages`: an Anthropic client.
    Anthropic,
}

impl Surface {
    /// The wire format.
    pub fn dialect(self) -> DialectName {
        match self {
            Self::OpenAi | Self::Frontend => DialectName::OpenaiChat,
            Self::Responses => DialectName::OpenaiResponses,
            Self::Anthropic => DialectName::AnthropicMessages,
        }
    }

    /// Where it is served, below an upstream's base URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Frontend => "/chat/completions",
            Self::Responses => "/responses",
            Self::Anthropic => "/messages",
        }
    }

    /// The member that holds what is asked.
    fn messages(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Frontend | Self::Anthropic => "messages",
            Self::Responses => "input",
        }
    }
}

impl ChatRequest {
    /// Reads a body.
    pub fn parse(body: &Bytes, surface: Surface) -> Result<Self, InvalidRequest> {
        let members: Members<'_> = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
        let model: String = get(&members, "model", "a model name")?.ok_or_else(|| missing("model", "a model name"))?;
        if model.is_empty() || model.len() > 256 {
            return Err(invalid("model", "expected a model name of 1 to 256 bytes"));
        }
        let (messages, new_message) = match surface {
            Surface::OpenAi | Surface::Frontend => new_message::in_chat(&members)?,
            Surface::Responses => new_message::in_input(&members)?,
            Surface::Anthropic => new_message::in_messages(&members)?,
        };
        let temperature = get(&members, "temperature", "a number")?;
        let stream = get(&members, "stream", "true or false")?;
        let conversation_id = match surface {
            Surface::Frontend => get(&members, "conversationId", "a conversation id")?,
            Surface::OpenAi | Surface::Responses | Surface::Anthropic => None,
        };
        let is_stream = stream.unwrap_or(surface == Surface::Frontend);
        let is_background =
            surface == Surface::Responses && get(&members, "background", "true or false")?.unwrap_or(false);
        let is_for_later = is_background && !is_stream;
        let asks_for_usage = surface.dialect() != DialectName::OpenaiChat || asks_for_usage(&members)?;

        let parameters = write(&members, |name| name != surface.messages(), &[]);
        let mut added: Vec<(&str, &str)> = Vec::new();
        if is_stream && stream.is_none() {
            added.push(("stream", "true"));
        }
        let stream_options = (is_stream && !asks_for_usage).then(|| stream_options_with_usage(&members));
        if let Some(options) = &stream_options {
            added.push(("stream_options", options));
        }
        let drops = |name: &str| {
            (surface == Surface::Frontend && name == "conversationId") || added.iter().any(|(known, _)| *known == name)
        };
        let forward = if added.is_empty() && !members.0.iter().any(|(name, _)| drops(name)) {
            body.clone()
        } else {
            Bytes::from(write(&members, |name| !drops(name), &added))
        };
        Ok(Self {
            dialect: surface.dialect(),
            strips_usage: stream_options.is_some(),
            model,
            stream: is_stream,
            temperature,
            conversation_id,
            thread: thread_id::named_in_body(surface.dialect(), &members),
            messages,
            parameters: RawValue::from_string(parameters).map_err(|error| not_json(&error))?,
            new_message,
            is_for_later,
            forward,
            sent: (body.clone(), surface),
        })
    }

    /// The body for an upstream that must not be asked for usage.
    pub fn without_usage_asked(&self) -> Bytes {
        let (sent, surface) = &self.sent;
        let Ok(members) = serde_json::from_slice::<Members<'_>>(sent) else { return self.forward.clone() };
        let drops = |name: &str| *surface == Surface::Frontend && name == "conversationId";
        let adds_stream = self.stream && members.raw("stream").is_none_or(|raw| raw.get() == "null");
        if !adds_stream && !members.0.iter().any(|(name, _)| drops(name)) {
            return sent.clone();
        }
        let added: &[(&str, &str)] = if adds_stream { &[("stream", "true")] } else { &[] };
        Bytes::from(write(&members, |name| !(drops(name) || (adds_stream && name == "stream")), added))
    }
}

/// The value of a member if it is there and not null.
fn get<'a, T: Deserialize<'a>>(
    members: &Members<'a>,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, InvalidRequest> {
    members
        .raw(name)
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map(Option::flatten)
        .map_err(|_| invalid(name, &format!("expected {expected}")))
}

fn asks_for_usage(members: &Members<'_>) -> Result<bool, InvalidRequest> {
    #[derive(Deserialize)]
    struct StreamOptions {
        #[serde(default)]
        include_usage: Option<bool>,
    }
    let options: Option<StreamOptions> = get(members, "stream_options", "an object with include_usage true or false")?;
    Ok(options.and_then(|options| options.include_usage) == Some(true))
}

/// The stream options as sent, but asking for usage.
fn stream_options_with_usage(members: &Members<'_>) -> String {
    let sent = members.raw("stream_options").and_then(|raw| serde_json::from_str(raw.get()).ok());
    write(&sent.unwrap_or_default(), |name| name != "include_usage", &[("include_usage", "true")])
}

/// An object of the members that `keep` keeps, and these in addition.
fn write(members: &Members<'_>, keep: impl Fn(&str) -> bool, added: &[(&str, &str)]) -> String {
    let kept = members.0.iter().filter(|(name, _)| keep(name)).map(|(name, value)| (name.as_ref(), value.get()));
    Members::write(kept.chain(added.iter().copied()))
}
