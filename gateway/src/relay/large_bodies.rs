//! Bodies that are too large for a message of the broker: put into their bucket, before the event that refers to them is
//! published. See [`shared::large_body`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::ContextBuilder;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::object_store;
use bytes::Bytes;
use shared::large_body::{BUCKET, BodyReference, MAX_INLINE_BYTES};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one chunk may take to be acknowledged.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long all of it may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Room for an event's headers in a message.
const HEADER_RESERVE_BYTES: usize = 16 << 10;

/// Why a body could not be put there; it may be later.
#[derive(Debug, thiserror::Error)]
#[error("the body could not be put into bucket {BUCKET}: {0}")]
pub(super) struct UploadError(String);

/// Whether a payload of this size has to go there, on this broker.
pub(super) fn is_large(client: &Client, payload: usize) -> bool {
    payload > MAX_INLINE_BYTES.min(client.max_payload().saturating_sub(HEADER_RESERVE_BYTES))
}

/// Bodies on their way there, by the number of their event, and those that have arrived.
#[derive(Debug, Default)]
pub(super) struct BodyUploads {
    tasks: JoinSet<(u64, Result<BodyReference, UploadError>)>,
    in_progress: BTreeSet<u64>,
    uploaded: BTreeMap<u64, BodyReference>,
}

impl BodyUploads {
    /// Where an event's body is, once it is there.
    pub(super) fn reference(&self, number: u64) -> Option<&BodyReference> {
        self.uploaded.get(&number)
    }

    /// Sends a body there, unless it is on its way. As many as there are events in flight, which are bounded in bytes.
    pub(super) fn start(&mut self, client: &Client, number: u64, event_id: String, body: Bytes) {
        if self.in_progress.insert(number) {
            let client = client.clone();
            self.tasks.spawn(async move { (number, upload(&client, &event_id, &body).await) });
        }
    }

    /// The next event whose body has arrived, or has not. None if none is on its way.
    pub(super) async fn next_finished(&mut self) -> Option<(u64, Result<(), UploadError>)> {
        loop {
            // A task that panicked is like one that never began: its event is due again in time.
            let Ok((number, uploaded)) = self.tasks.join_next().await? else {
                self.in_progress.clear();
                continue;
            };
            self.in_progress.remove(&number);
            let uploaded = uploaded.map(|reference| drop(self.uploaded.insert(number, reference)));
            return Some((number, uploaded));
        }
    }

    /// The event is done.
    pub(super) fn forget(&mut self, number: u64) {
        self.uploaded.remove(&number);
    }
}

/// Puts a body there, under the event's id, and returns when the broker has all of it. Where it is already, nothing happens.
async fn upload(client: &Client, event_id: &str, body: &[u8]) -> Result<BodyReference, UploadError> {
    let reference = BodyReference::new(event_id, body);
    let context = ContextBuilder::new().timeout(CHUNK_TIMEOUT).build(client.clone());
    let uploaded = timeout(UPLOAD_TIMEOUT, put_object(&context, &reference, body)).await;
    uploaded.unwrap_or_else(|_| Err(UploadError(format!("no end after {UPLOAD_TIMEOUT:?}"))))?;
    Ok(reference)
}

async fn put_object(context: &Context, reference: &BodyReference, mut body: &[u8]) -> Result<(), UploadError> {
    let bucket = context.get_object_store(BUCKET).await.map_err(|error| UploadError(error.to_string()))?;
    let there = bucket.info(&reference.object).await;
    // Its name is the event's id, so it can only be this body; unless it was deleted, or is not whole.
    if there.is_ok_and(|there| !there.deleted && there.size == reference.size) {
        return Ok(());
    }
    let meta = object_store::ObjectMetadata { name: reference.object.clone(), ..Default::default() };
    bucket.put(meta, &mut body).await.map(drop).map_err(|error| UploadError(error.to_string()))
}
