//! The ids that a response carries: the chat's, the conversation's and the request's.

use http::{HeaderMap, HeaderValue};

use crate::chat::open_chat::OpenChat;
use crate::headers::{CHAT_ID, CONVERSATION_ID, REQUEST_ID};

/// The ids that a response carries.
#[derive(Debug)]
pub struct ResponseIds {
    chat: HeaderValue,
    conversation: HeaderValue,
    request: Option<HeaderValue>,
}

impl ResponseIds {
    /// The ids of this chat, and of the request that it came with.
    pub fn new(chat: &OpenChat, request: &HeaderMap) -> Self {
        let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        Self {
            chat: value(chat.id.to_string()),
            conversation: value(chat.conversation_id.to_string()),
            request: request.get(REQUEST_ID).filter(|id| id.len() <= 256).cloned(),
        }
    }

    /// Puts them on a response.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        let request = self.request.unwrap_or_else(|| self.chat.clone());
        headers.entry(REQUEST_ID).or_insert(request);
        headers.insert(CHAT_ID, self.chat);
        headers.insert(CONVERSATION_ID, self.conversation);
    }
}
