//! A broker that was put back from an older copy: the tables know what the log has lost.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use harness::upstream::{Gate, Script, Step};
use reqwest::Method;
use serde_json::json;
use shared::stream::NAME;
use tests::stack::{Stack, User};

use crate::rebuild::{chats, dump, nothing_is_left};

const ANSWER: [&str; 3] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"late\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
     \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n",
    "data: [DONE]\n\n",
];

pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cp -a: {copied}");
    Ok(())
}

/// Sends a request of the user that has to succeed.
pub(crate) async fn change(
    stack: &Stack,
    user: &User,
    method: Method,
    path: &str,
    body: serde_json::Value,
) -> anyhow::Result<()> {
    let response = stack.request(method, path).bearer_auth(&user.token).json(&body).send().await?;
    ensure!(response.status().is_success(), "{path}: {} {}", response.status(), response.text().await?);
    Ok(())
}

/// Records, copies the stream, records more, and puts the copy back. The gateway and the recorder are killed, so that the
/// gateway does not publish again what its journal keeps.
///
/// The copy lacks 4 chats, with 8 messages in 4 conversations; the end of a chat; the title of a conversation and the deletion of
/// another one; an API key, and the revocation of another one.
async fn stack_on_an_older_copy() -> anyhow::Result<Stack> {
    let mut stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 3).await?;
    let (renamed, _) = stack.finished_chat(&ann, "a question").await?;
    let (deleted, _) = stack.finished_chat(&ann, "another question").await?;
    stack.recorder.run(&["api-keys", "create", "--user", "ann", "--name", "to be revoked"]).await?;
    stack.settled().await?;
    let listed = stack.recorder.run(&["api-keys", "list", "--user", "ann"]).await?;
    let key = listed.split('\t').next().unwrap_or_default().to_owned();
    let gate = Gate::new();
    stack.upstream.respond_next(Script::stream(ANSWER.map(str::to_owned)).after(1, Step::Wait(gate.clone())));
    let mut running = stack.chat(&ann, "a long question").send().await?;
    ensure!(running.chunk().await?.is_some());
    stack.settled().await?;
    let (messages, older) = (stack.nats.messages_of(NAME), stack.directory().join("older"));
    copy(&messages, &older)?;

    gate.open();
    running.text().await?;
    chats(&stack, &ann, 4).await?;
    change(&stack, &ann, Method::PATCH, &format!("/api/conversations/{renamed}"), json!({"title": "A title"})).await?;
    change(&stack, &ann, Method::DELETE, &format!("/api/conversations/{deleted}"), json!(null)).await?;
    stack.recorder.run(&["api-keys", "revoke", &key]).await?;
    stack.recorder.run(&["api-keys", "create", "--user", "ann", "--name", "new"]).await?;
    stack.settled().await?;

    stack.gateway.kill9().await;
    stack.recorders.remove(0).kill9().await;
    stack.nats.stop().await?;
    std::fs::remove_dir_all(&messages)?;
    copy(&older, &messages)?;
    stack.nats.start().await?;
    Ok(stack)
}

#[tokio::test]
async fn make_a_rebuild_refuse_until_it_is_told_to_drop_their_rows() -> anyhow::Result<()> {
    let stack = stack_on_an_older_copy().await?;
    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    let lost = "4 chats, 9 messages, 4 conversations, 1 API keys dropped; \
                1 chats, 2 conversations, 1 API keys set back to an earlier state";

    let refused = stack.recorder.run(&["rebuild"]).await.expect_err("rows would be lost").to_string();
    assert!(refused.contains("exit status: 4") && refused.contains(lost), "{refused}");
    for remedy in ["recorder verify", "recorder restore-events", "--drop-missing"] {
        assert!(refused.contains(remedy), "{refused}");
    }
    assert_eq!(dump(&pool, "public").await?, rows, "the tables must be unchanged");
    nothing_is_left(&pool).await?;
    // A copy beside the tables loses nothing.
    stack.recorder.run(&["rebuild", "--into", "apart"]).await?;

    let rebuilt = stack.recorder.run(&["rebuild", "--drop-missing"]).await?;
    assert!(rebuilt.ends_with(&format!("; the log lacked rows: {lost}")), "{rebuilt}");
    assert_eq!(dump(&pool, "public").await?, dump(&pool, "apart").await?);
    nothing_is_left(&pool).await?;
    let rebuilt = stack.recorder.run(&["rebuild"]).await?;
    assert!(!rebuilt.contains("lacked"), "{rebuilt}");
    stack.recorder.run(&["verify"]).await.map(drop)
}

/// After the tables lost rows, a rebuild brings the rows back without a question.
#[tokio::test]
async fn do_not_stop_a_rebuild_of_tables_that_are_behind_the_log() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 6).await?;
    stack.settled().await?;
    let pool = stack.database().await?;
    let rows = dump(&pool, "public").await?;
    sqlx::raw_sql(
        "DELETE FROM messages WHERE position = 1; DELETE FROM conversations WHERE message_count > 0;
         UPDATE usage_stats SET total_tokens = total_tokens + 1;
         INSERT INTO usage_slots SELECT * FROM (SELECT DISTINCT ON (user_id) * FROM usage_slots) s
         ON CONFLICT DO NOTHING",
    )
    .execute(&pool)
    .await?;
    stack.recorder.run(&["rebuild"]).await?;
    assert_eq!(dump(&pool, "public").await?, rows);
    Ok(())
}
