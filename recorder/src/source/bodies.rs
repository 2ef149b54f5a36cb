//! Large bodies: an event too large for a message has its body in the broker's object store, and a reference in its
//! headers. The body fetcher reads the body before the event is decoded.

use std::time::Duration;

use async_nats::jetstream::object_store::{GetErrorKind, ObjectStore};
use async_nats::{Client, jetstream};
use bytes::Bytes;
use shared::large_body::{BUCKET, BodyError, BodyReference};
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use super::delivery::Delivery;

/// The timeout for fetching one body.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum number of tries for a body that is missing, incomplete or different from the reference. An unavailable
/// broker does not count as a try.
const MAX_ATTEMPTS: u32 = 5;

/// The pause between two tries.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The reason a body could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The broker did not answer, or the bucket could not be opened.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// The fetched body differs from the reference in size or hash.
    #[error(transparent)]
    Wrong(#[from] BodyError),
    /// The body is not in the bucket, or a replica does not know the body yet.
    #[error("the body is not in bucket {BUCKET}")]
    Missing,
    /// The body could not be read to the end within the timeout.
    #[error("the body could not be read to its end: {0}")]
    Broken(String),
}

/// A fetcher of large bodies.
#[derive(Clone, Debug)]
pub struct BodyFetcher {
    client: Client,
}

impl BodyFetcher {
    /// Creates a fetcher on this broker.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Attaches the referenced body to a delivery, or the error after the last try. Returns at once for a delivery
    /// without a reference. Waits for an unavailable broker without a limit.
    pub async fn attach_body(&self, delivery: &Delivery) {
        let reference = match BodyReference::from_headers(|name| delivery.header(name)) {
            Ok(None) => return,
            Ok(Some(reference)) => reference,
            Err(error) => return delivery.set_body(Err(error.to_string())),
        };
        let mut tries = 0;
        loop {
            let error = match self.fetch(&reference).await {
                Ok(body) => return delivery.set_body(Ok(body)),
                Err(error) => error,
            };
            tries += u32::from(!matches!(error, FetchError::Unavailable(_)));
            tracing::warn!(%error, event = delivery.event_id(), tries, "a large body could not be fetched");
            if tries >= MAX_ATTEMPTS {
                return delivery.set_body(Err(error.to_string()));
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Fetches the referenced body once, and checks size and hash.
    pub async fn fetch(&self, reference: &BodyReference) -> Result<Bytes, FetchError> {
        let unavailable = |error: &dyn std::fmt::Display| FetchError::Unavailable(error.to_string());
        let bucket = jetstream::new(self.client.clone()).get_object_store(BUCKET).await;
        let bucket = bucket.map_err(|error| unavailable(&error))?;
        let fetched = timeout(FETCH_TIMEOUT, read(&bucket, reference)).await;
        fetched.unwrap_or_else(|_| Err(FetchError::Broken(format!("no end after {FETCH_TIMEOUT:?}"))))
    }
}

async fn read(bucket: &ObjectStore, reference: &BodyReference) -> Result<Bytes, FetchError> {
    let object = bucket.get(&reference.object).await.map_err(|error| match error.kind() {
        GetErrorKind::NotFound => FetchError::Missing,
        _ => FetchError::Unavailable(error.to_string()),
    })?;
    // Reads at most one byte more than the reference announces, whatever the object holds.
    let mut body = Vec::with_capacity(reference.size);
    let most = u64::try_from(reference.size).unwrap_or(u64::MAX).saturating_add(1);
    object.take(most).read_to_end(&mut body).await.map_err(|error| FetchError::Broken(error.to_string()))?;
    reference.verify(&body)?;
    Ok(body.into())
}
