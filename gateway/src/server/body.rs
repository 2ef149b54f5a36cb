//! Reading of request bodies, within limits on size and time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::server::gateway::Gateway;

/// The maximum time for reading the rest of a refused request's body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

impl Gateway {
    /// Authenticates the caller, then reads the whole JSON body within the limits on size and time. Returns caller, headers
    /// and body.
    pub(super) async fn read_json(&self, request: Request) -> Result<(Caller, HeaderMap, Bytes), ApiError> {
        let (head, mut body) = request.into_parts();
        match self.read_body(&head, &mut body).await {
            Ok((caller, bytes)) => Ok((caller, head.headers, bytes)),
            Err(error) => {
                self.discard_body(&head.headers, body);
                Err(error)
            }
        }
    }

    async fn read_body(&self, head: &Parts, body: &mut Body) -> Result<(Caller, Bytes), ApiError> {
        let caller = self.authenticate(&head.method, &head.headers)?;
        let is_json =
            head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                let essence = value.split(';').next().unwrap_or("").trim();
                essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
            });
        if !is_json {
            return Err(ApiError::unsupported_media_type());
        }
        let limit = self.chats.limits.max_body_bytes;
        let body = read_bounded(body, limit, self.chats.limits.read_timeout).await?;
        Ok((caller, body))
    }

    /// Reads the rest of a refused request's body in the background, within limits, while the error response is sent.
    /// Without this, a client that writes the whole body before reading would get a connection reset instead of the error
    /// response. A request with an `Expect` header has sent no body yet, so nothing is read.
    pub(super) fn discard_body(&self, headers: &HeaderMap, mut body: Body) {
        if body.is_end_stream() || headers.contains_key(header::EXPECT) {
            return;
        }
        let mut left = self.chats.limits.max_body_bytes.saturating_mul(2);
        tokio::spawn(timeout(DISCARD_TIMEOUT, async move {
            while let Some(Ok(frame)) = body.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let Some(rest) = left.checked_sub(bytes) else { return };
                left = rest;
            }
        }));
    }
}

/// Reads a whole body of at most `limit` bytes that arrives within the given time. The errors are 413, 408, and 400 for a
/// body that breaks off.
pub(super) async fn read_bounded(body: &mut Body, limit: usize, within: Duration) -> Result<Bytes, ApiError> {
    let body = timeout(within, Limited::new(body, limit).collect())
        .await
        .map_err(|_| ApiError::body_timeout())?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => ApiError::body_too_large(limit),
            None => ApiError::body_unreadable(),
        })?;
    Ok(body.to_bytes())
}
