//! The conversation of a chat: named by the client, derived from the client's own name for a thread, or new.

use std::sync::Arc;

use http::HeaderMap;
use shared::event::ConversationOrigin;
use shared::id::{ConversationId, UserId};

use crate::chat::response_conversations::ResponseConversations;
use crate::error::ApiError;
use crate::request::ChatRequest;
use crate::request::conversation_id::ConversationKeys;
use crate::request::thread_id::{self, ThreadSettings};

/// The rules by which a chat finds its conversation. No database is asked.
#[derive(Debug)]
pub struct Conversations {
    /// The keys that make and verify conversation ids.
    pub keys: ConversationKeys,
    /// The deployment's choices about thread ids.
    pub threads: ThreadSettings,
    /// The conversations of recent responses.
    pub responses: Arc<ResponseConversations>,
}

/// The conversation of a chat, the origin of the conversation id, and the client's own thread name if the id is derived from
/// a thread name.
pub type ResolvedConversation = (ConversationId, ConversationOrigin, Option<String>);

impl Conversations {
    /// Returns the conversation of a chat. docs/DISCONNECTS.md has the precedence of the names. Returns 404 for a conversation
    /// id that was not made for the user.
    pub fn resolve(
        &self,
        user: &UserId,
        request: &ChatRequest,
        headers: &HeaderMap,
    ) -> Result<ResolvedConversation, ApiError> {
        if let Some(named) = &request.conversation_id {
            let id = self.keys.verify(user, named).ok_or_else(ApiError::no_such_conversation)?;
            return Ok((id, ConversationOrigin::Given, None));
        }
        if let Some(thread) = thread_id::from_headers(headers, &self.threads).or(request.thread_id.as_deref()) {
            return self.of_thread(user, thread);
        }
        let previous = request.previous_response_id.as_deref();
        if let Some(id) = previous.and_then(|response| self.responses.find(user, response)) {
            return Ok((id, ConversationOrigin::Given, None));
        }
        match request.prompt_cache_key.as_deref().filter(|_| self.threads.is_cache_key_a_thread) {
            Some(key) => self.of_thread(user, key),
            None => Ok((self.keys.mint(user, shared::event::now()), ConversationOrigin::Minted, None)),
        }
    }

    /// Returns the conversation of a client's name for a thread. Returns 404 for a conversation id that was not made for the user.
    pub fn of_thread(&self, user: &UserId, thread: &str) -> Result<ResolvedConversation, ApiError> {
        match self.keys.verify(user, thread) {
            Some(id) => Ok((id, ConversationOrigin::Given, None)),
            // The name has the form of a conversation id, so the name is an id that was not made for this user.
            None if thread_id::looks_like_conversation_id(thread) => Err(ApiError::no_such_conversation()),
            None => {
                let id = self.keys.derive(user, thread);
                Ok((id, ConversationOrigin::Derived, Some(thread.to_owned())))
            }
        }
    }
}
