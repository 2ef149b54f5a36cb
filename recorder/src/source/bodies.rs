//! Large bodies: an event too large for a message has its body in the broker's object store, and a reference in its
//! headers. The body fetcher reads the body before the event is decoded.
//!
//! A body is read message by message with requests to the bucket's stream, without a consumer: the broker keeps each
//! consumer for about 30 seconds and refuses more than 1000 consumers of a stream.
//!
//! A body counts as missing only if the leader of the bucket's stream says that the object, or a part of the object, is
//! not there. A refusal, a timeout or a lost connection says nothing about the body.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::object_store::ObjectInfo;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind, Stream};
use async_nats::{Client, jetstream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest as _, Sha256};
use shared::large_body::{BUCKET, BodyError, BodyReference};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The time between the first and the decisive answer of the broker that a body is missing, or differs from the
/// reference. In a cluster, a newly elected leader may not know the latest objects for a moment.
pub const MISSING_CONFIRMATION: Duration = Duration::from_secs(15);

/// The pause between two tries for the same body.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The timeout of a request for one message of the bucket's stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of bodies fetched at the same time. More requests at once would only wait in the broker.
const MAX_CONCURRENT_FETCHES: usize = 4;

/// The reason a body could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The broker gave no answer, or refused the request. Says nothing about the body.
    #[error("the broker does not give the body: {0}")]
    Unavailable(String),
    /// The body in the bucket differs from the reference in size or hash.
    #[error(transparent)]
    Wrong(#[from] BodyError),
    /// The leader of the bucket's stream says that the object is not in the bucket.
    #[error("the body is not in bucket {BUCKET}")]
    Missing,
    /// The leader of the bucket's stream says that a part of the object is not in the bucket.
    #[error("the body is not in bucket {BUCKET} completely: expected {expected} bytes, found {found}")]
    Incomplete {
        /// The size of the body according to the object's description, in bytes.
        expected: usize,
        /// The number of bytes before the missing part.
        found: usize,
    },
}

/// A fetcher of large bodies. Clones share the bound on concurrent fetches.
#[derive(Clone, Debug)]
pub struct BodyFetcher {
    client: Client,
    permits: Arc<Semaphore>,
}

/// The broker's answers about one body so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct MissingSince(Option<Instant>);

// === impl FetchError ===

impl FetchError {
    /// Returns true if the broker itself has said that the body is missing or differs from the reference.
    pub fn is_missing(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }
}

// === impl MissingSince ===

impl MissingSince {
    /// Notes an answer about the body. Returns true if the body is missing for good: the broker has said so now, and at
    /// least [`MISSING_CONFIRMATION`] ago.
    pub fn is_confirmed_by(&mut self, error: &FetchError, now: Instant) -> bool {
        error.is_missing() && now.duration_since(*self.0.get_or_insert(now)) >= MISSING_CONFIRMATION
    }
}

// === impl BodyFetcher ===

impl BodyFetcher {
    /// Creates a fetcher on this broker.
    pub fn new(client: Client) -> Self {
        Self { client, permits: Arc::new(Semaphore::new(MAX_CONCURRENT_FETCHES)) }
    }

    /// Fetches the referenced body once, and checks size and hash.
    pub async fn fetch(&self, reference: &BodyReference) -> Result<Vec<u8>, FetchError> {
        let _permit = self.permits.acquire().await;
        let bucket = self.bucket().await?;
        let info = object_info(&bucket, &reference.object).await?;
        if info.size != reference.size {
            return Err(BodyError::Mismatch.into());
        }
        let subject = format!("$O.{BUCKET}.C.{}", info.nuid);
        let (mut body, mut hash, mut sequence) = (Vec::with_capacity(reference.size), Sha256::new(), 1);
        for _ in 0..info.chunks {
            let Some(part) = next_message(&bucket, &subject, sequence).await? else {
                return Err(FetchError::Incomplete { expected: info.size, found: body.len() });
            };
            if body.len() + part.payload.len() > reference.size {
                return Err(BodyError::Mismatch.into());
            }
            hash.update(&part.payload);
            body.extend_from_slice(&part.payload);
            sequence = part.sequence + 1;
        }
        reference.verify_digest(body.len(), hash.finalize().into())?;
        Ok(body)
    }

    /// Asks whether the body's object is in the bucket, without reading the body.
    pub async fn probe(&self, reference: &BodyReference) -> Result<(), FetchError> {
        let _permit = self.permits.acquire().await;
        object_info(&self.bucket().await?, &reference.object).await.map(drop)
    }

    /// Fetches a body for a reader of the log: tries again while the broker is unavailable for up to `patience`, and
    /// until a missing body is confirmed as missing.
    pub async fn fetch_patiently(&self, reference: &BodyReference, patience: Duration) -> Result<Vec<u8>, FetchError> {
        let (mut missing_since, mut unavailable_since) = (MissingSince::default(), None);
        loop {
            let error = match self.fetch(reference).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            let now = Instant::now();
            if error.is_missing() {
                unavailable_since = None;
                if missing_since.is_confirmed_by(&error, now) {
                    return Err(error);
                }
            } else if now.duration_since(*unavailable_since.get_or_insert(now)) >= patience {
                return Err(error);
            }
            tracing::debug!(%error, object = reference.object, "a large body could not be fetched: trying again");
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    async fn bucket(&self) -> Result<Stream<()>, FetchError> {
        let context = jetstream::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(self.client.clone());
        let bucket = context.get_stream_no_info(format!("OBJ_{BUCKET}")).await;
        bucket.map_err(|error| FetchError::Unavailable(error.to_string()))
    }
}

/// Reads the description of an object. A deleted object counts as missing.
async fn object_info(bucket: &Stream<()>, name: &str) -> Result<ObjectInfo, FetchError> {
    let subject = format!("$O.{BUCKET}.M.{}", URL_SAFE.encode(name));
    let described = match bucket.direct_get_last_for_subject(&subject).await {
        Ok(message) => object_described_by(&message).filter(|info| !info.deleted),
        Err(error) if error.kind() == DirectGetErrorKind::TimedOut => {
            return Err(FetchError::Unavailable(error.to_string()));
        }
        Err(_) => None,
    };
    if let Some(info) = described {
        return Ok(info);
    }
    // The answer came from any replica, or not at all. Only the leader's word counts.
    match bucket.raw_message_builder().last_by_subject(subject).send().await {
        Ok(message) => object_described_by(&message).filter(|info| !info.deleted).ok_or(FetchError::Missing),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Err(FetchError::Missing),
        Err(error) => Err(FetchError::Unavailable(error.to_string())),
    }
}

fn object_described_by(message: &StreamMessage) -> Option<ObjectInfo> {
    serde_json::from_slice(&message.payload).ok()
}

/// Reads the first message of the subject at or after the sequence; `None` if the leader says that there is none.
async fn next_message(bucket: &Stream<()>, subject: &str, from: u64) -> Result<Option<StreamMessage>, FetchError> {
    match bucket.direct_get_next_for_subject(subject, Some(from)).await {
        Ok(message) => return Ok(Some(message)),
        Err(error) if error.kind() == DirectGetErrorKind::TimedOut => {
            return Err(FetchError::Unavailable(error.to_string()));
        }
        // The replica that was asked may lag behind, or the bucket may not allow direct requests.
        Err(_) => {}
    }
    match bucket.get_first_raw_message_by_subject(subject, from).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(FetchError::Unavailable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_missing_for_good_only_after_the_broker_has_said_so_twice() {
        let (mut since, now) = (MissingSince::default(), Instant::now());
        let refused = || FetchError::Unavailable("maximum consumers limit reached".to_owned());
        for seconds in 0..100 {
            assert!(!since.is_confirmed_by(&refused(), now + Duration::from_secs(seconds)), "a refusal says nothing");
        }
        let first = now + Duration::from_secs(100);
        assert!(!since.is_confirmed_by(&FetchError::Missing, first));
        assert!(!since.is_confirmed_by(&refused(), first + MISSING_CONFIRMATION));
        assert!(!since.is_confirmed_by(&FetchError::Missing, first + MISSING_CONFIRMATION / 2));
        assert!(since.is_confirmed_by(&FetchError::Missing, first + MISSING_CONFIRMATION));
    }
}
