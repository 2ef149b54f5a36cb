//! The recorder under faults: no event is lost or counted twice, and no person has to act.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use futures_util::StreamExt as _;
use futures_util::stream;
use harness::fault_proxy::FaultProxy;
use sqlx::Row as _;
use tests::stack::{Stack, User};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(120);

async fn chats(stack: &Stack, user: &User, count: usize) -> anyhow::Result<()> {
    let done = stream::iter(0..count).map(|n| async move { stack.finished_chat(user, &format!("{n}")).await });
    for result in done.buffer_unordered(10).collect::<Vec<_>>().await {
        anyhow::ensure!(result?.1.ends_with("data: [DONE]\n\n"));
    }
    Ok(())
}

/// Restarts the recorder behind a proxy to its database.
async fn behind_a_proxy_to_postgres(stack: &mut Stack) -> anyhow::Result<FaultProxy> {
    let url: reqwest::Url = stack.recorder.database_url.parse()?;
    let server = format!("127.0.0.1:{}", url.port().unwrap_or_default()).parse()?;
    let proxy = FaultProxy::start(server).await?;
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    let direct = stack.recorder.database_url.clone();
    stack.recorder.database_url = direct.replace(&server.to_string(), &proxy.address().to_string());
    stack.add_recorder().await?;
    stack.recorder.database_url = direct;
    Ok(proxy)
}

#[tokio::test]
async fn a_connection_cut_right_after_commit_was_sent_changes_nothing() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = behind_a_proxy_to_postgres(&mut stack).await?;
    chats(&stack, &ann, 5).await?;
    stack.drained().await?;
    for round in 1..=5 {
        // The proxy cuts the connection after COMMIT, so PostgreSQL commits and the recorder does not learn the result.
        proxy.cut_once_after(b"COMMIT");
        chats(&stack, &ann, 10).await?;
        let deadline = Instant::now() + PATIENCE;
        while proxy.cuts() < round {
            anyhow::ensure!(Instant::now() < deadline, "no commit was seen");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 55);
    Ok(())
}

#[tokio::test]
async fn a_transaction_longer_than_the_brokers_timeout_is_counted_once() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    stack.add_recorder().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 2).await?;
    stack.drained().await?;
    let pool = stack.database().await?;
    let mut stuck = pool.begin().await?;
    sqlx::raw_sql("LOCK TABLE chats IN ACCESS EXCLUSIVE MODE").execute(&mut *stuck).await?;
    chats(&stack, &ann, 5).await?;
    // The wait must be longer than the acknowledgement time. Progress signals keep the current batch; events fetched
    // ahead for the next batch are delivered to the other recorder.
    sleep(shared::stream::ACK_WAIT + Duration::from_secs(10)).await;
    stuck.rollback().await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 7);
    Ok(())
}

#[tokio::test]
async fn a_silent_connection_to_the_database_is_noticed() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = behind_a_proxy_to_postgres(&mut stack).await?;
    chats(&stack, &ann, 5).await?;
    stack.drained().await?;
    proxy.stall();
    chats(&stack, &ann, 5).await?;
    stack.recorders[0].process().logged("a batch has to wait").await?;
    proxy.restore();
    assert_eq!(stack.settled().await?.tables.chats.len(), 10);
    Ok(())
}

#[tokio::test]
async fn a_silent_connection_to_the_broker_is_noticed() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let proxy = FaultProxy::start(stack.nats.address()).await?;
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    let direct = std::mem::replace(&mut stack.recorder.nats_url, format!("nats://{}", proxy.address()));
    stack.add_recorder().await?;
    stack.recorder.nats_url = direct;
    chats(&stack, &ann, 5).await?;
    stack.drained().await?;
    proxy.stall();
    chats(&stack, &ann, 5).await?;
    stack.recorders[0].process().logged("disconnected from the broker").await?;
    proxy.restore();
    assert_eq!(stack.settled().await?.tables.chats.len(), 10);
    Ok(())
}

#[tokio::test]
async fn a_nul_in_a_text_is_kept_in_the_event_and_escaped_in_the_row() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "a\0b").await?;
    let oracle = stack.settled().await?;
    let of_event = oracle.events.iter().find_map(|event| match event {
        shared::event::Event::ChatStarted(event) => event.new_messages.first().cloned(),
        _ => None,
    });
    assert_eq!(of_event.unwrap().text, "a\0b");
    assert!(oracle.tables.messages.values().any(|message| message.content == "a\\u0000b"));
    Ok(())
}

#[tokio::test]
async fn four_recorders_at_once_never_deadlock() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    // Small batches mean many transactions on the rows of the same three users.
    stack.recorder.more.push(("RECORDER_BATCH_EVENTS".into(), "7".into()));
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    let users = [stack.user("ann").await?, stack.user("bob").await?, stack.user("eve").await?];
    for user in &users {
        chats(&stack, user, 100).await?;
    }
    for _ in 0..4 {
        stack.add_recorder().await?;
    }
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 300);
    let pool = stack.database().await?;
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(sqlx::query(sql).fetch_one(&pool).await?.get::<i64, _>(0), 0);
    Ok(())
}

async fn readiness(stack: &Stack) -> anyhow::Result<(u16, String)> {
    let answer = harness::http::client().get(stack.recorders[0].url("/health/ready")).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Waits until readiness has this status and says these words.
async fn becomes(stack: &Stack, status: u16, words: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = readiness(stack).await?;
        if found.0 == status && found.1.contains(words) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "expected {status} with {words:?}, found {found:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_missing_for_a_moment_is_waited_for() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 2).await?;
    stack.drained().await?;
    becomes(&stack, 200, "ready").await?;
    let jetstream = stack.jetstream().await?;
    jetstream.delete_stream(shared::stream::NAME).await?;
    stack.recorders[0].process().logged("nothing can be recorded: waiting until it is there again").await?;
    becomes(&stack, 503, "missing").await?;
    sleep(Duration::from_secs(7)).await;
    assert!(stack.recorders[0].process().is_running(), "a recorder must wait for the stream");
    stack.recorder.run(&["stream", "create"]).await?;
    becomes(&stack, 200, "ready").await?;
    chats(&stack, &ann, 2).await?;
    stack.gateway.drained(PATIENCE).await?;
    stack.drained().await?;
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM chats").fetch_one(&stack.database().await?).await?;
    assert!(recorded >= 4, "{recorded} of 4 chats are recorded");
    Ok(())
}

/// The words of the difference, and a change of the stream.
type Change = (&'static str, fn(&mut Config));

#[tokio::test]
async fn a_stream_that_is_changed_to_drop_events_is_noticed_at_once() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    becomes(&stack, 200, "ready").await?;
    // From its first batch on, the recorder has started.
    chats(&stack, &ann, 1).await?;
    stack.drained().await?;
    let jetstream = stack.jetstream().await?;
    let expected = jetstream.get_stream(shared::stream::NAME).await?.cached_info().config.clone();
    let changes: [Change; 2] = [
        ("discard is Old", |config| config.discard = DiscardPolicy::Old),
        ("keeps events for 1h, and without limit at the start", |config| {
            config.max_age = Duration::from_secs(3600);
        }),
    ];
    for (words, change) in changes {
        let mut changed = expected.clone();
        change(&mut changed);
        jetstream.update_stream(changed).await?;
        stack.recorders[0].process().logged(words).await?;
        becomes(&stack, 503, "may drop events").await?;
        // What arrives meanwhile is recorded.
        chats(&stack, &ann, 1).await?;
        stack.drained().await?;
        jetstream.update_stream(expected.clone()).await?;
        becomes(&stack, 200, "ready").await?;
    }
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM chats").fetch_one(&stack.database().await?).await?;
    assert_eq!(recorded, 3);
    Ok(())
}

#[tokio::test]
async fn a_database_that_takes_no_batch_makes_a_recorder_not_ready() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    chats(&stack, &ann, 1).await?;
    stack.drained().await?;
    becomes(&stack, 200, "ready").await?;
    // A table that is away stands for a full disk: PostgreSQL is there, and refuses the batch.
    let pool = stack.database().await?;
    sqlx::raw_sql("ALTER TABLE chats RENAME TO away").execute(&pool).await?;
    chats(&stack, &ann, 1).await?;
    becomes(&stack, 503, "the database does not take the batch").await?;
    sqlx::raw_sql("ALTER TABLE away RENAME TO chats").execute(&pool).await?;
    becomes(&stack, 200, "ready").await?;
    // A long lock shows in the metric long before it is an alarm.
    let mut stuck = pool.begin().await?;
    sqlx::raw_sql("LOCK TABLE chats IN ACCESS EXCLUSIVE MODE").execute(&mut *stuck).await?;
    chats(&stack, &ann, 1).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics =
            harness::http::client().get(stack.recorders[0].health_url("/metrics")).send().await?.text().await?;
        let wait = metrics.lines().find_map(|line| line.strip_prefix("recorder_batch_wait_seconds "));
        if wait.and_then(|wait| wait.parse::<f64>().ok()).is_some_and(|wait| wait > 0.5) {
            break;
        }
        anyhow::ensure!(Instant::now() < deadline, "no wait in {metrics}");
        sleep(Duration::from_millis(50)).await;
    }
    stuck.rollback().await?;
    // A read-only database says so, without any batch.
    stack.drained().await?;
    let (name, alter): (String, _) =
        (sqlx::query_scalar("SELECT current_database()").fetch_one(&pool).await?, |name: &str, value: &str| {
            sqlx::AssertSqlSafe(format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}"))
        });
    sqlx::raw_sql(alter(&name, "on")).execute(&pool).await?;
    sqlx::raw_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&pool)
    .await?;
    becomes(&stack, 503, "read-only").await?;
    let mut session = pool.acquire().await?;
    sqlx::raw_sql("SET default_transaction_read_only = off").execute(&mut *session).await?;
    sqlx::raw_sql(alter(&name, "off")).execute(&mut *session).await?;
    drop(session);
    sqlx::raw_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&pool)
    .await?;
    becomes(&stack, 200, "ready").await?;
    chats(&stack, &ann, 1).await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 4);
    Ok(())
}
