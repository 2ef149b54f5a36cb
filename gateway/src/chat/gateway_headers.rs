//! The headers that the gateway adds to a response: the ids of chat, conversation and request, and the limits of the caller.

use http::{HeaderMap, HeaderValue};

use crate::chat::open_chat::OpenChat;
use crate::headers::{CHAT_ID, CONVERSATION_ID, REQUEST_ID};
use crate::limit_headers::LimitHeaders;
use crate::recording_mode::{self, RECORDING};

/// The ids of chat, conversation and request, the limits that apply, and the recording mode.
#[derive(Debug)]
pub struct GatewayHeaders {
    chat: HeaderValue,
    conversation: Option<HeaderValue>,
    request: Option<HeaderValue>,
    limits: Option<LimitHeaders>,
    recording: Option<HeaderValue>,
}

impl GatewayHeaders {
    /// Takes the ids, the limits and the recording mode of the chat, and the request id from the client's headers if that has at most 256 bytes.
    pub fn new(chat: &OpenChat, request: &HeaderMap) -> Self {
        let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        Self {
            chat: value(chat.id.to_string()),
            conversation: chat.conversation_id.map(|id| value(id.to_string())),
            request: request.get(REQUEST_ID).filter(|id| id.len() <= 256).cloned(),
            limits: chat.limit_headers(),
            recording: recording_mode::response_header(chat.mode),
        }
    }

    /// Inserts the ids, the limits and the recording mode into the headers of a response. The request id is the upstream's if the response has one, else the
    /// client's, else the chat id.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        let request = self.request.unwrap_or_else(|| self.chat.clone());
        headers.entry(REQUEST_ID).or_insert(request);
        headers.insert(CHAT_ID, self.chat);
        if let Some(limits) = self.limits {
            limits.insert_into(headers);
        }
        if let Some(recording) = self.recording {
            headers.insert(RECORDING, recording);
        }
        if let Some(conversation) = self.conversation {
            headers.insert(CONVERSATION_ID, conversation);
        }
    }
}
