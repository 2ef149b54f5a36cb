//! `GET /api/limits`: the limits that apply to the caller, and what is used of them.

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User};

async fn set(stack: &Stack, scope: &str, limits: Value) -> anyhow::Result<()> {
    let admin = stack.user("root").await?;
    stack.recorder.run(&["users", "admin", "root"]).await?;
    let path = format!("/api/admin/limits/{}", scope.replace(':', "%3A"));
    let response = stack.request(Method::PUT, &path).bearer_auth(&admin.token).json(&limits).send().await?;
    ensure!(response.status() == 200, "{scope}: {} {}", response.status(), response.text().await?);
    Ok(())
}

/// The limits of the caller: scope, kind, maximum and use.
async fn limits_of(stack: &Stack, user: &User) -> anyhow::Result<Vec<(String, String, u64, Option<u64>)>> {
    let found = stack.read(user, "/api/limits").await?;
    let limits = found["data"].as_array().context("a list")?.iter();
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    limits
        .map(|one| {
            ensure!(one["resetsAt"].is_string() == (one["used"].is_u64() && one["kind"] != "concurrentChats"), "{one}");
            let max = one["max"].as_u64().context("a maximum")?;
            Ok((text(&one["scope"])?, text(&one["kind"])?, max, one["used"].as_u64()))
        })
        .collect()
}

#[tokio::test]
async fn show_the_callers_use_of_each_limit_that_applies() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    ensure!(limits_of(&stack, &ann).await?.is_empty());
    let key = stack.post("/api/keys").bearer_auth(&ann.token).json(&json!({"name": "a key"})).send().await?;
    let key: Value = key.error_for_status()?.json().await?;
    let (key_id, text) = (key["id"].as_str().context("id")?, key["key"].as_str().context("key")?);
    set(&stack, "everyone", json!({"requestsPerMinute": 100, "concurrentChats": 7})).await?;
    set(&stack, &format!("user:{}", ann.id), json!({"requestsPerMinute": 1000, "tokensPerMinute": 90_000})).await?;
    set(&stack, &format!("key:{key_id}"), json!({"requestsPerMinute": 50})).await?;
    set(&stack, "deployment", json!({"concurrentChats": 500})).await?;
    set(&stack, &format!("model:{MODEL}"), json!({"requestsPerMinute": 5000})).await?;
    set(&stack, &format!("user:{}", bob.id), json!({"concurrentChats": 3})).await?;
    stack.settled().await?;

    // All calls of the test are in one minute, as long as the test is tried again at the turn of a minute.
    for attempt in 1.. {
        let minute = time::OffsetDateTime::now_utc().minute();
        stack.finished_chat(&ann, "with a session").await?;
        stack.finished_chat(&bob, "of somebody else").await?;
        let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "with a key"}]});
        stack.post("/v1/chat/completions").bearer_auth(text).json(&body).send().await?.error_for_status()?;
        stack.settled().await?;
        let found = limits_of(&stack, &ann).await?;
        let chats = stack.read(&ann, "/api/chats").await?;
        let tokens = |count: usize| -> Option<u64> {
            chats["data"].as_array()?.iter().take(count).map(|chat| chat["usage"]["totalTokens"].as_u64()).sum()
        };
        if time::OffsetDateTime::now_utc().minute() != minute || attempt > 1 && found[0].3 != Some(2) {
            ensure!(attempt < 3, "{found:?}");
            tokio::time::sleep(std::time::Duration::from_secs(
                61 - u64::from(time::OffsetDateTime::now_utc().second()),
            ))
            .await;
            continue;
        }
        let limit = |scope: &str, kind: &str, max, used| (scope.to_owned(), kind.to_owned(), max, used);
        let own = format!("user:{}", ann.id);
        let expected = [
            limit(&own, "requestsPerMinute", 1000, Some(2)),
            limit(&own, "tokensPerMinute", 90_000, tokens(2)),
            // The user's own limit of requests replaces the default; the user has no limit of calls at the same time.
            limit("everyone", "concurrentChats", 7, Some(0)),
            limit("deployment", "concurrentChats", 500, None),
            limit(&format!("key:{key_id}"), "requestsPerMinute", 50, Some(1)),
            limit(&format!("model:{MODEL}"), "requestsPerMinute", 5000, None),
        ];
        ensure!(found == expected, "{found:#?}");
        return Ok(());
    }
    Ok(())
}
