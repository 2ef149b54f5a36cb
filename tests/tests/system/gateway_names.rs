//! Two gateways of one name: the second is refused at the start, and a restart of the same gateway is not.

use std::time::Duration;

use harness::services::Gateway;
use tests::stack::Stack;
use tokio::time::{Instant, sleep};

use crate::leases::{gateway, stack};

async fn refused(stack: &Stack, name: &str, disk: &str) -> anyhow::Result<String> {
    let started: anyhow::Result<Gateway> = gateway(stack, name, disk).await;
    match started {
        Ok(_) => anyhow::bail!("a second gateway of the name {name} started"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test]
async fn that_another_running_gateway_has_are_refused_at_the_start() -> anyhow::Result<()> {
    let stack = stack("30s", 1).await?;
    let first = gateway(&stack, "twin", "disk-1").await?;
    let said = refused(&stack, "twin", "disk-2").await?;
    assert!(said.contains("GATEWAY_INSTANCE") && said.contains("\\\"twin\\\"") || said.contains("\"twin\""), "{said}");
    assert!(said.contains("exit status: 1"), "{said}");

    // A killed gateway starts again at once with its disk, and after half of the lease's lifetime without.
    first.kill9().await;
    let again = gateway(&stack, "twin", "disk-1").await?;
    again.kill9().await;
    let moved = gateway(&stack, "twin", "disk-3").await?;
    let said = refused(&stack, "twin", "disk-1").await?;
    assert!(said.contains("twin"), "{said}");

    // A stopped gateway gives its name back.
    moved.terminate(Duration::from_secs(60)).await?;
    let leases = stack.jetstream().await?.get_key_value(shared::lease::BUCKET).await?;
    let entry = leases.entry("twin").await?;
    let is_free = entry.is_none_or(|entry| entry.operation != async_nats::jetstream::kv::Operation::Put);
    assert!(is_free, "the lease of a stopped gateway is still there");
    gateway(&stack, "twin", "disk-4").await?.ready().await
}

/// Two gateways that started while the broker was away cannot know of each other. When the broker is back, one of them holds
/// the lease and the other one says so.
#[tokio::test]
async fn that_were_given_twice_during_an_outage_are_reported() -> anyhow::Result<()> {
    let mut stack = stack("30s", 1).await?;
    stack.nats.stop().await?;
    let start = |disk: &'static str| {
        let name = "twin";
        stack.started_gateway(move |settings| {
            settings.instance = name.to_owned();
            settings.data_dir = settings.data_dir.with_file_name(disk);
        })
    };
    let (one, two) = (start("disk-1").await?, start("disk-2").await?);
    stack.nats.start().await?;
    let log = one.process().log().to_owned();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !std::fs::read_to_string(&log)?.contains("another gateway with the same name holds the lease") {
        anyhow::ensure!(Instant::now() < deadline, "neither gateway reports the other");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(one.process().is_running() && two.process().is_running(), "running chats must go on");
    Ok(())
}
