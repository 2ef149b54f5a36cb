//! Redelivery: the same event five times, the end before the start, and events that one recorder hands to another. Each is
//! counted once.

use std::time::Duration;

use async_nats::jetstream;
use recorder::policy::batch::BatchLimits;
use recorder::source::bodies::BodyFetcher;
use recorder::source::{Source, connect};
use tests::stack::{Stack, publish_again};
use tokio::time::{Instant, timeout};

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
            publish_again(&jetstream, event).await?;
        }
    }
    let after = stack.settled().await?;
    assert_eq!(after.events.len(), 6 * before.events.len(), "the stream must have the repeated events");
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
        publish_again(&jetstream, event).await?;
        other.settled().await?;
    }
    assert_eq!(other.settled().await?.tables, record.tables);
    Ok(())
}

/// A recorder stops collecting a batch half-way: the events at hand are the next batch, whether or not more arrive. A closed
/// recorder returns collected but unrecorded events at once.
#[tokio::test]
async fn waits_neither_for_more_events_nor_for_the_brokers_timeout() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.recorders.pop().unwrap().terminate(Duration::from_secs(60)).await?;
    stack.finished_chat(&ann, "hello").await?;
    let client = connect(&stack.nats.url()).await?;
    let mut source =
        Source::new(client.clone(), BatchLimits { linger: Duration::from_secs(3600), ..BatchLimits::default() });
    assert!(
        timeout(Duration::from_secs(2), source.next_full()).await.is_err(),
        "two events must not count as a full batch"
    );
    let deliveries = timeout(Duration::from_secs(5), source.next()).await??;
    assert_eq!(deliveries.fetch_and_decode(&BodyFetcher::new(client)).await.len(), 2);

    source.close(Some(deliveries)).await;
    let closed = Instant::now();
    stack.add_recorder().await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 1);
    assert!(
        closed.elapsed() < shared::stream::ACK_WAIT / 2,
        "the next recorder got the returned events only after {:?}",
        closed.elapsed()
    );
    Ok(())
}
