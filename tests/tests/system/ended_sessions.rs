//! Sessions that ended and users who were disabled: refused by every gateway and on open live streams, for each way of ending a session.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use harness::services::Gateway;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use shared::access::{BUCKET, EndedSession, Entry, UserState, user_name};
use tests::stack::{MODEL, Stack};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// The time for which a condition is waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse";

async fn post(stack: &Stack, path: &str, body: Value) -> anyhow::Result<Value> {
    let response = stack.post(path).json(&body).send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{path}: {status} {text}");
    Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
}

async fn register(stack: &Stack, name: &str) -> anyhow::Result<Value> {
    let code = stack.recorder.invite(&[]).await?;
    let body = json!({"inviteCode": code, "name": name, "password": PASSWORD, "delivery": "token"});
    post(stack, "/api/auth/register", body).await
}

async fn login(stack: &Stack, name: &str) -> anyhow::Result<Value> {
    post(stack, "/api/auth/login", json!({"name": name, "password": PASSWORD, "delivery": "token"})).await
}

fn token(session: &Value) -> anyhow::Result<&str> {
    session["accessToken"].as_str().context("an access token")
}

/// The status and the body of a chat with this credential.
async fn chat(gateway: &Gateway, credential: &str) -> anyhow::Result<(u16, String)> {
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]});
    let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(credential);
    let response = request.json(&body).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// Sends chats until the answer has this status. Returns the time that passed, and the body.
async fn wait_for_status(gateway: &Gateway, credential: &str, status: u16) -> anyhow::Result<(Duration, String)> {
    let began = Instant::now();
    loop {
        let (found, body) = chat(gateway, credential).await?;
        if found == status {
            return Ok((began.elapsed(), body));
        }
        ensure!(began.elapsed() < PATIENCE, "still {found} after {PATIENCE:?}, expected {status}: {body}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_until_refused(gateways: &[&Gateway], credential: &str, reason: &str) -> anyhow::Result<()> {
    for gateway in gateways {
        let (_, body) = wait_for_status(gateway, credential, 401).await?;
        ensure!(body.contains("invalid_api_key") && body.contains(reason), "expected {reason:?}: {body}");
    }
    Ok(())
}

async fn live_stream(stack: &Stack, credential: &str) -> anyhow::Result<Response> {
    let mut stream = stack.request(Method::GET, "/api/events").bearer_auth(credential).send().await?;
    ensure!(stream.status() == 200, "{}", stream.status());
    stream.chunk().await?.context("a first event")?;
    Ok(stream)
}

async fn ends(stream: Response) -> anyhow::Result<()> {
    let mut chunks = stream.bytes_stream();
    let ending = async { while chunks.next().await.is_some() {} };
    timeout(PATIENCE, ending).await.context("the live stream goes on")
}

#[tokio::test]
async fn are_refused_by_every_gateway_whatever_ended_them() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let second = stack.another_gateway(|_| {}).await?;
    let gateways = [&stack.gateway, &second];
    let logged_out = register(&stack, "ann").await?;
    let (kept, changed, stolen) =
        (login(&stack, "ann").await?, login(&stack, "ann").await?, login(&stack, "ann").await?);
    for session in [&logged_out, &kept, &changed, &stolen] {
        for gateway in gateways {
            let (status, body) = chat(gateway, token(session)?).await?;
            ensure!(status == 200, "{status} {body}");
        }
    }
    let streams = [live_stream(&stack, token(&logged_out)?).await?, live_stream(&stack, token(&changed)?).await?];

    let began = Instant::now();
    post(&stack, "/api/auth/logout", json!({"refreshToken": logged_out["refreshToken"]})).await?;
    wait_until_refused(&gateways, token(&logged_out)?, "the session has ended").await?;
    println!("refused by two gateways {:?} after the logout began", began.elapsed());

    // Two later refreshes make the third use of the first token a theft.
    let next = post(&stack, "/api/auth/refresh", json!({"refreshToken": stolen["refreshToken"]})).await?;
    let next = post(&stack, "/api/auth/refresh", json!({"refreshToken": next["refreshToken"]})).await?;
    let thief = stack.post("/api/auth/refresh").json(&json!({"refreshToken": stolen["refreshToken"]})).send().await?;
    ensure!(thief.status() == 401, "{}", thief.status());
    for session in [&stolen, &next] {
        wait_until_refused(&gateways, token(session)?, "the session has ended").await?;
    }

    let passwords = json!({"currentPassword": PASSWORD, "newPassword": "another horse"});
    let change = stack.post("/api/auth/password").bearer_auth(token(&kept)?).json(&passwords).send().await?;
    ensure!(change.status() == 204, "{}", change.status());
    wait_until_refused(&gateways, token(&changed)?, "the session has ended").await?;
    for stream in streams {
        ends(stream).await?;
    }
    for gateway in gateways {
        ensure!(chat(gateway, token(&kept)?).await?.0 == 200, "the session that changed the password goes on");
    }
    // An operator's command notes the end; `recorder serve` carries it.
    stack.recorder.run(&["users", "reset-password", "ann"]).await?;
    wait_until_refused(&gateways, token(&kept)?, "the session has ended").await?;
    let pool = stack.database().await?;
    wait_until("no note is left", async || {
        Ok(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM access_changes").fetch_one(&pool).await? == 0)
    })
    .await?;
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn of_disabled_users_are_refused_with_their_tokens_and_keys_until_the_user_is_enabled() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let second = stack.another_gateway(|_| {}).await?;
    let gateways = [&stack.gateway, &second];
    let session = register(&stack, "ann").await?;
    let id = session["user"]["id"].as_str().context("an id")?.to_owned();
    let long = stack.recorder.token("ann", "1h").await?;
    let key = stack.recorder.run(&["api-keys", "create", "--user", "ann", "--name", "k"]).await?;
    let bob = stack.user("bob").await?;
    for credential in [token(&session)?, &long, &key, &bob.token] {
        for gateway in gateways {
            wait_for_status(gateway, credential, 200).await?;
        }
    }
    let stream = live_stream(&stack, &long).await?;
    let other = live_stream(&stack, &bob.token).await?;

    stack.recorder.run(&["users", "admin", "bob"]).await?;
    let set_disabled = async |disabled: bool| {
        let change = stack.request(Method::PATCH, &format!("/api/admin/users/{id}")).bearer_auth(&bob.token);
        let response = change.json(&json!({"disabled": disabled})).send().await?;
        ensure!(response.status() == 200, "{}", response.status());
        anyhow::Ok(())
    };
    let began = Instant::now();
    set_disabled(true).await?;
    for credential in [&long, &key] {
        wait_until_refused(&gateways, credential, "the user of this credential is disabled").await?;
    }
    wait_until_refused(&gateways, token(&session)?, "").await?;
    println!("refused by two gateways {:?} after the disabling began", began.elapsed());
    ends(stream).await?;
    for gateway in gateways {
        ensure!(chat(gateway, &bob.token).await?.0 == 200, "nobody else is refused");
    }
    drop(other);

    set_disabled(false).await?;
    for credential in [&long, &key] {
        for gateway in gateways {
            wait_for_status(gateway, credential, 200).await?;
        }
    }
    // The sessions of before stay ended, and disabling again refuses again.
    wait_until_refused(&gateways, token(&session)?, "the session has ended").await?;
    stack.recorder.run(&["users", "disable", "ann"]).await?;
    for credential in [&long, &key] {
        wait_until_refused(&gateways, credential, "the user of this credential is disabled").await?;
    }
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn reach_the_gateways_after_the_broker_was_away_and_after_the_bucket_was_lost() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (register(&stack, "ann").await?, register(&stack, "bob").await?);
    for session in [&ann, &bob] {
        wait_for_status(&stack.gateway, token(session)?, 200).await?;
    }
    stack.nats.stop().await?;
    // Neither a logout nor a disabling waits for the broker; gateways go on with the state that they know.
    post(&stack, "/api/auth/logout", json!({"refreshToken": ann["refreshToken"]})).await?;
    stack.recorder.run(&["users", "disable", "bob"]).await?;
    for session in [&ann, &bob] {
        ensure!(chat(&stack.gateway, token(session)?).await?.0 == 200, "the gateway cannot know of the end");
    }
    stack.nats.start().await?;
    for session in [&ann, &bob] {
        wait_until_refused(&[&stack.gateway], token(session)?, "").await?;
    }

    // A bucket that lost its entries is filled again by an API that starts. Entries of expired sessions go, and an entry of a user who is
    // disabled no more does not come back.
    let bucket = stack.jetstream().await?.get_key_value(BUCKET).await?;
    let bob_entry = user_name(&bob["user"]["id"].as_str().context("an id")?.parse()?);
    bucket.stream.purge().await?;
    let past = OffsetDateTime::now_utc() - time::Duration::hours(2);
    let expired = Entry::Session(EndedSession { session_id: Uuid::now_v7(), until: past });
    bucket.put(expired.name(), expired.encode()?.into()).await?;
    let _api = stack.recorder.serve("127.0.0.1:0", &stack.directory().join("api-2.log")).await?;
    let read = async |name: &str| anyhow::Ok(bucket.get(name).await?.and_then(|value| Entry::read(name, &value)));
    wait_until("the disabled user is in the bucket again", async || {
        Ok(matches!(read(&bob_entry).await?, Some(Entry::User(UserState { is_disabled: true, .. }))))
    })
    .await?;
    wait_until("the entry of the expired session is removed", async || Ok(read(&expired.name()).await?.is_none()))
        .await?;
    let sessions = async || {
        let names: Vec<_> = bucket.keys().await?.collect::<Vec<_>>().await.into_iter().collect::<Result<_, _>>()?;
        anyhow::Ok(names.iter().filter(|name| name.starts_with("session.")).count())
    };
    wait_until("both ended sessions are in the bucket again", async || Ok(sessions().await? == 2)).await?;
    // A gateway that starts now refuses both.
    let third = stack.another_gateway(|_| {}).await?;
    for session in [&ann, &bob] {
        wait_until_refused(&[&third], token(session)?, "").await?;
    }
    Ok(())
}

async fn wait_until(what: &str, condition: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !condition().await? {
        ensure!(began.elapsed() < PATIENCE, "after {PATIENCE:?}, expected: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
