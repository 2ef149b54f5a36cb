//! Reading of request bodies, within limits on size, time and memory. Compressed bodies are decoded.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{self, HeaderMap};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use shared::fair_share::Place;
use shared::id::UserId;
use tokio::time::{sleep, timeout};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::json::edit;
use crate::server::body_decoding::{decode, encodings};
use crate::server::body_memory::BodyCharge;
use crate::server::gateway::Gateway;

/// The maximum time for reading the rest of a refused request's body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

impl Gateway {
    /// Authenticates the caller, then reads the whole JSON body within the limits on size, time and memory, and decodes the
    /// body if it is compressed. Returns caller, headers and body; the headers do not name an encoding any more.
    pub(super) async fn read_json(&self, request: Request) -> Result<(Caller, HeaderMap, Bytes), ApiError> {
        let (caller, headers, body, ()) = self.read_json_with(request, |_| Ok(())).await?;
        Ok((caller, headers, body))
    }

    /// Reads the JSON body of a chat like [`Self::read_json`]. The chat's place is taken before the body is read, so that
    /// no body is read for a chat that has no place.
    pub(super) async fn read_chat(&self, request: Request) -> Result<(Caller, HeaderMap, Bytes, Place), ApiError> {
        let take_place = |user: &UserId| {
            self.chats.user_rates.check_body_bytes(user)?;
            self.chats.places.take(user)
        };
        let read = self.read_json_with(request, take_place).await?;
        self.chats.user_rates.count_body_bytes(&read.0.user, read.2.len());
        Ok(read)
    }

    async fn read_json_with<P>(
        &self,
        request: Request,
        take_place: impl FnOnce(&UserId) -> Result<P, ApiError>,
    ) -> Result<(Caller, HeaderMap, Bytes, P), ApiError> {
        let (mut head, mut body) = request.into_parts();
        let read = async {
            let caller = self.authenticate(&head.method, &head.headers)?;
            check_media_type(&head.headers)?;
            let place = take_place(&caller.user)?;
            let limit = self.chats.limits.max_body_bytes;
            let bytes = self.read_whole(&head, &mut body, Some(caller.user.clone()), limit).await?;
            Ok((caller, place, bytes))
        };
        match read.await {
            Ok((caller, place, bytes)) => {
                head.headers.remove(header::CONTENT_ENCODING);
                Ok((caller, head.headers, bytes, place))
            }
            Err(error) => {
                self.discard_body(&head.headers, body);
                Err(error)
            }
        }
    }

    /// Reads a whole body of at most `limit` bytes, before and after decoding, on the account of `user`. The errors are 413,
    /// 408, 415 for an unknown encoding, 400 for a body that breaks off or cannot be decoded, and 429 or 503 if bodies hold
    /// too much memory.
    pub(super) async fn read_whole(
        &self,
        head: &Parts,
        body: &mut Body,
        user: Option<UserId>,
        limit: usize,
    ) -> Result<Bytes, ApiError> {
        let encodings = encodings(&head.headers)?;
        if body.size_hint().lower() > limit as u64 {
            return Err(ApiError::body_too_large(limit));
        }
        let mut charge = self.body_memory.open(user);
        let mut bytes = self.collect(body, limit, &mut charge).await?;
        if !encodings.is_empty() {
            bytes = decode(&encodings, bytes, limit, &mut charge).await?;
        }
        Ok(charge.attach(bytes))
    }

    /// Sets the member `model` of a JSON body. The changed copy is charged to the user in place of the body: both count until
    /// the body is dropped.
    pub(super) fn with_model(&self, user: &UserId, body: Bytes, model: &str) -> Result<Bytes, ApiError> {
        let mut charge = self.body_memory.open(Some(user.clone()));
        charge.add(body.len())?;
        let changed = edit::with_member(&body, "model", &model.into());
        // The body is no JSON object, and is refused when it is parsed.
        if changed.as_ptr() == body.as_ptr() {
            return Ok(body);
        }
        charge.release(body.len().saturating_sub(changed.len()));
        charge.add(changed.len().saturating_sub(body.len()))?;
        Ok(charge.attach(changed))
    }

    /// Collects a body of at most `limit` bytes. The time is bounded by the read timeout, plus the time that the bytes so far
    /// take at the minimum rate.
    async fn collect(&self, body: &mut Body, limit: usize, charge: &mut BodyCharge) -> Result<Bytes, ApiError> {
        let limits = &self.chats.limits;
        let mut timer = std::pin::pin!(sleep(limits.read_timeout));
        let deadline = timer.deadline();
        let mut collected = CollectedBody::new(body.size_hint().lower());
        loop {
            let frame = match body.frame().now_or_never() {
                Some(frame) => frame,
                None => {
                    charge.wait()?;
                    tokio::select! {
                        biased;
                        frame = body.frame() => frame,
                        () = &mut timer => return Err(ApiError::body_timeout()),
                    }
                }
            };
            let Some(frame) = frame else { return Ok(collected.into_bytes()) };
            // Trailers are not part of the body.
            let Ok(data) = frame.map_err(|_| ApiError::body_unreadable())?.into_data() else { continue };
            if collected.len() + data.len() > limit {
                return Err(ApiError::body_too_large(limit));
            }
            charge.add(data.len())?;
            collected.push(data);
            if body.is_end_stream() {
                return Ok(collected.into_bytes());
            }
            let earned = Duration::from_millis((collected.len() as u64).saturating_mul(1000) / limits.min_body_rate);
            timer.as_mut().reset(deadline + earned);
        }
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

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim();
    let is_json = essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json");
    if is_json { Ok(()) } else { Err(ApiError::unsupported_media_type()) }
}

/// The bytes of a body so far. A body that arrives in one piece is not copied.
struct CollectedBody {
    first: Bytes,
    rest: Vec<u8>,
    /// The length that the client has announced, 0 if unknown.
    announced: u64,
}

impl CollectedBody {
    /// The number of bytes for which room is made ahead, for each byte that has arrived: an announced length alone takes no
    /// memory.
    const ROOM_AHEAD: usize = 16;

    fn new(announced: u64) -> Self {
        Self { first: Bytes::new(), rest: Vec::new(), announced }
    }

    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        let needed = self.len() + data.len();
        if needed > self.rest.capacity() {
            let announced = usize::try_from(self.announced).unwrap_or(usize::MAX);
            let room = needed.max(announced.min(needed.saturating_mul(Self::ROOM_AHEAD)));
            // Without an announced length the vector grows by doubling.
            let room = if announced < needed { needed.max(self.rest.capacity() * 2) } else { room };
            self.rest.reserve_exact(room - self.rest.len());
        }
        self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        self.rest.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.into() }
    }
}
