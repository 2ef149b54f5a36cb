//! The memory of a recorder before a backlog of large events.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use shared::event::{Event, MessageCompleted};
use shared::id::ChatId;
use tests::stack::Stack;

use crate::large_bodies::{publish_reference, put_body};

/// The bound that docs/OPERATIONS.md states for batches of the default size.
const MAX_PEAK_KB: u64 = 160 * 1024;

/// The greatest resident memory of a process so far, in KB.
fn peak_kb(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Records this many answers of this size, which wait for the recorder. Returns the recorder's peak of memory, in KB.
async fn peak_of_backlog(chats: usize, bytes: usize) -> anyhow::Result<u64> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    let oracle = stack.settled().await?;
    let end = oracle.events.iter().find_map(|event| match event {
        Event::MessageCompleted(end) => Some(end.clone()),
        _ => None,
    });
    let end = end.context("an end")?;
    stack.recorders.remove(0).terminate(Duration::from_secs(60)).await?;
    let jetstream = stack.jetstream().await?;
    for number in 0..chats {
        let chat_id = ChatId::mint();
        let mut message = end.message.clone().context("an answer")?;
        message.id = chat_id.assistant_message();
        message.text = format!("{number:04} ").repeat(bytes / 5);
        let event = MessageCompleted { chat_id, message: Some(message), ..(*end).clone() };
        let event = Event::MessageCompleted(Box::new(event));
        put_body(&jetstream, &event).await?;
        publish_reference(&jetstream, &event).await?;
    }
    stack.add_recorder().await?;
    stack.drained().await?;
    let peak = peak_kb(stack.recorders[0].process().pid())?;
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM messages WHERE octet_length(content) >= $1")
        .bind(i32::try_from(bytes)? - 5)
        .fetch_one(&stack.database().await?)
        .await?;
    ensure!(recorded == i64::try_from(chats)?, "{recorded} recorded of {chats}");
    Ok(peak)
}

#[tokio::test]
async fn stays_within_its_bound_before_many_large_answers() -> anyhow::Result<()> {
    let peak = peak_of_backlog(150, 2_000_000).await?;
    println!("{peak} KB at the peak");
    ensure!(peak < MAX_PEAK_KB, "{peak} KB");
    Ok(())
}
