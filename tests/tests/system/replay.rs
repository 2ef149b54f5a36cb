//! `recorder replay`: the log as lines and as Parquet, each event once, whatever the log repeats, and no recorder notices.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use recorder::projection::sql_enum::SqlEnum as _;
use serde_json::Value;
use tests::stack::Stack;

/// A few chats of two users, one of them refused by the upstream, and every event in the stream twice.
async fn recorded() -> anyhow::Result<(Stack, String)> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    for n in 0..6 {
        stack.finished_chat(if n % 3 == 0 { &bob } else { &ann }, &format!("question {n} — é")).await?;
    }
    stack
        .upstream
        .respond_next(harness::upstream::Script::error(&harness::openai::ApiError::invalid("no".into(), None)));
    assert_eq!(stack.chat(&ann, "one too many").send().await?.status(), 400);
    stack.settled().await?;
    stack.publish_everything_again().await?;
    stack.settled().await?;
    Ok((stack, bob.id))
}

fn lines(text: &str) -> anyhow::Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[tokio::test]
async fn as_lines_each_event_once() -> anyhow::Result<()> {
    let (stack, bob) = recorded().await?;
    let replay = async |more: &[&str]| {
        let arguments: Vec<&str> = ["replay"].iter().chain(more).copied().collect();
        lines(&stack.recorder.run(&arguments).await?)
    };
    assert_eq!(stack.events().await?, 28, "the stream must have every event twice");
    let all = replay(&[]).await?;
    assert_eq!(all.len(), 14);
    let ids: BTreeSet<_> = all.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 14);
    assert!(all.iter().all(|line| line["data"]["user_id"].is_string() && line["sequence"].is_u64()));

    assert_eq!(replay(&["--user", &bob]).await?.len(), 4);
    assert_eq!(replay(&["--kind", "failed"]).await?.len(), 1);
    assert_eq!(replay(&["--kind", "started", "--kind", "completed", "--user", &bob]).await?.len(), 4);
    assert_eq!(replay(&["--model", "another"]).await?.len(), 0);
    let conversation = all[0]["data"]["conversation_id"].as_str().unwrap();
    assert_eq!(replay(&["--conversation", conversation]).await?.len(), 2);
    let behind_the_fourth = (all[3]["sequence"].as_u64().unwrap() + 1).to_string();
    assert_eq!(replay(&["--from-sequence", &behind_the_fourth, "--to-sequence", "14"]).await?.len(), 10);
    assert_eq!(replay(&["--since", "2020-01-01", "--until", "2020-02-01"]).await?.len(), 0);
    assert_eq!(replay(&["--since", "2020-01-01"]).await?.len(), 14);

    let tokens = replay(&["--kind", "completed", "--fields", "id,data.usage.total_tokens"]).await?;
    assert_eq!(tokens.len(), 6);
    assert!(tokens.iter().all(|line| line["data.usage.total_tokens"].as_u64() > Some(0)));
    assert!(tokens.iter().all(|line| line.as_object().unwrap().len() == 2));
    for (arguments, said) in [
        (&["--kind", "ended"][..], "expected one of started, completed, "),
        (&["--fields", "id,model"], "expected one of sequence, published_at, "),
        (&["--since", "yesterday"], "expected a time such as 2026-"),
        (&["--since", "2026-02-01", "--until", "2026-01-01"], "expected --since to be before --until"),
        (&["--from-sequence", "7", "--to-sequence", "3"], "expected --from-sequence not to be after --to-sequence"),
        (&["--output", "here"], "--output goes with --format parquet"),
    ] {
        let refused = replay(arguments).await.unwrap_err().to_string();
        assert!(refused.contains(said), "{arguments:?}: {refused}");
    }
    // The recorders are not affected: no event was delivered again.
    stack.settled().await?;
    Ok(())
}

#[tokio::test]
async fn follows_what_is_published_later() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "before").await?;
    let follower = async {
        let mut child = command(&stack, &["replay", "--follow", "--fields", "type"]).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("no output")?;
        // The reader closes the pipe after four lines; the follower notices at the next line.
        let read = tokio::task::spawn_blocking(move || {
            use std::io::BufRead as _;
            std::io::BufReader::new(out).lines().take(4).collect::<Result<Vec<_>, _>>()
        });
        let lines = tokio::time::timeout(Duration::from_secs(60), read).await???;
        child.kill()?;
        child.wait()?;
        anyhow::Ok(lines)
    };
    let (lines, chat) = tokio::join!(follower, stack.finished_chat(&ann, "meanwhile"));
    chat?;
    let completed = lines?.iter().filter(|line| line.contains("MessageCompleted")).count();
    assert_eq!(completed, 2);
    Ok(())
}

#[tokio::test]
async fn as_parquet_with_the_rows_of_the_tables() -> anyhow::Result<()> {
    let (stack, _) = recorded().await?;
    let directory = tempfile::tempdir()?;
    let output = directory.path().join("export");
    let arguments = ["replay", "--format", "parquet", "--output", output.to_str().context("path")?];
    // An export is killed soon after its start; the next export resumes it.
    let mut killed = command(&stack, &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    while !output.join("export.json").exists() && killed.try_wait()?.is_none() {
        tokio::task::yield_now().await;
    }
    killed.kill()?;
    let finished = killed.wait()?.success();
    if !finished {
        let said = stack.recorder.run(&arguments).await?;
        assert_eq!(
            said,
            "exported 7 chats, 13 messages, 0 events about conversations; 0 deliveries were no readable events"
        );
    }
    let again = stack.recorder.run(&arguments).await.unwrap_err().to_string();
    assert!(again.contains("holds an export already"), "{again}");

    let tables = stack.settled().await?.tables;
    let chats = rows(&output.join("chats"))?;
    let statuses = column(&chats, "chat_id", "status")?;
    let expected: BTreeMap<_, _> =
        tables.chats.values().map(|chat| (chat.chat_id.to_string(), chat.status().to_owned())).collect();
    assert_eq!(statuses, expected);
    let messages = rows(&output.join("messages"))?;
    let contents = column(&messages, "message_id", "content")?;
    let expected: BTreeMap<_, _> =
        tables.messages.values().map(|row| (row.message_id.to_string(), row.content.clone())).collect();
    assert_eq!(contents, expected);
    let statuses: BTreeSet<_> = column(&messages, "message_id", "status")?.into_values().collect();
    assert!(statuses.iter().all(|word| recorder::projection::message::MessageStatus::from_sql(word).is_some()));
    assert!(!output.join("unfinished").exists());

    // The export has every column of the tables under the same name, except the columns used only by the projection.
    let pool = stack.database().await?;
    for (table, batches) in [("chats", &chats), ("messages", &messages)] {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name::text FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name = $1 AND column_name NOT LIKE '%\\_digest'",
        )
        .bind(table)
        .fetch_all(&pool)
        .await?;
        let columns: BTreeSet<_> = columns.into_iter().collect();
        let exported: BTreeSet<_> = batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(exported, columns, "{table}");
    }
    Ok(())
}

fn command(stack: &Stack, arguments: &[&str]) -> Command {
    let mut command = Command::new(&stack.recorder.program);
    command.args(arguments).env("NATS_URL", &stack.recorder.nats_url);
    command
}

/// The record batches of all files of a dataset.
fn rows(dataset: &Path) -> anyhow::Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for file in files(dataset)? {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file)?)?.build()?;
        for batch in reader {
            batches.push(batch?);
        }
    }
    ensure!(!batches.is_empty(), "the dataset has no rows: {}", dataset.display());
    Ok(batches)
}

fn files(dataset: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for day in std::fs::read_dir(dataset)? {
        let day = day?;
        let name = day.file_name();
        ensure!(name.to_string_lossy().starts_with("date=2"), "{name:?}");
        for file in std::fs::read_dir(day.path())? {
            let file = file?.path();
            ensure!(file.extension().is_some_and(|ending| ending == "parquet"), "{}", file.display());
            files.push(file);
        }
    }
    Ok(files)
}

fn column(batches: &[RecordBatch], key: &str, value: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for batch in batches {
        let keys = batch.column_by_name(key).context("no key")?.as_string::<i32>();
        let values = batch.column_by_name(value).context("no value")?.as_string::<i32>();
        for row in 0..keys.len() {
            let before = found.insert(keys.value(row).to_owned(), values.value(row).to_owned());
            ensure!(before.is_none(), "key {} exists twice", keys.value(row));
        }
    }
    Ok(found)
}
