//! Bodies that are too large for a message of the broker: put into their bucket, before the event that refers to them is
//! published. See [`shared::large_body`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::ContextBuilder;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::object_store;
use bytes::Bytes;
use shared::large_body::{BUCKET, MOST_INLINE, Reference};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one chunk may take to be acknowledged.
const CHUNK: Duration = Duration::from_secs(30);

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Room for an event's headers in a message.
const HEADERS: usize = 16 << 10;

/// Why a body could not be put there; it may be later.
#[derive(Debug, thiserror::Error)]
#[error("the body could not be put into bucket {BUCKET}: {0}")]
pub(super) struct StoreError(String);

/// Whether a payload of this size has to go there, on this broker.
pub(super) fn is_large(client: &Client, payload: usize) -> bool {
    payload > MOST_INLINE.min(client.max_payload().saturating_sub(HEADERS))
}

/// Bodies on their way there, by the number of their event, and those that have arrived.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    tasks: JoinSet<(u64, Result<Reference, StoreError>)>,
    under_way: BTreeSet<u64>,
    stored: BTreeMap<u64, Reference>,
}

impl Uploads {
    /// Where an event's body is, once it is there.
    pub(super) fn reference(&self, number: u64) -> Option<&Reference> {
        self.stored.get(&number)
    }

    /// Sends a body there, unless it is on its way. As many as there are events in flight, which are bounded in bytes.
    pub(super) fn start(&mut self, client: &Client, number: u64, event_id: String, body: Bytes) {
        if self.under_way.insert(number) {
            let client = client.clone();
            self.tasks.spawn(async move { (number, store(&client, &event_id, &body).await) });
        }
    }

    /// The next event whose body has arrived, or has not. None if none is on its way.
    pub(super) async fn finished(&mut self) -> Option<(u64, Result<(), StoreError>)> {
        loop {
            // A task that panicked is like one that never began: its event is due again in time.
            let Ok((number, stored)) = self.tasks.join_next().await? else {
                self.under_way.clear();
                continue;
            };
            self.under_way.remove(&number);
            let stored = stored.map(|reference| drop(self.stored.insert(number, reference)));
            return Some((number, stored));
        }
    }

    /// The event is done.
    pub(super) fn forget(&mut self, number: u64) {
        self.stored.remove(&number);
    }
}

/// Puts a body there, under the event's id, and returns when the broker has all of it. Where it is already, nothing happens.
async fn store(client: &Client, event_id: &str, body: &[u8]) -> Result<Reference, StoreError> {
    let reference = Reference::to(event_id, body);
    let context = ContextBuilder::new().timeout(CHUNK).build(client.clone());
    let stored = timeout(PATIENCE, put(&context, &reference, body)).await;
    stored.unwrap_or_else(|_| Err(StoreError(format!("no end after {PATIENCE:?}"))))?;
    Ok(reference)
}

async fn put(context: &Context, reference: &Reference, mut body: &[u8]) -> Result<(), StoreError> {
    let bucket = context.get_object_store(BUCKET).await.map_err(|error| StoreError(error.to_string()))?;
    let there = bucket.info(&reference.object).await;
    // Its name is the event's id, so it can only be this body; unless it was deleted, or is not whole.
    if there.is_ok_and(|there| !there.deleted && there.size == reference.size) {
        return Ok(());
    }
    let meta = object_store::ObjectMetadata { name: reference.object.clone(), ..Default::default() };
    bucket.put(meta, &mut body).await.map(drop).map_err(|error| StoreError(error.to_string()))
}
