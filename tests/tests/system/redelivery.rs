//! The same event five times, and the end before the start: counted once.

use async_nats::jetstream;
use tests::stack::{Stack, publish_again};

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
        publish_again(&jetstream, event).await?;
        other.settled().await?;
    }
    assert_eq!(other.settled().await?.tables, record.tables);
    Ok(())
}
