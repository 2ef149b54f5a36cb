//! Published events against the documentation: JSON Schemas, CloudEvents, and subscribers written as documented.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use harness::openai::ApiError;
use harness::program;
use harness::upstream::Script;
use serde_json::{Value, json};
use shared::event::EventKind;
use tests::clients;
use tests::stack::{Stack, User};

/// A stream with events of all kinds, and one of the users.
async fn published() -> anyhow::Result<(Stack, User)> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "question — é").await?;
    let new = json!({"name": "batch", "models": ["scripted-*"], "operations": ["chat"]});
    let issued = stack.post("/api/keys").bearer_auth(&ann.token).json(&new).send().await?.error_for_status()?;
    let issued: Value = issued.json().await?;
    let path = format!("/api/keys/{}", issued["id"].as_str().unwrap_or_default());
    let change = stack.request(reqwest::Method::PATCH, &path).bearer_auth(&ann.token);
    change.json(&json!({"name": "nightly"})).send().await?.error_for_status()?;
    stack.request(reqwest::Method::DELETE, &path).bearer_auth(&ann.token).send().await?.error_for_status()?;
    stack.recorder.run(&["users", "admin", "ann"]).await?;
    let change = stack.request(reqwest::Method::PUT, "/api/admin/limits/model:other").bearer_auth(&ann.token);
    change.json(&json!({"requestsPerMinute": 60})).send().await?.error_for_status()?;
    let project = stack.post("/api/admin/projects").bearer_auth(&ann.token);
    project.json(&json!({"name": "Research", "members": [ann.id]})).send().await?.error_for_status()?;
    let list = stack.directory().join("prices.json");
    std::fs::write(&list, "[]")?;
    let list = list.to_str().context("a path that is no text")?;
    stack.recorder.run(&["prices", "publish", list, "--layer", "own"]).await?;
    stack.recorder.run(&["reprice", "--since", "2026-01-01"]).await?;
    for status in ["queued", "completed"] {
        let response = json!({"id": "resp_1", "status": status, "output": [{"type": "message", "content":
            [{"type": "output_text", "text": "thought"}]}]});
        stack.upstream.respond_next(Script::json(http::StatusCode::OK, response.to_string()));
    }
    let deferred = json!({"model": tests::stack::MODEL, "input": "think", "background": true});
    stack.post("/v1/responses").bearer_auth(&ann.token).json(&deferred).send().await?.error_for_status()?;
    let made = stack.request(reqwest::Method::GET, "/v1/responses/resp_1").bearer_auth(&ann.token);
    made.send().await?.error_for_status()?;
    stack.upstream.respond_next(Script::error(&ApiError::invalid("no".into(), None)));
    assert_eq!(stack.chat(&ann, "one too many").send().await?.status(), 400);
    let body = json!({"title": "Woodchucks", "model": tests::stack::MODEL, "temperature": 0.5});
    let opened = stack.post("/api/conversations").bearer_auth(&ann.token).json(&body).send().await?;
    let opened: Value = opened.error_for_status()?.json().await?;
    let path = format!("/api/conversations/{}", opened["id"].as_str().unwrap_or_default());
    let change = stack.request(reqwest::Method::PATCH, &path).bearer_auth(&ann.token);
    change.json(&json!({"title": "Woodchucks and others", "archived": true})).send().await?.error_for_status()?;
    let deletion = stack.request(reqwest::Method::DELETE, &path).bearer_auth(&ann.token);
    deletion.send().await?.error_for_status()?;
    let oracle = stack.settled().await?;
    let kinds: BTreeSet<_> = oracle.events.iter().map(shared::event::Event::kind).collect();
    ensure!(kinds.len() == EventKind::ALL.len(), "expected an event of every kind, found {kinds:?}");
    Ok((stack, ann))
}

#[tokio::test]
async fn are_cloud_events_with_payloads_that_match_the_schemas() -> anyhow::Result<()> {
    let (stack, _) = published().await?;
    let Some(printed) = clients::run("cloudevents.sh", &[], &[("NATS_URL", &stack.nats.url())]).await? else {
        return Ok(());
    };
    for kind in EventKind::ALL {
        assert!(printed.contains(kind.type_name()), "{printed}");
    }
    Ok(())
}

#[tokio::test]
async fn have_an_asyncapi_document_that_an_independent_parser_accepts() -> anyhow::Result<()> {
    let Some(printed) = clients::run("asyncapi.sh", &[], &[]).await? else { return Ok(()) };
    assert_eq!(printed, format!("AsyncAPI 3.0.0: {0} messages on {0} channels", EventKind::ALL.len()));
    Ok(())
}

#[tokio::test]
async fn reach_a_python_subscriber_as_documented() -> anyhow::Result<()> {
    let (stack, ann) = published().await?;
    let Some(python) = clients::run("venv.sh", &["nats-py", "nats-py==2.16.0"], &[]).await? else { return Ok(()) };
    let page = std::fs::read_to_string(program::checkout().join("docs/EVENTS.md"))?;
    let [program] = &clients::blocks(&page, "python")[..] else {
        anyhow::bail!("expected one Python program in docs/EVENTS.md")
    };
    let mut command = std::process::Command::new(python);
    command.args(["-c", program]).env("NATS_URL", stack.nats.url()).env("USER_ID", &ann.id);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (printed, logged) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{logged}");
    let events = stack.settled().await?.events;
    let of_ann = events.iter().filter(|event| event.user_id().as_str() == ann.id).count();
    assert_eq!(printed.lines().count(), of_ann, "{printed}");
    Ok(())
}
