//! The same event five times, and the end before the start: counted once.

use async_nats::jetstream;
use shared::envelope;
use shared::event::Event;
use tests::stack::Stack;

#[tokio::test]
async fn changes_nothing() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    for n in 0..3 {
        stack.finished_chat(&ann, &format!("{n}")).await?;
    }
    let before = stack.settled().await?;
    let jetstream = jetstream::new(async_nats::connect(stack.nats.url()).await?);
    for _ in 0..5 {
        for event in before.events.iter().rev() {
            publish(&jetstream, event).await?;
        }
    }
    let after = stack.settled().await?;
    assert_eq!(after.events.len(), 6 * before.events.len(), "they did get into the stream again");
    assert_eq!(after.tables, before.tables);
    Ok(())
}

#[tokio::test]
async fn of_the_end_before_the_start_gives_the_same_rows() -> anyhow::Result<()> {
    let (one, other) = (Stack::start().await?, Stack::start().await?);
    let ann = one.user("ann").await?;
    one.finished_chat(&ann, "hello").await?;
    let record = one.settled().await?;
    let jetstream = jetstream::new(async_nats::connect(other.nats.url()).await?);
    for event in record.events.iter().rev() {
        publish(&jetstream, event).await?;
        other.settled().await?;
    }
    assert_eq!(other.settled().await?.tables, record.tables);
    Ok(())
}

/// Publishes an event as a gateway does, but for the id that the broker would know it by.
async fn publish(jetstream: &jetstream::Context, event: &Event) -> anyhow::Result<()> {
    let headers = envelope::headers(event, "/gateway/again").into_iter().filter(|(name, _)| *name != "Nats-Msg-Id");
    let mut map = async_nats::HeaderMap::new();
    headers.for_each(|(name, value)| map.insert(name, value));
    let subject = shared::subject::of(event.kind(), event.user_id());
    jetstream.publish_with_headers(subject, map, event.encode()?.into()).await?.await?;
    Ok(())
}
