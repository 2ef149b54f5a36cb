//! Faults of the stream: events that are published again, and messages that are no events.

use std::time::Duration;

use async_nats::jetstream;
use rand::seq::SliceRandom as _;

type StoredEvent = (String, async_nats::HeaderMap, bytes::Bytes);

/// Publishes events of the stream again, shuffled, without the id that the broker deduplicates by.
pub(super) async fn repeat(nats_url: &str, count: usize) -> anyhow::Result<()> {
    let Ok(Ok(stored)) = tokio::time::timeout(Duration::from_secs(5), stored(nats_url, count)).await else {
        // While the broker is unreachable, no event is repeated.
        return Ok(());
    };
    let (client, mut messages) = stored;
    messages.shuffle(&mut rand::rng());
    for (subject, headers, payload) in messages {
        if client.publish_with_headers(subject, headers, payload).await.is_err() {
            return Ok(());
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), client.flush()).await;
    Ok(())
}

async fn stored(nats_url: &str, count: usize) -> anyhow::Result<(async_nats::Client, Vec<StoredEvent>)> {
    let client = connect(nats_url).await?;
    let mut stream = jetstream::new(client.clone()).get_stream(shared::stream::NAME).await?;
    let state = stream.info().await?.state.clone();
    let mut messages = Vec::new();
    for _ in 0..count.min(usize::try_from(state.messages)?) {
        let sequence = rand::random_range(state.first_sequence..=state.last_sequence);
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        // Messages without an event type are not repeated, because the number of quarantined messages is checked.
        if message.headers.get(shared::envelope::TYPE).is_none() {
            continue;
        }
        let mut headers = async_nats::HeaderMap::new();
        for (name, values) in message.headers.iter() {
            if !name.to_string().eq_ignore_ascii_case("Nats-Msg-Id") {
                values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
            }
        }
        messages.push((message.subject.to_string(), headers, message.payload));
    }
    Ok((client, messages))
}

pub(super) async fn garbage(nats_url: &str) -> anyhow::Result<()> {
    let publish = async {
        let client = connect(nats_url).await?;
        let subject = format!("chats.completed.garbage-{:08x}", rand::random::<u32>());
        client.publish(subject, "{\"this is\": \"no event\"".into()).await?;
        client.flush().await?;
        anyhow::Ok(())
    };
    // While the broker is unreachable, nothing is published.
    let _ = tokio::time::timeout(Duration::from_secs(5), publish).await;
    Ok(())
}

async fn connect(url: &str) -> anyhow::Result<async_nats::Client> {
    let servers: Result<Vec<async_nats::ServerAddr>, _> = url.split(',').map(str::parse).collect();
    Ok(async_nats::connect(servers?).await?)
}
