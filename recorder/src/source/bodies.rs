//! Bodies that are too large for a message: fetched where the event says they are.

use std::time::Duration;

use async_nats::jetstream::object_store::{GetErrorKind, ObjectStore};
use async_nats::{Client, jetstream};
use bytes::Bytes;
use shared::large_body::{BUCKET, BodyError, BodyReference};
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use super::delivery::Delivery;

/// How long fetching one may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// How often one is tried that the broker does not give whole.
const MAX_ATTEMPTS: u32 = 5;

/// Between two tries.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a body could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The broker is away.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// It is not what the event says.
    #[error(transparent)]
    Wrong(#[from] BodyError),
    /// It is not there, or a replica does not know of it yet.
    #[error("the body is not in bucket {BUCKET}")]
    Missing,
    /// Part of it is not there.
    #[error("the body could not be read to its end: {0}")]
    Broken(String),
}

/// Where bodies are fetched.
#[derive(Clone, Debug)]
pub struct BodyFetcher {
    client: Client,
}

impl BodyFetcher {
    /// On this broker.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sees to it that a delivery has its body, or knows why not. Waits for a broker that is merely away.
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
            tracing::warn!(%error, event = delivery.event_id(), tries, "a body could not be fetched");
            if tries >= MAX_ATTEMPTS {
                return delivery.set_body(Err(error.to_string()));
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// The body that this refers to.
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
    // Never more than was announced, whatever is there.
    let mut body = Vec::with_capacity(reference.size);
    let most = u64::try_from(reference.size).unwrap_or(u64::MAX).saturating_add(1);
    object.take(most).read_to_end(&mut body).await.map_err(|error| FetchError::Broken(error.to_string()))?;
    reference.verify(&body)?;
    Ok(body.into())
}
