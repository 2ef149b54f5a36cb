//! The errors of requests about a running chat.

use http::StatusCode;

use super::ApiError;

impl ApiError {
    /// 404: no such chat, or another user's.
    pub fn chat_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("chat_not_found"), "no such chat")
    }

    /// 429: the calling user follows as many answers as one user may. Clients may retry after 1 s.
    pub fn too_many_streams() -> Self {
        let message = "this user follows as many answers as one user may; close one of the streams";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("too_many_streams"), message).retry_after(1)
    }

    /// 409: the user stopped the chat before there was an answer. The request must not be sent again by itself.
    pub fn chat_stopped() -> Self {
        let message = "the chat was stopped before there was an answer";
        Self::new(StatusCode::CONFLICT, "invalid_request_error", Some("chat_stopped"), message).forbid_retry()
    }

    /// 503: the chat has not ended, and the gateway that runs the chat does not answer. Clients may retry after 1 s.
    pub fn chat_unreachable() -> Self {
        let message = "the gateway that runs this chat does not answer; try again shortly";
        let code = Some("chat_unreachable");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message).retry_after(1)
    }
}
