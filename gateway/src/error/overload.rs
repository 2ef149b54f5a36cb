//! The errors of requests for which there is no room: 503 when the gateway has none, 429 when one user has its share.

use http::StatusCode;

use super::ApiError;

impl ApiError {
    /// 503: request bodies hold as much memory as they may. Clients may retry after 1 s.
    pub fn body_memory_full() -> Self {
        let message = "the gateway holds as many bytes of request bodies as it may; try again shortly";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("body_memory_full"), message).retry_after(1)
    }

    /// 429: the request bodies of the calling user hold their share of memory or of places. Clients may retry after 1 s.
    pub fn too_many_bodies() -> Self {
        let message = "the request bodies of this user hold as much as one user may; try again shortly";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("too_many_bodies"), message).retry_after(1)
    }

    /// 429: as many reads of the calling user wait for the recorder as one user may have. Clients may retry after 1 s.
    pub fn too_many_reads() -> Self {
        let message = "as many reads of this user are running as one user may have; wait for one to end";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("too_many_requests"), message).retry_after(1)
    }

    /// 503: the maximum number of concurrent chats is running. Clients may retry after 1 s.
    pub fn too_many_chats() -> Self {
        let message = "the gateway is at its limit of concurrent chats; try again shortly";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("overloaded"), message).retry_after(1)
    }

    /// 429: as many chats of the user are running as one user may have. Clients may retry after 1 s.
    pub fn too_many_chats_of_user() -> Self {
        let message = "as many chats of this user are running as one user may have; wait for one to end";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("too_many_chats"), message).retry_after(1)
    }

    /// 429: the user has created as many conversations in this minute as one user may.
    pub fn too_many_conversations(seconds: u64) -> Self {
        let message = "this user has created as many conversations in this minute as one user may";
        Self::over_rate("too_many_conversations", message, seconds)
    }

    /// 429: the user has sent as many idempotency keys in this minute as one user may.
    pub fn too_many_idempotency_keys(seconds: u64) -> Self {
        let message = "this user has sent as many idempotency keys in this minute as one user may";
        Self::over_rate("too_many_idempotency_keys", message, seconds)
    }

    /// 429: the user has sent as many bytes in requests on this day (UTC) as one user may.
    pub fn too_many_body_bytes(seconds: u64) -> Self {
        let message = "the requests of this user have as many bytes on this day as those of one user may have";
        Self::over_rate("too_many_body_bytes", message, seconds)
    }

    fn over_rate(code: &'static str, message: &'static str, seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some(code), message).retry_after(seconds)
    }
}
