//! The errors of requests with an idempotency key.

use http::StatusCode;

use super::ApiError;
use crate::idempotency::{KeyOwner, MalformedKey, Progress};

impl ApiError {
    /// 409: the idempotency key belongs to an earlier chat with the same request body. No new chat was started.
    pub fn idempotency_key_taken(taken: &KeyOwner) -> Self {
        let (code, state) = match taken.progress {
            Progress::UnderWay => ("idempotency_chat_under_way", "is under way"),
            Progress::Done => ("idempotency_chat_done", "is done"),
        };
        let message =
            format!("this idempotency key belongs to chat {}, which {state}; no new chat was started", taken.chat);
        let error = Self::new(StatusCode::CONFLICT, "invalid_request_error", Some(code), message).forbid_retry();
        Self { conflicting_chat: Some(Box::new((taken.chat, taken.conversation))), ..error }
    }

    /// 422: the idempotency key belongs to an earlier chat with a different request body. No new chat was started.
    pub fn idempotency_key_reused(taken: &KeyOwner) -> Self {
        let message =
            format!("this idempotency key belongs to chat {}, which had a different request body", taken.chat);
        let code = Some("idempotency_key_reused");
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", code, message).forbid_retry();
        Self { conflicting_chat: Some(Box::new((taken.chat, taken.conversation))), ..error }
    }
}

impl From<MalformedKey> for ApiError {
    fn from(error: MalformedKey) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, error.to_string())
    }
}
