//! Events that the log has lost and that are made again from the tables.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream;
use harness::openai::ApiError;
use harness::upstream::{Gate, Script, Step};
use http::StatusCode;
use recorder::projection::chat::ChatOutcome;
use reqwest::Method;
use serde_json::{Value, json};
use shared::event::{Event, EventKind};
use shared::stream::NAME;
use tests::stack::{MODEL, Stack, User};
use tokio::time::Instant;

use crate::lost_events::{change, copy};
use crate::rebuild::{chats, dump, nothing_is_left};

const PATIENCE: Duration = Duration::from_secs(120);

fn chunk(delta: &Value) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}))
}

/// An answer with reasoning and a call of a tool. The usage has members in an order of the provider's own, and a cost.
fn tool_call() -> Script {
    let call = json!([{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weigh", "arguments": "{\"of\":\"wood\\u0000\"}"}}]);
    let usage = "{\"total_tokens\": 31, \"prompt_tokens\":11,\"completion_tokens\":20.0e0, \"cost\": 1.5e-4, \
                 \"prompt_tokens_details\":{\"cached_tokens\":4},\"completion_tokens_details\":{\"reasoning_tokens\":7}}";
    Script::stream([
        chunk(&json!({"role": "assistant", "reasoning_content": "Let me think."})),
        chunk(&json!({"content": "I weigh it."})),
        chunk(&json!({"tool_calls": call})),
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"tool_calls\"}}],\"usage\":{usage}}}\n\n"
        ),
        "data: [DONE]\n\n".to_owned(),
    ])
}

/// Records calls and changes of many kinds. Every kind of event occurs.
async fn many_kinds(stack: &Stack, ann: &User) -> anyhow::Result<()> {
    stack.upstream.respond_next(tool_call());
    let request = stack.post("/v1/chat/completions").bearer_auth(&ann.token).header("x-stenograph-tags", "red, blue");
    let deep: Value = serde_json::from_str(&format!("{{\"a\":{}{}}}", "[".repeat(110), "]".repeat(110)))?;
    let body = json!({"model": MODEL, "stream": true, "temperature": 0.3, "user": "u-1\0", "metadata": deep,
        "messages": [{"role": "user", "content": "weigh"}, {"role": "assistant", "content": "yes"},
            {"role": "tool", "tool_call_id": "call_0", "content": "318 kg"}, {"role": "user", "content": "again\0 — 木"}]});
    request.json(&body).send().await?.error_for_status()?.text().await?;
    let request = stack.post("/v1/chat/completions").bearer_auth(&ann.token);
    let body =
        json!({"model": MODEL, "metadata": {"zz": 1.50, "b": [1e3]}, "messages": [{"role": "user", "content": "x"}]});
    request.json(&body).send().await?.error_for_status()?.text().await?;
    stack.upstream.respond_next(Script::error(&ApiError::invalid("no".into(), None)));
    ensure!(stack.chat(ann, "one too many").send().await?.status() == 400);
    // A response in the background.
    for status in ["queued", "completed"] {
        let response = json!({"id": "resp_1", "status": status, "output": [{"type": "message", "content":
            [{"type": "output_text", "text": "thought"}]}]});
        stack.upstream.respond_next(Script::json(StatusCode::OK, response.to_string()));
    }
    let deferred = json!({"model": MODEL, "input": "think", "background": true});
    stack.post("/v1/responses").bearer_auth(&ann.token).json(&deferred).send().await?.error_for_status()?;
    stack.request(Method::GET, "/v1/responses/resp_1").bearer_auth(&ann.token).send().await?.error_for_status()?;
    // An answer that breaks off, and one that is too large for a message of the broker.
    stack.upstream.respond_next(Script::stream([chunk(&json!({"content": "half an ans"}))]).after(1, Step::Cut));
    let _ = stack.chat(ann, "break off").send().await?.text().await;
    stack.finished_chat(ann, &"long ".repeat(250_000)).await?;
    let vectors = json!({"object": "list", "model": "embedder", "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
        "usage": {"prompt_tokens": 9, "total_tokens": 9}});
    stack.upstream.respond_next(Script::json(StatusCode::OK, vectors.to_string()));
    let request = stack.post("/v1/embeddings").bearer_auth(&ann.token);
    request.json(&json!({"model": MODEL, "input": ["a", "b"]})).send().await?.error_for_status()?.bytes().await?;

    // Conversations: opened, renamed and archived by one change and by two, deleted.
    for (number, changes) in
        [json!([{"title": "A", "archived": true}]), json!([{"title": "B"}, {"archived": true}]), json!([])]
            .into_iter()
            .enumerate()
    {
        let body = json!({"title": format!("Opened {number}"), "model": MODEL, "temperature": 0.5});
        let opened = stack.post("/api/conversations").bearer_auth(&ann.token).json(&body).send().await?;
        let opened: Value = opened.error_for_status()?.json().await?;
        let path = format!("/api/conversations/{}", opened["id"].as_str().context("an id")?);
        for one in changes.as_array().into_iter().flatten() {
            change(stack, ann, Method::PATCH, &path, one.clone()).await?;
        }
        if number == 2 {
            change(stack, ann, Method::DELETE, &path, json!(null)).await?;
        }
    }

    // Keys: issued, changed, revoked; limits with a budget; projects; prices; a login that fails, for the audit log.
    for number in 0..3 {
        let new = json!({"name": format!("key {number}"), "models": ["scripted-*"], "operations": ["chat"]});
        let issued = stack.post("/api/keys").bearer_auth(&ann.token).json(&new).send().await?.error_for_status()?;
        let issued: Value = issued.json().await?;
        let path = format!("/api/keys/{}", issued["id"].as_str().context("an id")?);
        if number > 0 {
            change(stack, ann, Method::PATCH, &path, json!({"name": "nightly", "models": []})).await?;
        }
        if number > 1 {
            change(stack, ann, Method::DELETE, &path, json!(null)).await?;
        }
    }
    stack
        .recorder
        .run(&[
            "limits",
            "set",
            "model:other",
            "--requests-per-minute",
            "60",
            "--budget",
            "12.5",
            "--budget-period",
            "month",
        ])
        .await?;
    stack.recorder.run(&["limits", "set", "model:other", "--requests-per-minute", "70"]).await?;
    stack.recorder.run(&["projects", "create", "Research", "--member", "ann"]).await?;
    let list = stack.directory().join("prices.json");
    let prices = json!([{"id": "scripted", "model_match": {"contains": "scripted"}, "models": [
        {"id": "any", "match": {"contains": "scripted"}, "prices": {"input_mtok": 2, "output_mtok": 8}}]}]);
    std::fs::write(&list, format!("{prices}{}", " ".repeat(900_000)))?;
    stack.recorder.run(&["prices", "publish", list.to_str().context("a text")?, "--layer", "own"]).await?;
    stack.recorder.run(&["reprice", "--since", "2026-01-01"]).await?;
    let login =
        stack.post("/api/auth/login").json(&json!({"name": "nobody", "password": "a wrong password"})).send().await?;
    ensure!(login.status().is_client_error(), "{}", login.status());
    Ok(())
}

/// Kills the gateway and the recorder, and puts an older copy of the stream back.
async fn put_back(stack: &mut Stack, older: &std::path::Path) -> anyhow::Result<()> {
    let messages = stack.nats.messages_of(NAME);
    stack.gateway.kill9().await;
    stack.recorders.remove(0).kill9().await;
    stack.nats.stop().await?;
    std::fs::remove_dir_all(&messages)?;
    copy(older, &messages)?;
    stack.nats.start().await
}

async fn stored(stack: &Stack) -> anyhow::Result<u64> {
    Ok(stack.jetstream().await?.get_stream(NAME).await?.cached_info().state.messages)
}

fn ids(events: &[Event]) -> BTreeSet<uuid::Uuid> {
    events.iter().map(|event| event.id().0).collect()
}

#[tokio::test]
async fn of_every_kind_give_the_same_tables_and_are_made_again_once() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    let gate = Gate::new();
    let end = format!("{}data: [DONE]\n\n", chunk(&json!({"content": "late"})));
    stack
        .upstream
        .respond_next(Script::stream([chunk(&json!({"content": "early"})), end]).after(1, Step::Wait(gate.clone())));
    let mut running = stack.chat(&ann, "a long question").send().await?;
    ensure!(running.chunk().await?.is_some());
    stack.settled().await?;
    let (before, older) = (stored(&stack).await?, stack.directory().join("older"));
    copy(&stack.nats.messages_of(NAME), &older)?;
    gate.open();
    running.text().await?;
    many_kinds(&stack, &ann).await?;
    let complete = stack.settled().await?;
    let kinds: BTreeSet<_> = complete.events.iter().map(Event::kind).collect();
    ensure!(kinds.len() == EventKind::ALL.len(), "expected an event of every kind, found {kinds:?}");
    ensure!(complete.tables.chats.values().any(|chat| {
        chat.ending
            .as_ref()
            .is_some_and(|ending| matches!(ending.outcome, ChatOutcome::Failed { .. }) && ending.has_message)
    }));
    put_back(&mut stack, &older).await?;

    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    let differs = stack.recorder.run(&["verify"]).await.expect_err("the log lacks events").to_string();
    ensure!(differs.contains("exit status: 3"), "{differs}");
    let refused = stack.recorder.run(&["rebuild"]).await.expect_err("rows would be lost").to_string();
    ensure!(refused.contains("exit status: 4") && refused.contains("recorder restore-events"), "{refused}");

    let planned = stack.recorder.run(&["restore-events", "--dry-run"]).await?;
    ensure!(stored(&stack).await? == before, "a dry run publishes nothing");
    let restored = stack.recorder.run(&["restore-events"]).await?;
    assert_eq!(restored, planned.replace("would publish", "published"));
    for kind in EventKind::ALL {
        let name = kind.type_name().split('.').nth(1).unwrap_or_default();
        ensure!(restored.contains(name), "no {name}: {restored}");
    }
    nothing_is_left(&pool).await?;
    // The chat whose start is in the log got its end alone.
    let count = |events: &[Event], kind| events.iter().filter(|event| event.kind() == kind).count();
    let verified = stack.recorder.run(&["verify"]).await?;
    ensure!(verified.starts_with("identical: "), "{verified}");
    assert_eq!(dump(&pool, "public").await?, rows, "the tables must be unchanged");
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows, "a rebuild must give the rows of the snapshot");

    let again = stack.recorder.run(&["restore-events"]).await?;
    ensure!(again.starts_with("published nothing"), "{again}");
    // The recorder reads everything again and counts nothing twice, and neither does it count what the gateway publishes again.
    stack.add_recorder().await?;
    let oracle = stack.settled().await?;
    for kind in [EventKind::ChatStarted, EventKind::MessageCompleted, EventKind::ChatFailed] {
        assert_eq!(count(&oracle.events, kind), count(&complete.events, kind), "{kind:?}");
    }
    assert_eq!(oracle.events.len(), ids(&oracle.events).len(), "an event is in the log twice");
    assert_eq!(dump(&pool, "public").await?, rows);
    stack.restart_gateway().await?;
    stack.settled().await?;
    let after = dump(&pool, "public").await?;
    for table in ["chats", "messages", "conversations", "usage_stats", "usage_slots", "key_slots", "operation_slots"] {
        assert_eq!(after[table], rows[table], "{table}");
    }
    // Exported, a restored event says so.
    let exported = stack.recorder.run(&["replay", "--format", "jsonl", "--quiet"]).await?;
    ensure!(exported.contains("\"restored_at\""), "no event has the mark");
    Ok(())
}

#[tokio::test]
async fn are_the_rest_after_a_kill_while_a_recorder_consumes() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 2).await?;
    stack.settled().await?;
    let older = stack.directory().join("older");
    copy(&stack.nats.messages_of(NAME), &older)?;
    chats(&stack, &ann, 600).await?;
    let complete = ids(&stack.settled().await?.events);
    put_back(&mut stack, &older).await?;
    stack.add_recorder().await?;
    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    let stream = stack.jetstream().await?.get_stream(NAME).await?;
    let mut command = stack.recorder.spawn(&["restore-events"])?;
    let began = Instant::now();
    while stream.get_info().await?.state.messages < 50 {
        ensure!(began.elapsed() < PATIENCE, "nothing is published");
    }
    command.kill()?;
    command.wait()?;
    let stored = stream.get_info().await?.state.messages;
    ensure!(stored < complete.len() as u64, "the command had finished before it was killed");
    let restored = stack.recorder.run(&["restore-events"]).await?;
    let rest = complete.len() as u64 - stored;
    ensure!(restored.starts_with(&format!("published {rest} events: ")), "{rest} are missing: {restored}");
    let oracle = stack.settled().await?;
    assert_eq!(oracle.events.len(), complete.len());
    assert_eq!(ids(&oracle.events), complete);
    assert_eq!(dump(&pool, "public").await?, rows);
    stack.recorder.run(&["verify"]).await?;
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows);
    Ok(())
}

/// The oldest events of a stream with a bound are dropped on purpose, and are no loss unless an operator says so. A stream that was made
/// again has dropped nothing: all that it lacks is lost.
#[tokio::test]
async fn are_not_those_that_a_stream_drops_for_their_age() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 5).await?;
    stack.settled().await?;
    stack.gateway.kill9().await;
    stack.recorders.remove(0).kill9().await;
    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    let jetstream = stack.jetstream().await?;
    jetstream.get_stream(NAME).await?.purge().sequence(9).await?;
    let kept = stack.recorder.run(&["restore-events", "--dry-run"]).await?;
    ensure!(kept.contains("chats are older than the log"), "{kept}");
    let all = stack.recorder.run(&["restore-events", "--older-as-lost", "--dry-run"]).await?;
    ensure!(all.starts_with("would publish 8 events: "), "{all}");

    jetstream.delete_stream(NAME).await?;
    stack.recorder.run(&["stream", "create"]).await?;
    let all = stack.recorder.run(&["restore-events"]).await?;
    assert_eq!(all, "published 10 events: 5 ChatStarted, 5 MessageCompleted");
    stack.recorder.run(&["verify"]).await?;
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows);
    Ok(())
}

/// The broker takes an event for a repetition whose id it still knows, although somebody has deleted the event.
#[tokio::test]
async fn are_stored_when_the_broker_has_forgotten_their_ids() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    // A recorder that just starts refuses a stream with another window than it expects.
    stack.recorders[0].ready().await?;
    let jetstream = stack.jetstream().await?;
    let stream = jetstream.get_stream(NAME).await?;
    let config =
        jetstream::stream::Config { duplicate_window: Duration::from_secs(15), ..stream.cached_info().config.clone() };
    jetstream.update_stream(config).await?;
    chats(&stack, &ann, 3).await?;
    stack.settled().await?;
    for sequence in [5, 6] {
        stream.delete_message(sequence).await?;
    }
    let restored = stack.recorder.run(&["restore-events"]).await?;
    ensure!(restored.starts_with("published 2 events: "), "{restored}");
    ensure!(stored(&stack).await? == 6, "the broker did not store the events");
    let again = stack.recorder.run(&["restore-events"]).await?;
    ensure!(again.starts_with("published nothing"), "{again}");
    stack.settled().await?;
    Ok(())
}

/// Rows that no event gives are named, and the rest is made again.
#[tokio::test]
async fn leave_rows_that_no_event_gives() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 1).await?;
    stack.settled().await?;
    let older = stack.directory().join("older");
    copy(&stack.nats.messages_of(NAME), &older)?;
    chats(&stack, &ann, 3).await?;
    stack.settled().await?;
    put_back(&mut stack, &older).await?;
    let pool = stack.database().await?;
    sqlx::raw_sql("DELETE FROM messages WHERE message_id = (SELECT message_id FROM messages WHERE position = 1 ORDER BY chat_id DESC LIMIT 1)")
        .execute(&pool)
        .await?;
    let left = stack.recorder.run(&["restore-events"]).await.expect_err("a chat lacks its answer").to_string();
    ensure!(left.contains("exit status: 4") && left.contains("1 chats set back"), "{left}");
    ensure!(left.contains("published 5 events: 3 ChatStarted, 2 MessageCompleted"), "{left}");
    Ok(())
}
