//! API keys: issued by the API, accepted wherever clients put their keys, refused everywhere once revoked, broker or not.

mod losses;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use harness::services::Gateway;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use shared::id::KeyId;
use tests::stack::{MODEL, Stack, User};
use tokio::time::{Instant, sleep};

/// The time for which a condition is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key as the API shows it at its issue.
struct IssuedKey {
    id: String,
    text: String,
}

/// Issues a key of the user with these settings beside the name.
async fn issue(stack: &Stack, user: &User, settings: Value) -> anyhow::Result<IssuedKey> {
    let mut body = json!({"name": "a key"});
    for (name, value) in settings.as_object().context("an object")? {
        body[name] = value.clone();
    }
    let response = stack.post("/api/keys").bearer_auth(&user.token).json(&body).send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status == 201, "{status} {text}");
    let issued: Value = serde_json::from_str(&text)?;
    let member = |name: &str| issued[name].as_str().map(str::to_owned).context(name.to_owned());
    Ok(IssuedKey { id: member("id")?, text: member("key")? })
}

fn chat_body(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

fn chat_on(gateway: &Gateway, key: &str, model: &str) -> RequestBuilder {
    let client = harness::http::client();
    client.post(gateway.url("/v1/chat/completions")).bearer_auth(key).json(&chat_body(model))
}

/// Sends chats until the answer has this status, and returns the time that passed.
async fn wait_for_status(gateway: &Gateway, key: &str, status: u16) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let response = chat_on(gateway, key, MODEL).send().await?;
        let found = response.status();
        let body = response.text().await?;
        if found == status {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < PATIENCE, "still {found} after {PATIENCE:?}, expected {status}: {body}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn revoke(stack: &Stack, user: &User, key: &IssuedKey) -> anyhow::Result<()> {
    let path = format!("/api/keys/{}", key.id);
    let response = stack.request(Method::DELETE, &path).bearer_auth(&user.token).send().await?;
    ensure!(response.status() == 204, "{} {}", response.status(), response.text().await?);
    Ok(())
}

/// The status and the error's code of a response.
async fn refusal(response: Response) -> anyhow::Result<(u16, Value)> {
    Ok((response.status().as_u16(), response.json().await?))
}

#[tokio::test]
async fn are_accepted_wherever_clients_put_their_keys_and_are_on_the_record() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let key = issue(&stack, &ann, json!({})).await?;
    ensure!(key.text.starts_with("sk-st-"), "{}", key.text.len());
    wait_for_status(&stack.gateway, &key.text, 200).await?;
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]});
    let google_path = format!("/v1beta/models/{MODEL}:generateContent");
    let anthropic = json!({"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]});
    let requests = [
        ("OpenAI", stack.post("/v1/chat/completions").bearer_auth(&key.text).json(&chat_body(MODEL))),
        ("Azure", stack.post("/openai/v1/chat/completions").header("api-key", &key.text).json(&chat_body(MODEL))),
        ("Anthropic", stack.post("/v1/messages").header("x-api-key", &key.text).json(&anthropic)),
        ("Google, header", stack.post(&google_path).header("x-goog-api-key", &key.text).json(&google)),
        ("Google, query", stack.post(&format!("{google_path}?key={}", key.text)).json(&google)),
    ];
    for (client, request) in requests {
        let response = request.send().await?;
        let status = response.status();
        let body = response.text().await?;
        // The scripted upstream speaks OpenAI's dialect alone, so the other dialects end with an error after the key was accepted.
        ensure!(![401, 403, 503].contains(&status.as_u16()), "{client}: {status} {body}");
    }
    stack.post("/api/conversations").bearer_auth(&key.text).json(&json!({})).send().await?.error_for_status()?;
    // A key whose signature is wrong is no key.
    let middle = key.text.len() / 2;
    let broken: String = key
        .text
        .char_indices()
        .map(|(at, c)| if at == middle { if c == 'A' { 'B' } else { 'A' } } else { c })
        .collect();
    let (status, body) = refusal(chat_on(&stack.gateway, &broken, MODEL).send().await?).await?;
    ensure!(status == 401 && body["error"]["code"] == "invalid_api_key", "{status} {body}");

    let oracle = stack.settled().await?;
    let id: KeyId = key.id.parse()?;
    let calls = oracle.tables.chats.len();
    ensure!(calls >= 2, "{calls} chats, expected at least those of OpenAI and Azure");
    ensure!(oracle.tables.chats.values().all(|chat| chat.key_id == Some(id)), "a chat without its key");
    ensure!(oracle.tables.admin.api_keys.len() == 1);
    stack.finished_chat(&ann, "without a key").await?;
    stack.settled().await?;
    // Usage by key has the same total as usage by user.
    stack.recorder.run(&["users", "admin", "ann"]).await?;
    for group in ["key", "user", "model", "operation", "project"] {
        let usage = stack.read(&ann, &format!("/api/admin/usage?group={group}")).await?;
        ensure!(usage["total"]["apiCalls"] == calls + 1, "{group}: {usage}");
        if group == "key" {
            let of_key = usage["groups"].as_array().into_iter().flatten().find(|row| row["key"] == key.id.as_str());
            ensure!(of_key.is_some_and(|row| row["apiCalls"] == calls), "{usage}");
        }
    }
    let shown = stack.read(&ann, &format!("/api/keys/{}", key.id)).await?;
    ensure!(shown["lastUsedAt"].as_str().is_some_and(|at| at.contains(":00:00")), "{shown}");
    ensure!(!shown.to_string().contains("sk-st-"), "the key is shown once");
    for log in [stack.gateway_log()?, std::fs::read_to_string(stack.directory().join("api.log"))?] {
        ensure!(!log.contains(&key.text), "a log has the key");
    }
    Ok(())
}

#[tokio::test]
async fn that_are_revoked_are_refused_by_every_gateway_while_chats_run() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let second = stack.another_gateway(|_| {}).await?;
    let ann = stack.user("ann").await?;
    let (key, other) = (issue(&stack, &ann, json!({})).await?, issue(&stack, &ann, json!({})).await?);
    for gateway in [&stack.gateway, &second] {
        wait_for_status(gateway, &key.text, 200).await?;
        wait_for_status(gateway, &other.text, 200).await?;
    }
    let gateways = [&stack.gateway, &second];
    let (began, times) = tokio::join!(
        async {
            let began = Instant::now();
            revoke(&stack, &ann, &key).await.map(|()| began.elapsed())
        },
        async {
            let (first, second) = tokio::join!(
                wait_for_status(gateways[0], &key.text, 401),
                wait_for_status(gateways[1], &key.text, 401)
            );
            anyhow::Ok([first?, second?])
        }
    );
    println!("revoked within {:?}; refused by two gateways {:?} after the request began", began?, times?);
    for gateway in gateways {
        wait_for_status(gateway, &other.text, 200).await?;
    }
    let (status, body) = refusal(chat_on(&second, &key.text, MODEL).send().await?).await?;
    ensure!(status == 401 && body["error"]["message"].as_str().is_some_and(|text| text.contains("revoked")), "{body}");
    let (status, body) =
        refusal(stack.post("/v1/messages").header("x-api-key", &key.text).json(&chat_body(MODEL)).send().await?)
            .await?;
    ensure!(status == 401 && body["type"] == "error" && body["error"]["type"] == "authentication_error", "{body}");
    // Revoking again is no error, and a revoked key does not change any more.
    revoke(&stack, &ann, &key).await?;
    let change = stack.request(Method::PATCH, &format!("/api/keys/{}", key.id)).bearer_auth(&ann.token);
    let (status, body) = refusal(change.json(&json!({"name": "again"})).send().await?).await?;
    ensure!(status == 409 && body["error"]["code"] == "key_revoked", "{status} {body}");
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn may_only_do_what_their_settings_allow() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let key = issue(&stack, &ann, json!({"models": ["other-*"], "operations": ["chat"]})).await?;
    wait_for_status(&stack.gateway, &key.text, 403).await?;
    let (status, body) = refusal(chat_on(&stack.gateway, &key.text, MODEL).send().await?).await?;
    ensure!(status == 403 && body["error"]["code"] == "model_not_allowed", "{status} {body}");
    let embed = json!({"model": MODEL, "input": "x"});
    let response = stack.post("/v1/embeddings").bearer_auth(&key.text).json(&embed).send().await?;
    let (status, body) = refusal(response).await?;
    ensure!(status == 403 && body["error"]["code"] == "operation_not_allowed", "{status} {body}");
    let count = stack.post("/v1/messages/count_tokens").bearer_auth(&key.text).json(&chat_body(MODEL));
    let (status, body) = refusal(count.send().await?).await?;
    ensure!(status == 403, "{status} {body}");
    // The list shows the models that the key may use.
    let one = stack.request(Method::GET, &format!("/v1/models/{MODEL}")).bearer_auth(&key.text);
    let (status, body) = refusal(one.send().await?).await?;
    ensure!(status == 403 && body["error"]["code"] == "model_not_allowed", "{status} {body}");
    for (credential, models) in [(&key.text, json!([])), (&ann.token, json!([MODEL]))] {
        let response = stack.request(Method::GET, "/v1/models").bearer_auth(credential).send().await?;
        let (status, body) = refusal(response).await?;
        let ids: Value = body["data"].as_array().into_iter().flatten().map(|model| model["id"].clone()).collect();
        ensure!(status == 200 && ids == models, "{status} {body}");
    }
    let path = format!("/api/keys/{}", key.id);
    let change = async |body: Value| {
        let response = stack.request(Method::PATCH, &path).bearer_auth(&ann.token).json(&body).send().await?;
        refusal(response).await
    };
    let (status, body) = change(json!({"models": ["scripted-*"], "expiresAt": "2999-01-01T00:00:00Z"})).await?;
    ensure!(status == 200 && body["operations"] == json!(["chat"]) && body["name"] == "a key", "{status} {body}");
    wait_for_status(&stack.gateway, &key.text, 200).await?;
    let (status, body) = change(json!({"expiresAt": null})).await?;
    ensure!(status == 200 && body["expiresAt"].is_null(), "{status} {body}");
    // Bad settings change nothing.
    for bad in [
        json!({"name": ""}),
        json!({"models": [""]}),
        json!({"operations": ["No Word"]}),
        json!({"expiresAt": "2001-01-01T00:00:00Z"}),
        json!({"models": vec!["m"; 33]}),
        json!({"name": 3}),
    ] {
        let (status, body) = change(bad.clone()).await?;
        ensure!(status == 400, "{bad}: {status} {body}");
    }
    wait_for_status(&stack.gateway, &key.text, 200).await?;
    // A key that expires is refused from then on.
    let soon = shared::event::now() + Duration::from_secs(3);
    let soon = soon.format(&time::format_description::well_known::Rfc3339)?;
    let (status, body) = change(json!({"expiresAt": soon})).await?;
    ensure!(status == 200, "{status} {body}");
    wait_for_status(&stack.gateway, &key.text, 401).await?;
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn belong_to_their_owner_and_are_bounded() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let key = issue(&stack, &ann, json!({})).await?;
    stack.settled().await?;
    let path = format!("/api/keys/{}", key.id);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let request = stack.request(method.clone(), &path).bearer_auth(&bob.token).json(&json!({"name": "x"}));
        ensure!(request.send().await?.status() == 404, "{method}");
    }
    let for_ann = json!({"name": "x", "userId": ann.id});
    ensure!(stack.post("/api/keys").bearer_auth(&bob.token).json(&for_ann).send().await?.status() == 404);
    // A key is for model calls, and reads no record.
    ensure!(stack.request(Method::GET, "/api/keys").bearer_auth(&key.text).send().await?.status() == 401);
    let nobody = stack.request(Method::GET, "/api/keys").send().await?;
    ensure!(nobody.status() == 401);
    // Admins act for others.
    stack.recorder.run(&["users", "admin", "bob"]).await?;
    let issued = stack.post("/api/keys").bearer_auth(&bob.token).json(&for_ann).send().await?;
    ensure!(issued.status() == 201, "{}", issued.status());
    stack.settled().await?;
    let listed = stack.read(&bob, &format!("/api/keys?userId={}&limit=1", ann.id)).await?;
    let cursor = listed["nextCursor"].as_str().context("two pages")?;
    let next = stack.read(&bob, &format!("/api/keys?userId={}&limit=1&cursor={cursor}", ann.id)).await?;
    ensure!(next["data"][0]["id"] == key.id.as_str() && next["nextCursor"].is_null(), "{next}");
    // A user has a bounded number of keys, also while no recorder writes the table.
    for recorder in stack.recorders.drain(..) {
        recorder.process().kill9().await;
    }
    let issue_one = || stack.post("/api/keys").bearer_auth(&bob.token).json(&json!({"name": "x"})).send();
    // A few at a time: more requests of one user than a user's share are refused for that.
    let issuing = stream::iter(0..110).map(|_| issue_one()).buffer_unordered(4);
    let mut issued = 0;
    for response in issuing.try_collect::<Vec<_>>().await? {
        match response.status().as_u16() {
            201 => issued += 1,
            status => ensure!(status == 409, "{status}"),
        }
    }
    ensure!(issued <= 100, "{issued} keys");
    ensure!(issue_one().await?.status() == 409);
    stack.add_recorder().await?;
    // The command line.
    let text =
        stack.recorder.run(&["api-keys", "create", "--user", "ann", "--name", "cli", "--model", "scripted-*"]).await?;
    wait_for_status(&stack.gateway, &text, 200).await?;
    stack.settled().await?;
    let listed = stack.recorder.run(&["api-keys", "list", "--user", "ann"]).await?;
    let line = listed.lines().find(|line| line.ends_with("cli")).context("the key is listed")?;
    let id = line.split('\t').next().context("an id")?;
    stack.recorder.run(&["api-keys", "revoke", id]).await?;
    wait_for_status(&stack.gateway, &text, 401).await?;
    stack.recorder.run(&["verify"]).await?;
    stack.settled().await?;
    Ok(())
}
