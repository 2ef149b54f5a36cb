//! The state of a chat on the record, for its user.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use shared::id::{ChatId, UserId};

use super::{ForwardedRequest, HEAD_TIMEOUT, RecorderApi};
use crate::error::ApiError;

/// The state of a chat on the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatStatus {
    /// The record has the start and no end yet.
    Started,
    /// The record has the end.
    Ended,
    /// The record has no such chat of the user.
    Missing,
}

impl RecorderApi {
    /// Asks for the state of a chat of this user, who sent these headers.
    pub async fn chat_status(&self, user: &UserId, id: ChatId, headers: &HeaderMap) -> Result<ChatStatus, ApiError> {
        #[derive(Deserialize)]
        struct Chat {
            status: String,
        }
        let path = format!("/api/chats/{id}");
        let (method, user) = (Method::GET, Some(user));
        let request = ForwardedRequest { method, path: &path, headers, body: Bytes::new(), peer: None, user };
        let answer = self.send(&request, HEAD_TIMEOUT).await?;
        match answer.status() {
            StatusCode::OK => {
                let chat = answer.json::<Chat>().await.map_err(|_| ApiError::recorder_unavailable())?;
                Ok(if chat.status == "started" { ChatStatus::Started } else { ChatStatus::Ended })
            }
            // An API key does not read the record.
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(ChatStatus::Missing),
            _ => Err(ApiError::recorder_unavailable()),
        }
    }
}
