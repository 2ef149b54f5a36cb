//! A chat request: the body is parsed once at the edge and forwarded to the upstream as sent.
//!
//! The body is split into its members without touching their values. Members that the gateway does not know therefore
//! reach the upstream, and the record, unchanged.

mod ambiguous_members;
pub mod call;
pub mod caller_metadata;
pub mod conversation_id;
pub mod endpoint;
mod forwarded_body;
pub mod gemini;
mod invalid_request;
mod members;
pub mod multipart;
mod new_message;
#[cfg(test)]
mod tests;
pub mod thread_id;
pub mod ui_message;

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::event::DialectName;

use self::call::CallRequest;
use self::forwarded_body::{BodyChanges, write_members};
use self::invalid_request::{missing_member, not_an_object};
use self::members::{member, model_name, named_by_path};
use crate::json::broken_text;
use crate::json::lenient::Members;

use gemini::GeminiMethod;
pub use invalid_request::InvalidRequest;
pub use new_message::NewMessage;

/// A chat request, parsed as far as the gateway needs.
#[derive(Debug)]
pub struct ChatRequest {
    /// The dialect of the request and of its response.
    pub dialect: DialectName,
    /// The requested model, 1 to 256 bytes. The name is the client's; a route may rename the model for an upstream.
    pub model: String,
    /// True if the response is to be streamed.
    pub stream: bool,
    /// The requested sampling temperature; `None` leaves the choice to the upstream.
    pub temperature: Option<f64>,
    /// The conversation id in the body. Only [`ApiSurface::Frontend`] reads one; elsewhere always `None`.
    pub conversation_id: Option<String>,
    /// The client's own thread id in the body, if the dialect has a place for a thread id.
    pub thread_id: Option<String>,
    /// The id of the response that a Responses request continues.
    pub previous_response_id: Option<String>,
    /// The client's key for the upstream's cache. Many clients send the id of the conversation.
    pub prompt_cache_key: Option<String>,
    /// The messages as sent. In a Responses request: the `input`.
    pub messages: Box<RawValue>,
    /// An object with every other member, as sent.
    pub parameters: Box<RawValue>,
    /// The messages that the request adds to the conversation, in their order: the messages of the user and the tool results
    /// after the last message of the assistant, at most [`MAX_NEW_MESSAGES`](shared::event::MAX_NEW_MESSAGES).
    pub new_messages: Vec<NewMessage>,
    /// Unusual properties of the request, one word each, for the record.
    pub notes: Vec<&'static str>,
    /// True for a Responses request with `background: true`: the upstream makes the response whether somebody reads it or not. Without
    /// streaming, the client fetches the response later.
    pub is_background: bool,
    /// The body to send to the upstream.
    pub upstream_body: Bytes,
    /// True if the gateway added `stream_options.include_usage` to `upstream_body` because the client did not ask for
    /// usage.
    pub added_usage_option: bool,
    /// True if the body has text that is not valid Unicode. The text is forwarded as sent; all other members of this type
    /// have U+FFFD in each broken place.
    pub text_was_mended: bool,
    /// The body as received, and the changes to it without the usage option.
    original: (Bytes, BodyChanges),
}

/// The API on which a request arrived. The API determines the dialect, the default of `stream`, and the members that
/// the gateway reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiSurface {
    /// `/v1/chat/completions`: an OpenAI client. The body is forwarded as sent.
    ChatCompletions,
    /// `/api/chat`: a frontend of this deployment. The response streams by default, and the body may name its
    /// conversation.
    Frontend,
    /// `/v1/responses`: an OpenAI client.
    Responses,
    /// `/v1/messages`: an Anthropic client.
    Messages,
    /// `/v1beta/models/{model}:{method}`: a Google client. The model of the path is added to the body as `model`.
    Gemini(GeminiMethod),
}

impl ApiSurface {
    /// The dialect of requests and responses on this API.
    pub fn dialect(self) -> DialectName {
        match self {
            Self::ChatCompletions | Self::Frontend => DialectName::OpenaiChat,
            Self::Responses => DialectName::OpenaiResponses,
            Self::Messages => DialectName::AnthropicMessages,
            Self::Gemini(_) => DialectName::GoogleGemini,
        }
    }

    /// The path of the upstream's endpoint for a model, relative to the upstream's base URL.
    pub fn path(self, model: &str) -> Cow<'static, str> {
        match self {
            Self::ChatCompletions | Self::Frontend => "/chat/completions".into(),
            Self::Responses => "/responses".into(),
            Self::Messages => "/messages".into(),
            Self::Gemini(method) => method.path(model).into(),
        }
    }

    /// The name of the member that holds the messages.
    fn messages_member(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::Frontend | Self::Messages => "messages",
            Self::Responses => "input",
            Self::Gemini(_) => "contents",
        }
    }
}

impl ChatRequest {
    /// Parses a request body. An error names the invalid member.
    ///
    /// Text that is not valid Unicode is no error, see [`broken_text`].
    pub fn parse(body: &Bytes, surface: ApiSurface) -> Result<Self, InvalidRequest> {
        if let Some(text) = broken_text::intact(body) {
            match serde_json::from_str(text) {
                Ok(members) => return Self::from_members(&members, body, surface),
                // Escapes that do not exist are broken text too.
                Err(error) if !error.is_syntax() => return Err(not_an_object(&error)),
                Err(_) => {}
            }
        }
        let mended = broken_text::mend(body);
        let members: Members<'_> = serde_json::from_slice(&mended).map_err(|error| not_an_object(&error))?;
        broken_text::protect(body).map_err(|error| InvalidRequest { message: error.to_string(), param: None })?;
        let request = Self::from_members(&members, body, surface)?;
        let (sent, changes) = &request.original;
        let upstream_body = BodyChanges { adds_usage_option: request.added_usage_option, ..*changes }.apply(sent);
        Ok(Self { text_was_mended: true, upstream_body, ..request })
    }

    fn from_members(members: &Members<'_>, body: &Bytes, surface: ApiSurface) -> Result<Self, InvalidRequest> {
        ambiguous_members::refuse(members)?;
        let model = model_name(members)?.ok_or_else(|| missing_member("model", "a model name"))?;
        let (messages, new) = match surface {
            ApiSurface::ChatCompletions | ApiSurface::Frontend => new_message::from_chat_completions(members)?,
            ApiSurface::Responses => new_message::from_responses_input(members)?,
            ApiSurface::Messages => new_message::from_anthropic_messages(members)?,
            ApiSurface::Gemini(_) => new_message::from_gemini_contents(members)?,
        };
        let (temperature, stream) = match surface {
            ApiSurface::Gemini(method) => (gemini::temperature(members), Some(method != GeminiMethod::Generate)),
            _ => (member(members, "temperature", "a number")?, member(members, "stream", "true or false")?),
        };
        let conversation_id = match surface {
            ApiSurface::Frontend => member(members, "conversationId", "a conversation id")?,
            ApiSurface::ChatCompletions | ApiSurface::Responses | ApiSurface::Messages | ApiSurface::Gemini(_) => None,
        };
        let is_stream = stream.unwrap_or(surface == ApiSurface::Frontend);
        let is_background =
            surface == ApiSurface::Responses && member(members, "background", "true or false")?.unwrap_or(false);
        let asks_for_usage = surface.dialect() != DialectName::OpenaiChat || asks_for_usage(members)?;
        let changes = BodyChanges {
            removes_conversation_id: surface == ApiSurface::Frontend && members.get("conversationId").is_some(),
            adds_stream: is_stream && stream.is_none(),
            adds_usage_option: false,
        };
        let added_usage_option = is_stream && !asks_for_usage;
        let all_changes = BodyChanges { adds_usage_option: added_usage_option, ..changes };
        let upstream_body = if all_changes.is_empty() { body.clone() } else { all_changes.rewrite(members).into() };
        let parameters = write_members(members, |name| name != surface.messages_member(), &[]);
        Ok(Self {
            dialect: surface.dialect(),
            added_usage_option,
            model,
            stream: is_stream,
            temperature,
            conversation_id,
            thread_id: thread_id::from_body(surface.dialect(), members),
            previous_response_id: thread_id::text_member(members, "previous_response_id")
                .filter(|_| surface == ApiSurface::Responses),
            prompt_cache_key: thread_id::text_member(members, "prompt_cache_key"),
            messages,
            parameters: RawValue::from_string(parameters).map_err(|error| not_an_object(&error))?,
            new_messages: new.messages,
            notes: if new.has_more { vec!["new_messages_left_out"] } else { Vec::new() },
            is_background,
            upstream_body,
            text_was_mended: false,
            original: (body.clone(), changes),
        })
    }

    /// The record of a call that is no chat, for admission. The upstream gets the body of the call itself.
    pub fn of_call(call: CallRequest, dialect: DialectName) -> Self {
        Self {
            dialect,
            added_usage_option: false,
            model: call.model,
            stream: call.stream,
            temperature: call.temperature,
            conversation_id: None,
            thread_id: None,
            messages: call.input.unwrap_or_default(),
            parameters: call.parameters,
            new_messages: Vec::new(),
            notes: Vec::new(),
            is_background: false,
            previous_response_id: None,
            prompt_cache_key: None,
            upstream_body: Bytes::new(),
            text_was_mended: call.text_was_mended,
            original: (Bytes::new(), BodyChanges::default()),
        }
    }

    /// The body for an upstream that rejects `stream_options`: the same request without the usage option added by the
    /// gateway.
    pub fn body_without_usage_option(&self) -> Bytes {
        let (sent, changes) = &self.original;
        changes.apply(sent)
    }
}

/// The model of a request of which the gateway reads nothing else: the model that the path names, or else the member `model`.
/// The body has to be a JSON object in either case. An error names the member.
pub fn requested_model(body: &[u8], path_model: Option<&str>) -> Result<String, InvalidRequest> {
    let mended;
    let members: Members<'_> = match broken_text::intact(body).and_then(|text| serde_json::from_str(text).ok()) {
        Some(members) => members,
        None => {
            mended = broken_text::mend(body);
            serde_json::from_slice(&mended).map_err(|error| not_an_object(&error))?
        }
    };
    ambiguous_members::refuse(&members)?;
    let model = path_model.map_or_else(|| model_name(&members), named_by_path)?;
    model.ok_or_else(|| missing_member("model", "a model name"))
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
