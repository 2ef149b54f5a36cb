//! The limits of scopes, as they are set, recorded and told to the gateways.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use shared::access::{Act, BUCKET, Entry, LimitState, limit_name};
use shared::event::{Event, LimitScope, LimitsChanged, UsageLimits};
use shared::id::ChangeId;
use tests::stack::{Stack, User, publish_again};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// The time for which a condition is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stack with the API, and an administrator.
async fn with_admin() -> anyhow::Result<(Stack, User)> {
    let stack = Stack::with_api(&[], &[]).await?;
    let root = stack.user("root").await?;
    stack.recorder.run(&["users", "admin", "root"]).await?;
    Ok((stack, root))
}

/// The path of a scope; each byte that is no letter or digit is percent-encoded.
fn path(scope: &str) -> String {
    let encoded = scope.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    format!("/api/admin/limits/{}", encoded.collect::<String>())
}

async fn ask(stack: &Stack, user: &User, method: Method, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let response = stack.request(method, path).bearer_auth(&user.token).json(body).send().await?;
    let (status, text) = (response.status().as_u16(), response.text().await?);
    Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
}

async fn set(stack: &Stack, user: &User, scope: &str, limits: &Value) -> anyhow::Result<Value> {
    let (status, body) = ask(stack, user, Method::PUT, &path(scope), limits).await?;
    ensure!(status == 200, "{scope}: {status} {body}");
    Ok(body)
}

/// The limits of a scope in the bucket that gateways follow.
async fn entry(stack: &Stack, scope: &str) -> anyhow::Result<Option<LimitState>> {
    let name = limit_name(&scope.parse()?);
    let value = stack.jetstream().await?.get_key_value(BUCKET).await?.get(&name).await?;
    Ok(value.and_then(|value| match Entry::read(&name, &value) {
        Some(Entry::Limit(limit)) => Some(limit),
        _ => None,
    }))
}

#[tokio::test]
async fn is_set_listed_and_removed_by_administrators_and_equal_in_table_bucket_and_log() -> anyhow::Result<()> {
    let (stack, root) = with_admin().await?;
    let limits = json!({"requestsPerMinute": 60, "tokensPerMinute": 1_000_000_000_000_u64, "concurrentChats": 0});
    let project = "project:01936b6e-2f00-7abc-8def-0123456789ab";
    let key = "key:01936b6e-2f00-7abc-8def-0123456789ab";
    let scopes = ["deployment", "everyone", key, "model:meta/llama 3:é%", project, "user:idp.example|a/b"];
    for scope in scopes {
        let body = set(&stack, &root, scope, &limits).await?;
        ensure!(body["scope"] == scope && body["changedBy"] == root.id.as_str(), "{body}");
        // The entry is there before the answer.
        let entry = entry(&stack, scope).await?.context("no entry")?;
        ensure!(entry.limits.requests_per_minute == Some(60) && entry.limits.concurrent_chats == Some(0), "{entry:?}");
        ensure!(stack.read(&root, &path(scope)).await? == body, "{scope}");
    }
    // A change replaces all limits, at once.
    let changed = set(&stack, &root, "everyone", &json!({"concurrentChats": 4, "tokensPerMinute": null})).await?;
    let expected = json!({"scope": "everyone", "requestsPerMinute": null, "tokensPerMinute": null, "concurrentChats": 4,
        "budget": null, "changedAt": changed["changedAt"], "changedBy": root.id});
    ensure!(changed == expected, "{changed}");
    ensure!(stack.read(&root, &path("everyone")).await? == expected);
    let (status, _) = ask(&stack, &root, Method::DELETE, &path("deployment"), &json!({})).await?;
    ensure!(status == 204, "{status}");
    let removed = stack.read(&root, &path("deployment")).await?;
    ensure!(removed["requestsPerMinute"].is_null() && removed["changedAt"].is_string(), "{removed}");

    let rows = stack.settled().await?.tables.admin.limits;
    ensure!(rows.len() == scopes.len());
    for (scope, row) in &rows {
        ensure!(entry(&stack, &scope.to_string()).await?.as_ref() == Some(row), "{scope}: {row:?}");
    }
    ensure!(rows[&LimitScope::Deployment].limits.is_empty());
    // Removing what is not there is no change, and neither is a scope that never had limits.
    let events = stack.events().await?;
    for scope in ["deployment", "user:nobody"] {
        ensure!(ask(&stack, &root, Method::DELETE, &path(scope), &json!({})).await?.0 == 204);
        let shown = stack.read(&root, &path(scope)).await?;
        ensure!(shown["scope"] == scope && shown["concurrentChats"].is_null(), "{shown}");
    }
    ensure!(stack.events().await? == events);
    // The list, page by page.
    let (mut listed, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = stack.read(&root, &format!("/api/admin/limits?{query}")).await?;
        let rows = page["data"].as_array().context("a list")?;
        ensure!(rows.len() <= 2);
        listed.extend(rows.iter().filter_map(|row| row["scope"].as_str().map(str::to_owned)));
        let Some(next) = page["nextCursor"].as_str() else { break };
        let next: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
        query = format!("limit=2&cursor={next}");
    }
    ensure!(listed == scopes[1..], "{listed:?}");

    // The rows are a function of the log.
    let printed = stack.recorder.run(&["verify"]).await?;
    ensure!(printed.contains(", 6 limits, 0 projects, 0 price lists, 0 repricings, "), "{printed}");
    let pool = stack.database().await?;
    sqlx::query("UPDATE limits SET concurrent_chats = 5 WHERE scope = 'everyone'").execute(&pool).await?;
    let Err(difference) = stack.recorder.run(&["verify"]).await else { anyhow::bail!("verify covers the table") };
    let difference = difference.to_string();
    ensure!(difference.contains("everyone") && difference.contains("LimitsChanged"), "{difference}");
    sqlx::query("DELETE FROM limits").execute(&pool).await?;
    stack.recorder.run(&["rebuild"]).await?;
    ensure!(stack.settled().await?.tables.admin.limits == rows);
    stack.recorder.run(&["verify"]).await?;
    Ok(())
}

#[tokio::test]
async fn is_that_of_the_latest_change_in_any_order_and_after_losses() -> anyhow::Result<()> {
    let (mut stack, root) = with_admin().await?;
    set(&stack, &root, "deployment", &json!({"requestsPerMinute": 60})).await?;
    let rows = stack.settled().await?.tables.admin.limits;
    let newest = rows[&LimitScope::Deployment].clone();
    let jetstream = stack.jetstream().await?;
    // An older change that arrives late changes nothing, however late its time is.
    let late = |scope: &str, id: u128, limit| -> anyhow::Result<Event> {
        Ok(Event::LimitsChanged(Box::new(LimitsChanged {
            change_id: ChangeId(Uuid::from_u128(id)),
            scope: scope.parse()?,
            changed_at: shared::event::now(),
            changed_by: "cli".parse()?,
            limits: UsageLimits { requests_per_minute: Some(limit), ..UsageLimits::default() },
            restored: None,
        })))
    };
    publish_again(&jetstream, &late("deployment", 1, 1)?).await?;
    publish_again(&jetstream, &late("everyone", 2, u64::MAX)?).await?;
    publish_again(&jetstream, &late("everyone", 1, 1)?).await?;
    let tables = stack.settled().await?.tables;
    ensure!(tables.admin.limits[&LimitScope::Deployment] == newest);
    let everyone = tables.admin.limits[&LimitScope::Everyone].clone();
    ensure!(everyone.limits.requests_per_minute == Some(UsageLimits::MAX), "{everyone:?}");
    ensure!(entry(&stack, "deployment").await?.as_ref() == Some(&newest));
    // Recorders write the entries of events that other programs published.
    ensure!(entry(&stack, "everyone").await?.as_ref() == Some(&everyone));
    // A change gets a greater id than the present one, whatever the clock says.
    let far = late("everyone", u128::MAX >> 1, 7)?;
    publish_again(&jetstream, &far).await?;
    stack.settled().await?;
    set(&stack, &root, "everyone", &json!({"requestsPerMinute": 8})).await?;
    let rows = stack.settled().await?.tables.admin.limits;
    ensure!(rows[&LimitScope::Everyone].limits.requests_per_minute == Some(8));
    // A lost entry and an older entry heal.
    let bucket = jetstream.get_key_value(BUCKET).await?;
    bucket.purge(limit_name(&LimitScope::Everyone)).await?;
    let older = LimitState {
        scope: LimitScope::Deployment,
        change_id: Uuid::from_u128(1),
        changed: Act { at: shared::event::now(), by: "cli".into() },
        limits: UsageLimits::default(),
    };
    bucket.put(limit_name(&LimitScope::Deployment), Entry::Limit(older).encode()?.into()).await?;
    stack.recorders.clear();
    stack.add_recorder().await?;
    let began = Instant::now();
    for (scope, row) in &rows {
        while entry(&stack, &scope.to_string()).await?.as_ref() != Some(row) {
            ensure!(began.elapsed() < PATIENCE, "the entry of {scope} does not heal");
            sleep(Duration::from_millis(20)).await;
        }
    }
    // Limits whose events the log no longer has stay, and a rebuild keeps them.
    let stream = jetstream.get_stream(shared::stream::NAME).await?;
    stream.purge().await?;
    stack.finished_chat(&root, "the log goes on").await?;
    stack.drained().await?;
    stack.recorder.run(&["rebuild"]).await?;
    let pool = stack.database().await?;
    let kept: Vec<(String, i64)> =
        sqlx::query_as("SELECT scope, requests_per_minute FROM limits ORDER BY scope").fetch_all(&pool).await?;
    ensure!(kept == [("deployment".to_owned(), 60), ("everyone".to_owned(), 8)], "{kept:?}");
    Ok(())
}

#[tokio::test]
async fn is_for_administrators_alone_and_takes_no_bad_input() -> anyhow::Result<()> {
    let (stack, root) = with_admin().await?;
    let ann = stack.user("ann").await?;
    let good = json!({"requestsPerMinute": 1});
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let (status, body) = ask(&stack, &ann, method.clone(), &path("everyone"), &good).await?;
        ensure!(status == 404, "{method}: {status} {body}");
        let nobody = stack.request(method.clone(), &path("everyone")).json(&good).send().await?;
        ensure!(nobody.status() == 401, "{method}");
    }
    ensure!(ask(&stack, &ann, Method::GET, "/api/admin/limits", &json!({})).await?.0 == 404);
    for bad in [json!(-1), json!(1.5), json!("60"), json!(1_000_000_000_001_u64), json!(1e30), json!([]), json!(true)] {
        for name in ["requestsPerMinute", "tokensPerMinute", "concurrentChats"] {
            let (status, body) = ask(&stack, &root, Method::PUT, &path("everyone"), &json!({name: bad})).await?;
            let error = &body["error"];
            let message = error["message"].as_str().unwrap_or_default();
            let says = message.starts_with(name) && message.contains("0 to 1000000000000");
            ensure!(status == 400 && error["param"] == name && says, "{bad}: {status} {body}");
        }
    }
    for body in [json!({"requestsPerHour": 1}), json!([]), json!(null)] {
        let (status, answer) = ask(&stack, &root, Method::PUT, &path("everyone"), &body).await?;
        ensure!(status == 400, "{body}: {status} {answer}");
    }
    let long = format!("model:{}", "m".repeat(257));
    for scope in ["team:1", "user:", "Deployment", "key:1", "model:a\nb", &long] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let (status, body) = ask(&stack, &root, method, &path(scope), &good).await?;
            let message = body["error"]["message"].as_str().unwrap_or_default();
            ensure!(status == 400 && message.contains("expected deployment, everyone"), "{scope}: {status} {body}");
        }
    }
    ensure!(ask(&stack, &root, Method::GET, "/api/admin/limits?limit=0", &json!({})).await?.0 == 400);
    ensure!(stack.settled().await?.tables.admin.limits.is_empty(), "bad input changes nothing");
    Ok(())
}

#[tokio::test]
async fn is_changed_from_the_command_line() -> anyhow::Result<()> {
    let (stack, root) = with_admin().await?;
    for arguments in [
        &["limits", "set", "everyone"][..],
        &["limits", "set", "everyone", "--requests-per-minute", "-1"],
        &["limits", "set", "everyone", "--concurrent-chats", "1000000000001"],
        &["limits", "set", "team:1", "--requests-per-minute", "1"],
        &["limits", "clear", "user:"],
    ] {
        ensure!(stack.recorder.run(arguments).await.is_err(), "{arguments:?} was accepted");
    }
    let arguments = ["limits", "set", "user:idp|ann", "--requests-per-minute", "60", "--concurrent-chats", "2"];
    ensure!(stack.recorder.run(&arguments).await? == "set");
    stack.recorder.run(&["limits", "set", "model:o3", "--tokens-per-minute", "1000"]).await?;
    let shown = stack.read(&root, &path("user:idp|ann")).await?;
    ensure!(shown["requestsPerMinute"] == 60 && shown["changedBy"] == "cli", "{shown}");
    stack.settled().await?;
    let listed = stack.recorder.run(&["limits", "list"]).await?;
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    ensure!(lines.len() == 2, "{listed}");
    ensure!(lines[0][..4] == ["model:o3", "-", "1000", "-"] && lines[0][6] == "cli", "{listed}");
    ensure!(lines[1][..4] == ["user:idp|ann", "60", "-", "2"], "{listed}");
    ensure!(stack.recorder.run(&["limits", "clear", "model:o3"]).await? == "cleared");
    ensure!(entry(&stack, "model:o3").await?.is_some_and(|entry| entry.limits.is_empty()));
    stack.settled().await?;
    let listed = stack.recorder.run(&["limits", "list"]).await?;
    ensure!(listed.lines().count() == 1 && listed.starts_with("user:idp|ann"), "{listed}");
    stack.recorder.run(&["verify"]).await?;
    Ok(())
}
