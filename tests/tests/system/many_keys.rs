//! A deployment with a hundred thousand API keys: what they cost a gateway in time and memory.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness::services::Gateway;
use serde_json::json;
use shared::access::{Act, BUCKET, Entry, KeyState, SettingsInForce};
use shared::id::{KeyId, UserId};
use tests::stack::Stack;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const KEYS: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// The bound of the memory that the keys cost for good. It does not depend on the optimisation.
const MAX_KB: u64 = 64_000;
/// The bound of the memory right after the load, when messages that were read have just been let go.
const MAX_KB_AFTER_LOAD: u64 = 96_000;

/// A figure of a process, in KB.
fn status_kb(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a figure of the process")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// A key as the recorder writes it: a name, two patterns of models, no expiry.
fn key(number: usize) -> anyhow::Result<Entry> {
    let id = Uuid::now_v7();
    let user_id: UserId = format!("{}", Uuid::from_u128(number as u128 % 5000)).parse()?;
    let act = Act { at: OffsetDateTime::now_utc(), by: user_id.to_string() };
    let settings = json!({ "name": format!("key {number} of a service"), "models": ["gpt-5*", "claude-*"] });
    let settings = serde_json::from_value(settings)?;
    Ok(Entry::Key(Box::new(KeyState {
        key_id: KeyId(id),
        user_id,
        project_id: None,
        issued: Some(act.clone()),
        settings: Some(SettingsInForce { change_id: id, changed: act, settings }),
        revoked: None,
    })))
}

/// Waits until the gateway knows all keys. Returns the time since `began`.
async fn knows_all(gateway: &Gateway, began: Instant) -> anyhow::Result<Duration> {
    while gateway.metric("stenograph_gateway_access_keys").await? < KEYS as f64 {
        ensure!(began.elapsed() < PATIENCE, "not all keys are known");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(began.elapsed())
}

#[tokio::test]
async fn are_loaded_in_seconds_and_take_little_memory() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    sleep(Duration::from_secs(1)).await;
    let before = status_kb(stack.gateway.process().pid(), "VmRSS:")?;
    let jetstream = stack.jetstream().await?;
    let put = |number| {
        let jetstream = jetstream.clone();
        async move {
            let entry = key(number)?;
            let subject = format!("$KV.{BUCKET}.{}", entry.name());
            jetstream.publish(subject, entry.encode()?.into()).await?.await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..KEYS).map(put).buffer_unordered(256).try_collect::<()>().await?;
    knows_all(&stack.gateway, Instant::now()).await?;

    // A gateway without a copy on its disk.
    let began = Instant::now();
    let fresh = stack.another_gateway(|_| ()).await?;
    let (ready, loaded) = (began.elapsed(), knows_all(&fresh, began).await?);
    let memory = status_kb(fresh.process().pid(), "VmRSS:")?.saturating_sub(before);
    let peak = status_kb(fresh.process().pid(), "VmHWM:")?.saturating_sub(before);
    sleep(Duration::from_secs(5)).await;
    let later = status_kb(fresh.process().pid(), "VmRSS:")?.saturating_sub(before);
    println!(
        "{KEYS} keys: a new gateway is ready after {ready:?}, knows all after {loaded:?}, and has {memory} KB more ({peak} at the \
         peak, {later} later)"
    );
    ensure!(later < MAX_KB, "{later} KB more for good");
    ensure!(memory < MAX_KB_AFTER_LOAD, "{memory} KB more right after the load");
    // Without optimisation and beside other tests.
    ensure!(loaded < Duration::from_secs(60), "{loaded:?}");

    // A gateway that starts while the broker is away, from its copy.
    sleep(Duration::from_secs(3)).await;
    stack.nats.stop().await?;
    stack.gateway.kill9().await;
    let began = Instant::now();
    stack.restart_gateway().await?;
    let loaded = knows_all(&stack.gateway, began).await?;
    println!("without the broker, it knows all after {loaded:?}");
    ensure!(loaded < Duration::from_secs(60), "{loaded:?}");
    Ok(())
}
