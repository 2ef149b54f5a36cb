//! Clocks that jump: no living chat is ended, whether the clock of a gateway or of a recorder is set back or forward.
//!
//! The tests need libfaketime (Debian's package `libfaketime`), and are skipped without the library.

use std::time::Duration;

use harness::fake_clock::FakeClock;
use harness::services::Gateway;
use harness::upstream::Gate;
use tests::stack::{Stack, User};
use tokio::time::timeout;

use crate::leases::{PATIENCE, becomes, gateway, held, stack, status};

const HOUR: i64 = 3600;

/// A clock for a service, or None and a message on a machine without the library.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn clock(stack: &Stack, name: &str) -> anyhow::Result<Option<FakeClock>> {
    let clock = FakeClock::new(&stack.directory().join(name))?;
    if clock.is_none() {
        eprintln!("SKIPPED: the library of the package libfaketime is not installed");
    }
    Ok(clock)
}

/// A user whose token outlives the jumps.
async fn user(stack: &Stack) -> anyhow::Result<User> {
    let id = stack.recorder.user("ann").await?;
    Ok(User { id, token: stack.recorder.token("ann", "1000h").await? })
}

async fn gateway_with(stack: &Stack, name: &str, clock: &FakeClock) -> anyhow::Result<Gateway> {
    stack
        .another_gateway(|settings| {
            settings.instance = name.to_owned();
            settings.data_dir = settings.data_dir.with_file_name(name);
            settings.more.extend(clock.variables());
        })
        .await
}

#[tokio::test]
async fn of_a_gateway_that_jump_end_no_living_chat() -> anyhow::Result<()> {
    let stack = stack("4s", 1).await?;
    let Some(clock) = clock(&stack, "clock")? else { return Ok(()) };
    let (ann, pool) = (user(&stack).await?, stack.database().await?);
    let jumping = gateway_with(&stack, "jumping", &clock).await?;
    let gate = Gate::new();
    let mut chats = vec![held(&stack, &jumping, &ann, &gate).await?];
    for (jump, (dead, hours)) in
        [-1, 30, -20, 0].into_iter().enumerate().map(|(n, hours)| (n, (format!("dead-{n}"), hours)))
    {
        clock.set(hours * HOUR)?;
        chats.push(held(&stack, &jumping, &ann, &gate).await?);
        for (chat, _) in &chats {
            becomes(&pool, chat, "started").await?;
        }
        // When the chat of a gateway that died after the jump is ended, the grace period of every gateway has passed.
        let dead = gateway(&stack, &dead, &dead).await?;
        let (marker, _response) = held(&stack, &dead, &ann, &gate).await?;
        becomes(&pool, &marker, "started").await?;
        dead.kill9().await;
        becomes(&pool, &marker, "orphaned").await?;
        for (chat, _) in &chats {
            let found = status(&pool, chat).await?;
            assert_eq!(found.as_deref(), Some("started"), "jump {jump}, to {hours} h: a living chat was ended");
        }
    }
    gate.open();
    for (chat, response) in chats {
        assert!(timeout(PATIENCE, response.bytes()).await??.ends_with(b"data: [DONE]\n\n"));
        becomes(&pool, &chat, "completed").await?;
    }
    jumping.drained(PATIENCE).await?;
    stack.settled().await.map(drop)
}

#[tokio::test]
async fn of_a_recorder_that_jump_end_no_living_chat() -> anyhow::Result<()> {
    let mut stack = stack("4s", 0).await?;
    let Some(clock) = clock(&stack, "clock")? else { return Ok(()) };
    stack.recorder.more.extend(clock.variables());
    stack.add_recorder().await?;
    let (ann, pool) = (user(&stack).await?, stack.database().await?);
    let alive = gateway(&stack, "alive", "alive").await?;
    let gate = Gate::new();
    let (chat, response) = held(&stack, &alive, &ann, &gate).await?;
    becomes(&pool, &chat, "started").await?;
    for (n, days) in [3, -3].into_iter().enumerate() {
        clock.set(days * 24 * HOUR)?;
        let name = format!("dead-{n}");
        let dead = gateway(&stack, &name, &name).await?;
        let (marker, _response) = held(&stack, &dead, &ann, &gate).await?;
        becomes(&pool, &marker, "started").await?;
        dead.kill9().await;
        becomes(&pool, &marker, "orphaned").await?;
        assert_eq!(status(&pool, &chat).await?.as_deref(), Some("started"), "{days} days: a living chat was ended");
    }
    gate.open();
    assert!(timeout(Duration::from_secs(120), response.bytes()).await??.ends_with(b"data: [DONE]\n\n"));
    becomes(&pool, &chat, "completed").await?;
    alive.drained(PATIENCE).await?;
    stack.settled().await.map(drop)
}
