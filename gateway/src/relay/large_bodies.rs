//! Event bodies that are too large for a message of the broker. Such a body is uploaded to an object store bucket
//! before the event, which refers to the body, is published. See [`shared::large_body`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::ContextBuilder;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::object_store;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
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

impl From<async_nats::jetstream::stream::InfoError> for UploadError {
    fn from(error: async_nats::jetstream::stream::InfoError) -> Self {
        Self(error.to_string())
    }
}

/// Uploads in progress, and references to the uploaded bodies, by event number.
///
/// A broker that restarts without its newest writes may have lost a body, or some chunks of the body. Therefore an
/// upload counts only for the connection on which the upload was made; after that, the body is looked up again.
#[derive(Debug, Default)]
pub(super) struct BodyUploads {
    tasks: JoinSet<(u64, Result<UploadedBody, UploadError>)>,
    in_progress: BTreeSet<u64>,
    uploaded: BTreeMap<u64, UploadedBody>,
}

#[derive(Debug)]
struct UploadedBody {
    reference: BodyReference,
    /// The number of the connection on which the whole body was uploaded, or found.
    connection: u64,
}

/// Returns the number of connections that the client has made so far.
fn connection(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

impl BodyUploads {
    /// Returns the reference to an event's body, or `None` until the body has been uploaded on the present connection.
    pub(super) fn reference(&self, client: &Client, number: u64) -> Option<&BodyReference> {
        let uploaded = self.uploaded.get(&number)?;
        (uploaded.connection == connection(client)).then_some(&uploaded.reference)
    }

    /// Returns true if an event's body was uploaded on an earlier connection. The broker may have lost the body, so an
    /// acknowledgement of the event counts only after the body has been looked up again.
    pub(super) fn is_outdated(&self, client: &Client, number: u64) -> bool {
        self.uploaded.get(&number).is_some_and(|uploaded| uploaded.connection != connection(client))
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
            let uploaded = uploaded.map(|body| drop(self.uploaded.insert(number, body)));
            return Some((number, uploaded));
        }
    }

    /// Forgets the body's reference, after the event was acknowledged or dropped.
    pub(super) fn forget(&mut self, number: u64) {
        self.uploaded.remove(&number);
    }
}

/// Uploads a body under the event's id, and returns when the broker has acknowledged every chunk on one connection.
/// Uploads nothing if the bucket holds the body already.
async fn upload(client: &Client, event_id: &str, body: &[u8]) -> Result<UploadedBody, UploadError> {
    let reference = BodyReference::new(event_id, body);
    let context = ContextBuilder::new().timeout(CHUNK_TIMEOUT).build(client.clone());
    let uploaded = timeout(UPLOAD_TIMEOUT, async {
        loop {
            let before = connection(client);
            put_object(&context, &reference, body).await?;
            // A broker that restarted meanwhile may have lost the first chunks.
            if connection(client) == before {
                return Ok(before);
            }
        }
    })
    .await;
    let connection = uploaded.unwrap_or_else(|_| Err(UploadError(format!("not finished after {UPLOAD_TIMEOUT:?}"))))?;
    Ok(UploadedBody { reference, connection })
}

async fn put_object(context: &Context, reference: &BodyReference, mut body: &[u8]) -> Result<(), UploadError> {
    let bucket = context.get_object_store(BUCKET).await.map_err(|error| UploadError(error.to_string()))?;
    // The object's name is the event's id, so an existing object is the same body, unless deleted or incomplete.
    if let Ok(there) = bucket.info(&reference.object).await
        && !there.deleted
        && there.size == reference.size
        && stored_chunks(context, &there.nuid).await? == there.chunks
    {
        return Ok(());
    }
    let meta = object_store::ObjectMetadata { name: reference.object.clone(), ..Default::default() };
    bucket.put(meta, &mut body).await.map(drop).map_err(|error| UploadError(error.to_string()))
}

/// Returns the number of chunks that the bucket holds of the upload with the id `nuid`. The size in the object's
/// description says nothing about chunks that the broker has lost.
async fn stored_chunks(context: &Context, nuid: &str) -> Result<usize, UploadError> {
    let subject = format!("$O.{BUCKET}.C.{nuid}");
    let stream = context.get_stream_no_info(format!("OBJ_{BUCKET}")).await;
    let stream = stream.map_err(|error| UploadError(error.to_string()))?;
    let counts = stream.info_with_subjects(subject).await?;
    counts.try_fold(0, |sum, (_, count)| async move { Ok(sum + count) }).await.map_err(UploadError::from)
}
