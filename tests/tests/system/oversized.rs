//! Events whose body is too large for a message: it is in a bucket, the event refers to it, and every reader follows.

use async_nats::jetstream;
use shared::body::{BUCKET, MOST_INLINE, Reference};
use shared::event::Event;
use tests::stack::Stack;

/// Publishes an event with its body apart.
async fn publish_reference(jetstream: &jetstream::Context, event: &Event) -> anyhow::Result<()> {
    let reference = Reference::to(&event.id().to_string(), &event.encode()?);
    let mut headers = async_nats::HeaderMap::new();
    let envelope = shared::envelope::headers(event, "/gateway/large");
    envelope.into_iter().chain(reference.headers()).for_each(|(name, value)| headers.insert(name, value));
    let subject = shared::subject::of(event.kind(), event.user_id());
    jetstream.publish_with_headers(subject, headers, "".into()).await?.await?;
    Ok(())
}

async fn put_body(jetstream: &jetstream::Context, event: &Event) -> anyhow::Result<()> {
    let bucket = jetstream.get_object_store(BUCKET).await?;
    bucket.put(event.id().to_string().as_str(), &mut event.encode()?.as_slice()).await?;
    Ok(())
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_recorded_completely_and_one_that_is_missing_waits_in_quarantine()
-> anyhow::Result<()> {
    let (from, stack) = (Stack::start().await?, Stack::start().await?);
    let ann = from.user("ann").await?;
    from.finished_chat(&ann, "hello").await?;
    from.finished_chat(&ann, "hello again").await?;
    let events = from.settled().await?.events;
    let large = |event: &Event, text: &str| match event {
        Event::ChatStarted(event) => {
            let mut event = event.clone();
            if let Some(message) = &mut event.user_message {
                message.text = text.to_owned();
            }
            Event::ChatStarted(event)
        }
        other => other.clone(),
    };
    let text = "0123456789abcdef".repeat(640 * 1024);
    let mut starts = events.iter().filter(|event| matches!(event, Event::ChatStarted(_)));
    let (first, second) = (large(starts.next().unwrap(), &text), large(starts.next().unwrap(), "missing"));
    assert!(first.encode()?.len() > 10 << 20 && first.encode()?.len() > MOST_INLINE);

    let jetstream = stack.jetstream().await?;
    put_body(&jetstream, &first).await?;
    publish_reference(&jetstream, &first).await?;
    publish_reference(&jetstream, &second).await?;
    stack.drained().await?;
    let id = stack.recorder.run(&["quarantine", "list", "--json"]).await?;
    let line: serde_json::Value = serde_json::from_str(&id)?;
    assert!(line["detail"].as_str().unwrap().contains("not in bucket BODIES"), "{line}");
    let id = line["id"].as_str().unwrap();
    assert!(stack.recorder.run(&["quarantine", "retry", id]).await.is_err(), "it is still missing");
    put_body(&jetstream, &second).await?;
    stack.recorder.run(&["quarantine", "retry", id]).await?;

    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 2);
    assert!(oracle.tables.messages.values().any(|message| message.content == text), "to the byte");
    Ok(())
}

#[tokio::test]
async fn a_request_of_ten_megabytes_is_recorded_completely_also_while_the_broker_is_away() -> anyhow::Result<()> {
    let mut stack = Stack::with_gateway(&[("GATEWAY_MAX_BODY_BYTES", "33554432")]).await?;
    let ann = stack.user("ann").await?;
    let text = "0123456789abcdef".repeat(640 * 1024);
    stack.finished_chat(&ann, &text).await?;
    stack.nats.stop().await?;
    let other = format!("{text}!");
    stack.finished_chat(&ann, &other).await?;
    stack.finished_chat(&ann, "small").await?;
    stack.nats.start().await?;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
    while stack.events().await? < 6 {
        assert!(tokio::time::Instant::now() < deadline, "{} events", stack.events().await?);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let oracle = stack.settled().await?;
    for text in [text.as_str(), other.as_str(), "small"] {
        assert!(oracle.tables.messages.values().any(|message| message.content == text), "to the byte");
    }
    Ok(())
}
