//! The answer of a chat on the record, for its user.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use shared::event::ToolCall;
use shared::id::{ChatId, ConversationId, UserId};

use super::{ForwardedRequest, HEAD_TIMEOUT, RecorderApi, with_bearer};
use crate::error::ApiError;
use crate::response::answer_events::AnswerEnd;
use crate::response::transcript::Transcript;

/// A chat on the record.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedAnswer {
    /// The conversation of the chat.
    pub conversation_id: Option<ConversationId>,
    status: String,
    recording: Option<String>,
    stage: Option<String>,
    error: Option<String>,
    message: Option<Message>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    content: String,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
    finish_reason: Option<String>,
}

impl RecordedAnswer {
    /// Returns true if the record has the end of the chat.
    pub fn has_ended(&self) -> bool {
        self.status != "started"
    }

    /// Returns the answer, if the record has one with its texts, and the end.
    pub fn into_parts(self) -> (Option<Transcript>, AnswerEnd) {
        let answer = self.message.map(|message| {
            let mut answer = Transcript::default();
            answer.text = message.content;
            answer.reasoning = message.reasoning.unwrap_or_default();
            answer.refusal = message.refusal.unwrap_or_default();
            answer.tool_calls = message.tool_calls.unwrap_or_default();
            answer.finish_reason = message.finish_reason;
            answer
        });
        let finish_reason = answer.as_ref().and_then(|answer| answer.finish_reason.clone());
        let is_kept = self.recording.is_none_or(|recording| recording == "full");
        let end = AnswerEnd { status: self.status, stage: self.stage, error: self.error, finish_reason, is_kept };
        (answer.filter(|_| is_kept), end)
    }
}

impl RecorderApi {
    /// Asks for a chat of this user, who sent these headers. `None` if the record has no such chat of the user.
    pub async fn answer(
        &self,
        user: &UserId,
        id: ChatId,
        headers: &HeaderMap,
    ) -> Result<Option<RecordedAnswer>, ApiError> {
        let (path, headers) = (format!("/api/chats/{id}/answer"), with_bearer(headers));
        let (method, user) = (Method::GET, Some(user));
        let request = ForwardedRequest { method, path: &path, headers: &headers, body: Bytes::new(), peer: None, user };
        let answer = self.send(&request, HEAD_TIMEOUT).await?;
        match answer.status() {
            StatusCode::OK => answer.json().await.map(Some).map_err(|_| ApiError::recorder_unavailable()),
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(None),
            _ => Err(ApiError::recorder_unavailable()),
        }
    }
}
