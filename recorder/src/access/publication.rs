//! Publishing the events of API keys, limits and prices.

use std::time::Duration;

use async_nats::jetstream::{self, object_store};
use shared::envelope;
use shared::event::Event;
use shared::large_body::{BUCKET, BodyReference, MAX_INLINE_BYTES};
use shared::stream::NAME;
use tokio::time::timeout;

/// The maximum time for the broker to acknowledge an event.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum time for the upload of a body that is too large for a message.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The room in a message for an event's headers, in bytes.
const HEADER_RESERVE_BYTES: usize = 16 << 10;

/// Publishes an event of any size and waits for the acknowledgement: a body that is too large for a message is uploaded first. After an
/// error, the event may be stored all the same.
pub(super) async fn publish_large(client: &async_nats::Client, event: &Event) -> anyhow::Result<()> {
    let body = event.encode()?;
    if body.len() <= MAX_INLINE_BYTES.min(client.max_payload().saturating_sub(HEADER_RESERVE_BYTES)) {
        return publish(client, event).await;
    }
    let reference = BodyReference::new(&event.id().to_string(), &body);
    let uploaded = timeout(UPLOAD_TIMEOUT, upload(client, &reference, &body)).await;
    uploaded.unwrap_or_else(|_| Err(anyhow::anyhow!("bucket {BUCKET} took no body within {UPLOAD_TIMEOUT:?}")))?;
    acknowledged(publish_now(client, event, Vec::new(), &reference.headers())).await
}

async fn upload(client: &async_nats::Client, reference: &BodyReference, mut body: &[u8]) -> anyhow::Result<()> {
    let bucket = jetstream::new(client.clone()).get_object_store(BUCKET).await?;
    let meta = object_store::ObjectMetadata { name: reference.object.clone(), ..Default::default() };
    bucket.put(meta, &mut body).await?;
    Ok(())
}

/// Publishes an event and waits for the acknowledgement, for 5 seconds at most. After an error, the event may be stored all the same.
pub(super) async fn publish(client: &async_nats::Client, event: &Event) -> anyhow::Result<()> {
    acknowledged(publish_now(client, event, event.encode()?, &[])).await
}

async fn acknowledged(publishing: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    match timeout(PUBLISH_TIMEOUT, publishing).await {
        Ok(published) => published,
        Err(_) => Err(anyhow::anyhow!("no answer within {PUBLISH_TIMEOUT:?}")),
    }
}

async fn publish_now(
    client: &async_nats::Client,
    event: &Event,
    payload: Vec<u8>,
    more_headers: &[(&'static str, String)],
) -> anyhow::Result<()> {
    let mut headers = async_nats::HeaderMap::new();
    envelope::headers(event, "/recorder").into_iter().for_each(|(name, value)| headers.insert(name, value));
    more_headers.iter().for_each(|(name, value)| headers.insert(*name, value.as_str()));
    let subject = shared::subject::of(event.kind(), event.user_id());
    let jetstream = jetstream::new(client.clone());
    let acknowledgement = jetstream.publish_with_headers(subject, headers, payload.into()).await?.await?;
    anyhow::ensure!(acknowledgement.stream == NAME, "stream {} took the event", acknowledgement.stream);
    Ok(())
}
