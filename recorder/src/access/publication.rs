//! Publishing the events of API keys, limits and prices, and events that are made again.

use std::time::Duration;

use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, object_store, stream};
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
    let id = event.id().to_string();
    publish_body(client, event, body, |body| BodyReference::new(&id, body)).await.map(drop)
}

/// Publishes an event that was made again, like `publish_large`. A body in the bucket has the hash in its name, because the name of the first
/// publication's body belongs to that body, which may be in the bucket still, or come back with a copy of the bucket.
///
/// The broker takes an event whose id it knows for a repetition. Returns false if it does although the stream has lost the event, as when
/// somebody deleted the event less than two minutes ago: then the event is not stored.
pub async fn publish_restored(client: &async_nats::Client, event: &Event) -> anyhow::Result<bool> {
    let id = event.id().to_string();
    let reference = |body: &[u8]| {
        let reference = BodyReference::new(&id, body);
        let hash: String = reference.sha256[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        BodyReference { object: format!("{id}.{hash}"), ..reference }
    };
    let acknowledgement = publish_body(client, event, event.encode()?, reference).await?;
    if !acknowledgement.duplicate {
        return Ok(true);
    }
    let stream = jetstream::new(client.clone()).get_stream(NAME).await?;
    match stream.get_raw_message(acknowledgement.sequence).await {
        Ok(message) => Ok(message.headers.get(envelope::ID).is_some_and(|found| found.as_str() == id)),
        Err(error) if error.kind() == stream::LastRawMessageErrorKind::NoMessageFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn publish_body(
    client: &async_nats::Client,
    event: &Event,
    body: Vec<u8>,
    reference: impl Fn(&[u8]) -> BodyReference,
) -> anyhow::Result<PublishAck> {
    if body.len() <= MAX_INLINE_BYTES.min(client.max_payload().saturating_sub(HEADER_RESERVE_BYTES)) {
        return acknowledged(publish_now(client, event, body, &[])).await;
    }
    let reference = reference(&body);
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
    acknowledged(publish_now(client, event, event.encode()?, &[])).await.map(drop)
}

async fn acknowledged(publishing: impl Future<Output = anyhow::Result<PublishAck>>) -> anyhow::Result<PublishAck> {
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
) -> anyhow::Result<PublishAck> {
    let mut headers = async_nats::HeaderMap::new();
    envelope::headers(event, "/recorder").into_iter().for_each(|(name, value)| headers.insert(name, value));
    more_headers.iter().for_each(|(name, value)| headers.insert(*name, value.as_str()));
    let subject = shared::subject::of(event.kind(), event.user_id());
    let jetstream = jetstream::new(client.clone());
    let acknowledgement = jetstream.publish_with_headers(subject, headers, payload.into()).await?.await?;
    anyhow::ensure!(acknowledgement.stream == NAME, "stream {} took the event", acknowledgement.stream);
    Ok(acknowledgement)
}
