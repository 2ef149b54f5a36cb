//! Versions of events in one stream: events of version 1 are projected as ever, events of version 2 may be about calls that belong to no
//! conversation, and an event of a version to come waits in quarantine.

use anyhow::Context as _;
use harness::program;
use serde_json::{Value, json};
use shared::envelope;
use shared::event::{Event, EventKind};
use tests::stack::{Stack, publish_again};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Publishes a fixture of `shared/tests/published/fixtures` as the gateway of its time did.
async fn publish(stack: &Stack, fixture: &str) -> anyhow::Result<()> {
    let path = program::checkout().join("shared/tests/published/fixtures").join(fixture);
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in fixture["headers"].as_object().context("no headers")? {
        // The broker ignores a second event with the same message id; the fixtures are about one chat.
        if name != "Nats-Msg-Id" {
            headers.insert(name.as_str(), value.as_str().unwrap_or_default());
        }
    }
    let subject = fixture["subject"].as_str().context("no subject")?.to_owned();
    let payload = fixture["payload"].to_string().into();
    stack.jetstream().await?.publish_with_headers(subject, headers, payload).await?.await?;
    Ok(())
}

#[tokio::test]
async fn before_the_latest_give_the_rows_that_they_always_gave() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    for fixture in ["ChatStarted.v1/whole.json", "MessageCompleted.v1/whole.json", "ChatFailed.v1/orphaned.json"] {
        publish(&stack, &format!("stenograph.{fixture}")).await?;
    }
    stack.drained().await?;
    let pool = stack.database().await?;
    let chat: (String, i64, i64, bool, Option<i16>, String, Option<Value>) = sqlx::query_as(
        "SELECT status, request_digest, ending_digest, has_user_message, new_messages, operation, media FROM chats",
    )
    .fetch_one(&pool)
    .await?;
    let digests = (-3_819_270_765_861_089_362, 8_489_653_799_323_922_202);
    assert_eq!(chat, ("completed".to_owned(), digests.0, digests.1, true, None, "chat".to_owned(), None));
    let messages: Vec<(i16, String, uuid::Uuid, Option<String>)> =
        sqlx::query_as("SELECT position, role, message_id, tool_call_id FROM messages ORDER BY position")
            .fetch_all(&pool)
            .await?;
    let ids = ["01936b6e-2f00-8784-a514-c19a14c72d61", "01936b6e-2f00-8c09-a247-d3a928b4cc8a"].map(str::parse);
    let [user, assistant] = ids;
    let expected = [(0, "user".to_owned(), user?, None), (1, "assistant".to_owned(), assistant?, None)];
    assert_eq!(messages, expected);
    stack.settled().await?;
    let verified = stack.recorder.run(&["verify"]).await?;
    assert!(verified.contains("identical: "), "{verified}");
    Ok(())
}

#[tokio::test]
async fn of_calls_without_a_conversation_are_counted_by_operation() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    let jetstream = stack.jetstream().await?;
    let chat = shared::id::ChatId::mint();
    let now = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let with = |more: Value| {
        let mut event = json!({"chat_id": chat, "operation": "embeddings", "user_id": ann.id, "gateway": "g", "model": "vectors",
            "started_at": now});
        event.as_object_mut().into_iter().for_each(|event| event.extend(more.as_object().cloned().unwrap_or_default()));
        event.to_string()
    };
    let started = with(
        json!({"dialect": "openai", "stream": false, "parameters": {"model": "vectors"}, "messages": ["a", "b"],
        "new_messages": [{"id": chat.new_message(1), "role": "user", "text": "a"}, {"id": chat.new_message(0), "role": "user", "text": "b"}]}),
    );
    let completed = with(json!({"finished_at": now, "duration_ms": 5, "upstream": {"name": "u"}, "attempts": [],
        "media": {"input_items": 2, "output_items": 2, "output_bytes": 4096},
        "usage": {"source": "reported", "prompt_tokens": 7, "completion_tokens": null, "total_tokens": 7,
            "parts": {"uncached_input": 7, "cache_read": 0, "cache_write": 0, "output": 0, "reasoning": 0}}}));
    publish_again(&jetstream, &Event::decode(EventKind::MessageCompleted, completed.as_bytes())?).await?;
    publish_again(&jetstream, &Event::decode(EventKind::ChatStarted, started.as_bytes())?).await?;
    let oracle = stack.settled().await?;
    assert_eq!((oracle.tables.conversations.len(), oracle.tables.operation_slots.len()), (1, 1));

    let usage = stack.read(&ann, "/api/users/me/usage?group=operation").await?;
    let groups: Vec<_> = usage["groups"].as_array().context("no groups")?.iter().collect();
    let of = |key: &str| groups.iter().find(|group| group["key"] == key).map(|group| &group["apiCalls"]);
    assert_eq!((of("chat"), of("embeddings")), (Some(&json!(1)), Some(&json!(1))), "{usage}");
    assert_eq!(usage["total"]["apiCalls"], 2);
    let embeddings = groups.iter().find(|group| group["key"] == "embeddings").context("no embeddings")?;
    assert_eq!((&embeddings["totalTokens"], &embeddings["messagesCreated"]), (&json!(7), &json!(2)));

    let chats = stack.read(&ann, "/api/chats?operation=embeddings").await?;
    let [listed] = &chats["data"].as_array().context("no chats")?[..] else {
        anyhow::bail!("expected one call: {chats}")
    };
    assert_eq!((&listed["operation"], &listed["conversationId"]), (&json!("embeddings"), &Value::Null));
    assert_eq!((&listed["media"]["inputItems"], &listed["media"]["inputBytes"]), (&json!(2), &Value::Null));
    let verified = stack.recorder.run(&["verify"]).await?;
    assert!(verified.contains("identical: "), "{verified}");
    stack.recorder.run(&["rebuild"]).await?;
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn to_come_wait_in_quarantine() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(envelope::TYPE, "stenograph.ChatStarted.v3");
    headers.insert(envelope::ID, "future");
    stack.jetstream().await?.publish_with_headers("chats.started.u", headers, "{}".into()).await?.await?;
    stack.drained().await?;
    let listed = stack.recorder.run(&["quarantine", "list", "--json"]).await?;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(listed.contains("stenograph.ChatStarted.v3"), "{listed}");
    Ok(())
}
