//! API keys while the broker is away, and after the tables or the bucket `ACCESS` are lost.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use shared::access::{Entry, KeyState};
use shared::id::KeyId;
use tests::stack::{MODEL, Stack};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, chat_on, issue, refusal, revoke, wait_for_status};
#[tokio::test]
async fn go_on_while_the_broker_is_away_even_on_a_gateway_that_starts() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let (key, revoked) = (issue(&stack, &ann, json!({})).await?, issue(&stack, &ann, json!({})).await?);
    wait_for_status(&stack.gateway, &key.text, 200).await?;
    revoke(&stack, &ann, &revoked).await?;
    wait_for_status(&stack.gateway, &revoked.text, 401).await?;
    // The copy on disk follows the memory.
    let copy = stack.journal().join("access");
    let began = Instant::now();
    while !std::fs::read_to_string(&copy).is_ok_and(|text| text.contains(&key.id) && text.contains("revoked")) {
        ensure!(began.elapsed() < PATIENCE, "the copy on disk does not follow");
        sleep(Duration::from_millis(20)).await;
    }
    stack.nats.stop().await?;
    wait_for_status(&stack.gateway, &key.text, 200).await?;
    wait_for_status(&stack.gateway, &revoked.text, 401).await?;
    // A gateway that starts on the same directory goes on with the copy.
    stack.gateway.process().kill9().await;
    let data_dir = stack.journal().parent().context("a data directory")?.to_owned();
    let again = stack
        .another_gateway(|settings| {
            settings.data_dir = data_dir;
            settings.instance = "gateway-1".into();
        })
        .await?;
    wait_for_status(&again, &key.text, 200).await?;
    wait_for_status(&again, &revoked.text, 401).await?;
    // A gateway that never had a state does not know: 503 for a key with a right signature, 401 for anything else.
    let fresh = stack
        .another_gateway(|settings| {
            settings.data_dir = settings.data_dir.with_file_name("gateway-3");
            settings.instance = "gateway-3".into();
        })
        .await?;
    let response = chat_on(&fresh, &key.text, MODEL).send().await?;
    ensure!(response.headers().contains_key("retry-after"), "{:?}", response.headers());
    let (status, body) = refusal(response).await?;
    ensure!(status == 503 && body["error"]["code"] == "access_unknown", "{status} {body}");
    ensure!(chat_on(&fresh, "sk-st-AQAAAA", MODEL).send().await?.status() == 401);
    ensure!(chat_on(&fresh, &ann.token, MODEL).send().await?.status() == 200, "tokens need no state");
    stack.nats.start().await?;
    wait_for_status(&fresh, &key.text, 200).await?;
    fresh.drained(Duration::from_secs(120)).await?;
    again.drained(Duration::from_secs(120)).await?;
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn come_back_from_the_record_after_the_tables_or_the_bucket_are_lost() -> anyhow::Result<()> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let (key, revoked) = (issue(&stack, &ann, json!({})).await?, issue(&stack, &ann, json!({})).await?);
    revoke(&stack, &ann, &revoked).await?;
    wait_for_status(&stack.gateway, &key.text, 200).await?;
    let before = stack.settled().await?.tables.admin.api_keys;
    let pool = stack.database().await?;
    sqlx::query("DELETE FROM api_keys").execute(&pool).await?;
    ensure!(stack.recorder.run(&["verify"]).await.is_err(), "verify covers the table");
    stack.recorder.run(&["rebuild"]).await?;
    ensure!(stack.settled().await?.tables.admin.api_keys == before);
    stack.recorder.run(&["verify"]).await?;
    // An older state in the bucket, as after a crash between event and bucket, heals; and so does a lost entry.
    let bucket = stack.jetstream().await?.get_key_value(shared::access::BUCKET).await?;
    let id: KeyId = revoked.id.parse()?;
    let older = KeyState { revoked: None, ..before[&id].clone() };
    bucket.put(Entry::Key(Box::new(older.clone())).name(), Entry::Key(Box::new(older)).encode()?.into()).await?;
    bucket.purge(format!("key.{}", key.id)).await?;
    stack.recorders.clear();
    stack.add_recorder().await?;
    let began = Instant::now();
    loop {
        let healed =
            bucket.get(format!("key.{id}")).await?.is_some_and(|value| value.windows(7).any(|part| part == b"revoked"));
        if healed && bucket.get(format!("key.{}", key.id)).await?.is_some() {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "the bucket does not heal");
        sleep(Duration::from_millis(20)).await;
    }
    wait_for_status(&stack.gateway, &revoked.text, 401).await?;
    Ok(())
}

#[tokio::test]
async fn go_on_while_the_bucket_is_lost_and_come_back_with_a_revocation_that_it_missed() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let (key, revoked) = (issue(&stack, &ann, json!({})).await?, issue(&stack, &ann, json!({})).await?);
    wait_for_status(&stack.gateway, &key.text, 200).await?;
    wait_for_status(&stack.gateway, &revoked.text, 200).await?;
    stack.settled().await?;
    stack.jetstream().await?.delete_key_value(shared::access::BUCKET).await?;
    // The event is recorded, and the bucket cannot be told.
    ensure!(revoke(&stack, &ann, &revoked).await.is_err(), "the bucket is gone");
    let pool = stack.database().await?;
    let began = Instant::now();
    while sqlx::query_scalar::<_, i64>("SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL")
        .fetch_one(&pool)
        .await?
        == 0
    {
        ensure!(began.elapsed() < PATIENCE, "the revocation is not recorded");
        sleep(Duration::from_millis(20)).await;
    }
    ensure!(chat_on(&stack.gateway, &key.text, MODEL).send().await?.status() == 200, "a known key goes on");
    stack.recorder.run(&["stream", "create"]).await?;
    wait_for_status(&stack.gateway, &revoked.text, 401).await?;
    ensure!(chat_on(&stack.gateway, &key.text, MODEL).send().await?.status() == 200, "a known key goes on");
    // A gateway without a copy learns of both from the new bucket.
    let fresh = stack.another_gateway(|_| ()).await?;
    wait_for_status(&fresh, &key.text, 200).await?;
    wait_for_status(&fresh, &revoked.text, 401).await?;
    Ok(())
}
