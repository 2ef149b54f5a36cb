//! Publishing the events of API keys and limits.

use std::time::Duration;

use async_nats::jetstream;
use shared::envelope;
use shared::event::Event;
use shared::stream::NAME;
use tokio::time::timeout;

/// The maximum time for the broker to acknowledge an event.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes an event and waits for the acknowledgement, for 5 seconds at most. After an error, the event may be stored all the same.
pub(super) async fn publish(client: &async_nats::Client, event: &Event) -> anyhow::Result<()> {
    match timeout(PUBLISH_TIMEOUT, publish_now(client, event)).await {
        Ok(published) => published,
        Err(_) => Err(anyhow::anyhow!("no answer within {PUBLISH_TIMEOUT:?}")),
    }
}

async fn publish_now(client: &async_nats::Client, event: &Event) -> anyhow::Result<()> {
    let mut headers = async_nats::HeaderMap::new();
    envelope::headers(event, "/recorder").into_iter().for_each(|(name, value)| headers.insert(name, value));
    let subject = shared::subject::of(event.kind(), event.user_id());
    let jetstream = jetstream::new(client.clone());
    let acknowledgement = jetstream.publish_with_headers(subject, headers, event.encode()?.into()).await?.await?;
    anyhow::ensure!(acknowledgement.stream == NAME, "stream {} took the event", acknowledgement.stream);
    Ok(())
}
