//! Event bodies that are too large for a message of the broker. Such a body is uploaded to an object store bucket
//! before the event, which refers to the body, is published. See [`shared::large_body`].

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

/// The time limit for the acknowledgement of one chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit for the upload of a whole body.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// The room in a message for an event's headers, in bytes.
const HEADER_RESERVE_BYTES: usize = 16 << 10;

/// A body could not be uploaded. A later attempt may succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot upload the body to bucket {BUCKET}: {0}")]
pub(super) struct UploadError(String);

/// Returns true if a payload of the given size must be uploaded, given the broker's `max_payload`.
pub(super) fn is_large(client: &Client, payload: usize) -> bool {
    payload > MAX_INLINE_BYTES.min(client.max_payload().saturating_sub(HEADER_RESERVE_BYTES))
}

/// Uploads in progress, and references to the uploaded bodies, by event number.
#[derive(Debug, Default)]
pub(super) struct BodyUploads {
    tasks: JoinSet<(u64, Result<BodyReference, UploadError>)>,
    in_progress: BTreeSet<u64>,
    uploaded: BTreeMap<u64, BodyReference>,
}

impl BodyUploads {
    /// Returns the reference to an event's body, or `None` until the body has been uploaded.
    pub(super) fn reference(&self, number: u64) -> Option<&BodyReference> {
        self.uploaded.get(&number)
    }

    /// Starts an upload, unless an upload for the event is in progress. The number of uploads is bounded by the events
    /// in flight, whose total size is bounded.
    pub(super) fn start(&mut self, client: &Client, number: u64, event_id: String, body: Bytes) {
        if self.in_progress.insert(number) {
            let client = client.clone();
            self.tasks.spawn(async move { (number, upload(&client, &event_id, &body).await) });
        }
    }

    /// Waits for the end of the next upload, successful or not. Returns `None` if no upload is in progress.
    pub(super) async fn next_finished(&mut self) -> Option<(u64, Result<(), UploadError>)> {
        loop {
            // A panicked task counts as never started: the event becomes overdue, and the upload starts again.
            let Ok((number, uploaded)) = self.tasks.join_next().await? else {
                self.in_progress.clear();
                continue;
            };
            self.in_progress.remove(&number);
            let uploaded = uploaded.map(|reference| drop(self.uploaded.insert(number, reference)));
            return Some((number, uploaded));
        }
    }

    /// Forgets the body's reference, after the event was acknowledged or dropped.
    pub(super) fn forget(&mut self, number: u64) {
        self.uploaded.remove(&number);
    }
}

/// Uploads a body under the event's id, and returns when the broker has acknowledged every chunk. Does nothing if the
/// bucket holds the body already.
async fn upload(client: &Client, event_id: &str, body: &[u8]) -> Result<BodyReference, UploadError> {
    let reference = BodyReference::new(event_id, body);
    let context = ContextBuilder::new().timeout(CHUNK_TIMEOUT).build(client.clone());
    let uploaded = timeout(UPLOAD_TIMEOUT, put_object(&context, &reference, body)).await;
    uploaded.unwrap_or_else(|_| Err(UploadError(format!("not finished after {UPLOAD_TIMEOUT:?}"))))?;
    Ok(reference)
}

async fn put_object(context: &Context, reference: &BodyReference, mut body: &[u8]) -> Result<(), UploadError> {
    let bucket = context.get_object_store(BUCKET).await.map_err(|error| UploadError(error.to_string()))?;
    let there = bucket.info(&reference.object).await;
    // The object's name is the event's id, so an existing object is the same body, unless deleted or incomplete.
    if there.is_ok_and(|there| !there.deleted && there.size == reference.size) {
        return Ok(());
    }
    let meta = object_store::ObjectMetadata { name: reference.object.clone(), ..Default::default() };
    bucket.put(meta, &mut body).await.map(drop).map_err(|error| UploadError(error.to_string()))
}
