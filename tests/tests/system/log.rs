//! The log reader reads to the end of the stream, whatever a consumer reports.

use std::time::Duration;

use async_nats::jetstream;
use recorder::source::connect;
use recorder::source::log::{LogRange, LogReader, RangeEnd, RangeStart};
use shared::nats::BrokerConfig;
use tests::stack::Stack;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::large_bodies;

async fn sequences(log: &mut LogReader) -> anyhow::Result<Vec<u64>> {
    let mut sequences = Vec::new();
    while let Some(delivery) = timeout(Duration::from_secs(10), log.next()).await?? {
        sequences.push(delivery.sequence());
    }
    Ok(sequences)
}

fn span(from: RangeStart, to: Option<u64>) -> LogRange {
    LogRange { from, to, subjects: Vec::new(), end: RangeEnd::Stop }
}

/// As it is in a cluster, where a consumer may come to a node that has not caught up.
#[tokio::test]
async fn continues_where_a_consumer_reported_the_end_too_early() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "one").await?;
    stack.settled().await?;
    let mut log = LogReader::open(
        connect(&BrokerConfig::from_url(&stack.nats.url())?).await?,
        span(RangeStart::Beginning, Some(4)),
    )
    .await?;
    let first = [log.next().await?, log.next().await?].map(|delivery| delivery.map(|delivery| delivery.sequence()));
    assert_eq!(first, [Some(1), Some(2)]);
    assert_eq!(log.pending(), 0);
    stack.finished_chat(&ann, "two").await?;
    stack.settled().await?;
    assert_eq!(sequences(&mut log).await?, [3, 4]);
    Ok(())
}

#[tokio::test]
async fn ends_at_the_end_of_the_stream() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    for user in [&bob, &ann, &ann] {
        stack.finished_chat(user, "hello").await?;
        stack.settled().await?;
    }
    let client = connect(&BrokerConfig::from_url(&stack.nats.url())?).await?;
    let read = async |span: LogRange| sequences(&mut LogReader::open(client.clone(), span).await?).await;
    assert_eq!(read(span(RangeStart::Beginning, None)).await?, [1, 2, 3, 4, 5, 6]);
    assert_eq!(read(span(RangeStart::Sequence(3), Some(4))).await?, [3, 4]);
    assert_eq!(read(span(RangeStart::Sequence(7), None)).await?, [0; 0]);
    assert_eq!(read(span(RangeStart::Sequence(7), Some(100))).await?, [0; 0]);
    assert_eq!(read(span(RangeStart::Beginning, Some(100))).await?, [1, 2, 3, 4, 5, 6]);
    assert_eq!(read(span(RangeStart::Time(OffsetDateTime::now_utc() + Duration::from_secs(60)), None)).await?, [0; 0]);
    let of_bob = LogRange { subjects: vec![format!("chats.*.{}", bob.id)], ..span(RangeStart::Beginning, None) };
    assert_eq!(read(of_bob).await?, [1, 2]);
    let of_nobody = LogRange { subjects: vec!["chats.*.nobody".to_owned()], ..span(RangeStart::Beginning, None) };
    assert_eq!(read(of_nobody).await?, [0; 0]);

    let stream = jetstream::new(client.clone()).get_stream(shared::stream::NAME).await?;
    for sequence in [1, 5, 6] {
        stream.delete_message(sequence).await?;
    }
    assert_eq!(read(span(RangeStart::Beginning, None)).await?, [2, 3, 4]);
    Ok(())
}

/// A caller that gives up waiting for a body gets the event at the next call.
#[tokio::test]
async fn loses_no_event_when_a_caller_stops_waiting() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "one").await?;
    let events = stack.settled().await?.events;
    let jetstream = stack.jetstream().await?;
    large_bodies::publish_reference(&jetstream, &events[0]).await?;
    let bound = Duration::from_millis(1500);
    for last in [Some(3), None] {
        let mut log = LogReader::open(
            connect(&BrokerConfig::from_url(&stack.nats.url())?).await?,
            span(RangeStart::Sequence(3), last),
        )
        .await?;
        assert!(timeout(bound, log.next()).await.is_err(), "the reader must wait while the bucket has no body");
        large_bodies::put_body(&jetstream, &events[0]).await?;
        let delivery =
            timeout(Duration::from_secs(30), log.next()).await??.expect("the log has not ended before the event");
        assert_eq!(delivery.sequence(), 3);
        assert_eq!(delivery.decode()?.id(), events[0].id());
        assert!(sequences(&mut log).await?.is_empty());
        large_bodies::remove_body(&jetstream, &events[0]).await?;
    }
    Ok(())
}
