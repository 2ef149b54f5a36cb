//! A walk through an analyst's work: what docs/ANALYSTS.md says, word for word.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::program;
use shared::event::Event;
use shared::id::{ChatId, ConversationId};
use sqlx::PgPool;
use tests::clients;
use tests::stack::{Stack, publish_again};
use tokio::time::{Instant, sleep};

/// A chat of the user ann, like the user's first chat but a day earlier and in another conversation.
async fn happened_yesterday(stack: &Stack, events: &[Event]) -> anyhow::Result<()> {
    let (chat_id, day) = (ChatId::mint(), time::Duration::DAY);
    let find = |wanted: fn(&&Event) -> bool| events.iter().find(wanted).cloned().context("no such event");
    let mut started = find(|event| matches!(event, Event::ChatStarted(_)))?;
    if let Event::ChatStarted(event) = &mut started {
        (event.chat_id, event.conversation_id) = (chat_id, Some(ConversationId(chat_id.0)));
        event.started_at -= day;
        event.assistant_message_id = Some(chat_id.assistant_message());
        event.new_messages.iter_mut().for_each(|message| message.id = chat_id.user_message());
    }
    let of = started.user_id().clone();
    let mut completed = find(|event| matches!(event, Event::MessageCompleted(_)))?;
    if let Event::MessageCompleted(event) = &mut completed {
        (event.chat_id, event.conversation_id) = (chat_id, Some(ConversationId(chat_id.0)));
        event.user_id = of;
        event.started_at = started.time();
        event.finished_at -= day;
        event.message.iter_mut().for_each(|message| message.id = chat_id.assistant_message());
    }
    let jetstream = stack.jetstream().await?;
    publish_again(&jetstream, &started).await?;
    publish_again(&jetstream, &completed).await?;
    let (pool, deadline) = (stack.database().await?, Instant::now() + Duration::from_secs(60));
    let recorded = "SELECT EXISTS (SELECT FROM chats WHERE chat_id = $1 AND status = 'completed')";
    while !sqlx::query_scalar::<_, bool>(recorded).bind(chat_id.0).fetch_one(&pool).await? {
        ensure!(Instant::now() < deadline, "yesterday's chat is not in the tables");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// `usage_stats`, with the columns of the page's table, as lines.
async fn usage_stats(pool: &PgPool) -> anyhow::Result<BTreeSet<String>> {
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(',', user_id, date, api_calls, successful_calls, failed_calls, prompt_tokens, completion_tokens,
                          total_tokens)
         FROM usage_stats WHERE api_calls > 0",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().collect())
}

#[tokio::test]
async fn can_follow_the_documentation_word_for_word() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    for (user, text) in [(&ann, "one"), (&ann, "two"), (&bob, "three")] {
        stack.finished_chat(user, text).await?;
    }
    let events = stack.settled().await?.events;
    happened_yesterday(&stack, &events).await?;
    stack.settled().await?;
    let page = std::fs::read_to_string(program::checkout().join("docs/ANALYSTS.md"))?;
    let (_, walk) = page.split_once("\n## A walk\n").context("expected the section `A walk` in docs/ANALYSTS.md")?;
    let (commands, queries) = (clients::blocks(walk, "sh"), clients::blocks(walk, "sql"));
    ensure!(commands.len() == 4 && queries.len() == 1, "expected the walk's steps: {commands:?} {queries:?}");

    let directory = tempfile::tempdir()?;
    let place = directory.path().to_owned();
    let ours = stack.recorder.program.parent().context("no directory")?;
    let path = std::env::join_paths(
        [ours, &program::postgres(None)?]
            .into_iter()
            .map(ToOwned::to_owned)
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut walked = Command::new("bash");
    walked.args(["-euo", "pipefail", "-c", &commands.concat()]).current_dir(&place).env("PATH", path);
    walked.env("NATS_URL", stack.nats.url()).env("DATABASE_URL", &stack.recorder.database_url).env("USER_ID", &ann.id);
    let output = tokio::task::spawn_blocking(move || walked.output()).await??;
    let (printed, logged) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{printed}{logged}");

    let lines =
        |name: &str| -> anyhow::Result<usize> { Ok(std::fs::read_to_string(place.join(name))?.lines().count()) };
    let of_ann = 2 * chats_of(&stack, &ann.id).await?;
    assert_eq!(lines("live.jsonl")?, of_ann, "expected each of ann's events once");
    assert_eq!(lines("answers.jsonl")?, of_ann / 2);
    assert!(printed.contains("exported 4 chats, 8 messages"), "{printed}");
    let yesterday = std::fs::read_to_string(place.join("yesterday.csv"))?;
    assert_eq!(yesterday.lines().count(), 2, "expected a heading and the one chat of yesterday: {yesterday}");
    assert!(printed.contains("identical: 4 chats"), "{printed}");

    let Some(python) = clients::run("venv.sh", &["duckdb", "duckdb==2.0.1"], &[]).await? else { return Ok(()) };
    let program = "import duckdb, sys\n\
        duckdb.sql(sys.argv[1])\n\
        for row in duckdb.sql('FROM week').fetchall(): print(*row, sep=',')";
    let mut computing = Command::new(python);
    computing.args(["-c", program, &queries[0]]).current_dir(&place);
    let output = tokio::task::spawn_blocking(move || computing.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let computed: BTreeSet<_> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    assert_eq!(computed, usage_stats(&stack.database().await?).await?);
    assert_eq!(computed.len(), 3, "expected two days of ann and one day of bob: {computed:?}");
    Ok(())
}

async fn chats_of(stack: &Stack, user: &str) -> anyhow::Result<usize> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM chats WHERE user_id = $1")
        .bind(user)
        .fetch_one(&stack.database().await?)
        .await?;
    Ok(usize::try_from(count)?)
}
