//! Lost gateways: a recorder ends the open chats of a lost gateway, by events in the stream, and a later real end replaces such
//! an end. A living gateway is never taken for lost, whatever the broker does.

use std::sync::Arc;
use std::time::Duration;

use harness::services::Gateway;
use harness::upstream::{Gate, Script, Step};
use recorder::metrics::Metrics;
use recorder::pipeline::orphans::{OrphanPolicy, OrphanReaper};
use recorder::projection::tables::Table;
use reqwest::Response;
use serde_json::json;
use shared::event::{Event, FailureStage};
use tests::stack::{MODEL, Stack, User, header, publish_again};
use tokio::time::{Instant, sleep, timeout};

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Leases of two seconds, and recorders that wait two more.
pub(crate) async fn stack(grace: &str, recorders: usize) -> anyhow::Result<Stack> {
    let mut stack = Stack::start().await?;
    stack.jetstream().await?.delete_key_value(shared::lease::BUCKET).await?;
    stack.recorder.run(&["stream", "create", "--lease-lifetime", "2s"]).await?;
    stack.recorder.more.push(("RECORDER_GATEWAY_GRACE".into(), grace.into()));
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    for _ in 0..recorders {
        stack.add_recorder().await?;
    }
    Ok(stack)
}

/// Starts a gateway of this name with a data directory of its own.
pub(crate) async fn gateway(stack: &Stack, name: &str, disk: &str) -> anyhow::Result<Gateway> {
    stack
        .another_gateway(|settings| {
            settings.instance = name.to_owned();
            settings.data_dir = settings.data_dir.with_file_name(disk);
        })
        .await
}

/// Starts a chat that pauses in the middle of the answer until the gate opens.
pub(crate) async fn held(
    stack: &Stack,
    gateway: &Gateway,
    user: &User,
    gate: &Gate,
) -> anyhow::Result<(String, Response)> {
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";
    stack.upstream.respond_next(Script::stream([piece, "data: [DONE]\n\n"]).after(1, Step::Wait(gate.clone())));
    let body = json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let request =
        harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&user.token).json(&body);
    let mut response = request.send().await?;
    let chat = header(&response, "x-chat-id")?;
    assert!(response.chunk().await?.is_some());
    Ok((chat, response))
}

pub(crate) async fn status(pool: &sqlx::PgPool, chat: &str) -> anyhow::Result<Option<String>> {
    let status = sqlx::query_scalar("SELECT status FROM chats WHERE chat_id = $1::uuid").bind(chat);
    Ok(status.fetch_optional(pool).await?)
}

pub(crate) async fn becomes(pool: &sqlx::PgPool, chat: &str, expected: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = status(pool, chat).await?;
        if found.as_deref() == Some(expected) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "chat {chat} is {found:?}, expected {expected}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn chats_of_a_lost_gateway_are_ended_and_a_real_end_replaces_that_end() -> anyhow::Result<()> {
    let stack = stack("2s", 2).await?;
    let (ann, pool) = (stack.user("ann").await?, stack.database().await?);
    let gate = Gate::new();

    // The gateway is killed and returns with an empty journal: only the recorder can end the first run's chat.
    let first = gateway(&stack, "gateway-2", "disk-1").await?;
    let (lost, _response) = held(&stack, &first, &ann, &gate).await?;
    becomes(&pool, &lost, "started").await?;
    first.kill9().await;
    let second = gateway(&stack, "gateway-2", "disk-2").await?;
    let (running, response) = held(&stack, &second, &ann, &gate).await?;
    becomes(&pool, &lost, "orphaned").await?;
    assert_eq!(status(&pool, &running).await?.as_deref(), Some("started"), "the chats of the present run stay open");
    gate.open();
    assert!(timeout(PATIENCE, response.bytes()).await??.ends_with(b"data: [DONE]\n\n"));

    // The gateway is killed and does not return.
    let gate = Gate::new();
    let (gone, _response) = held(&stack, &second, &ann, &gate).await?;
    becomes(&pool, &gone, "started").await?;
    second.kill9().await;
    becomes(&pool, &gone, "orphaned").await?;

    let oracle = stack.settled().await?;
    let day = oracle.tables.usage_stats.values().next().unwrap();
    assert_eq!((day.api_calls, day.successful_calls, day.failed_calls), (3, 1, 2));
    let of_recorders = oracle.events.iter().filter_map(|event| match event {
        Event::ChatFailed(event) if event.stage == FailureStage::GatewayLost => Some(event.clone()),
        _ => None,
    });
    let of_recorders: Vec<_> = of_recorders.collect();
    assert_eq!(of_recorders.len(), 2, "the stream must have one end event of the recorders for each lost chat");

    // The gateway's own end event arrives late, as if the lost disk were found.
    let mut end = of_recorders.into_iter().find(|event| event.chat_id.to_string() == gone).unwrap();
    end.stage = FailureStage::GatewayRestarted;
    end.error.message = "the gateway was stopped".into();
    end.failed_at += Duration::from_secs(3600);
    let end = Event::ChatFailed(end);
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in shared::envelope::headers(&end, "/gateway/gateway-2") {
        headers.insert(name, value);
    }
    let subject = shared::subject::of(end.kind(), end.user_id());
    stack.jetstream().await?.publish_with_headers(subject, headers, end.encode()?.into()).await?.await?;
    becomes(&pool, &gone, "failed").await?;
    let oracle = stack.settled().await?;
    let day = oracle.tables.usage_stats.values().next().unwrap();
    assert_eq!(
        (day.api_calls, day.successful_calls, day.failed_calls),
        (3, 1, 2),
        "the late end replaces the recorder's end and is not counted again"
    );
    Ok(())
}

#[tokio::test]
async fn a_living_gateway_is_not_taken_for_lost_after_an_outage_of_the_broker() -> anyhow::Result<()> {
    let mut stack = stack("15s", 1).await?;
    let (ann, pool) = (stack.user("ann").await?, stack.database().await?);
    let (alive, dead) = (gateway(&stack, "alive", "disk-1").await?, gateway(&stack, "dead", "disk-2").await?);
    let gate = Gate::new();
    let (chat_of_alive, response) = held(&stack, &alive, &ann, &gate).await?;
    let (chat_of_dead, _response) = held(&stack, &dead, &ann, &gate).await?;
    becomes(&pool, &chat_of_alive, "started").await?;
    becomes(&pool, &chat_of_dead, "started").await?;
    dead.kill9().await;
    // The outage is longer than the lifetime of a lease, so no lease exists when the broker is back.
    stack.nats.stop().await?;
    sleep(Duration::from_secs(4)).await;
    stack.nats.start().await?;
    becomes(&pool, &chat_of_dead, "orphaned").await?;
    assert_eq!(status(&pool, &chat_of_alive).await?.as_deref(), Some("started"));
    gate.open();
    assert!(timeout(PATIENCE, response.bytes()).await??.ends_with(b"data: [DONE]\n\n"));
    becomes(&pool, &chat_of_alive, "completed").await?;
    stack.settled().await?;
    Ok(())
}

/// With a new database, or a database that was away for long, the stream has ends that the tables lack.
#[tokio::test]
async fn chats_that_took_too_long_are_ended_only_after_the_tables_have_caught_up() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let (ann, pool) = (stack.user("ann").await?, stack.database().await?);
    for text in ["ended", "never ended"] {
        stack.finished_chat(&ann, text).await?;
        stack.settled().await?;
    }
    let events = stack.settled().await?.events;
    for recorder in stack.recorders.drain(..) {
        recorder.terminate(PATIENCE).await?;
    }
    let tables = Table::ALL.map(Table::name).join(", ");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("TRUNCATE {tables}"))).execute(&pool).await?;
    let jetstream = stack.jetstream().await?;
    jetstream.get_stream(shared::stream::NAME).await?.purge().await?;
    // The same events, dated two days ago and without the last end, are in the stream; the tables have only the starts.
    let ago = time::Duration::days(2);
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::ChatStarted(mut event) => {
                event.started_at -= ago;
                starts.push((event.chat_id.to_string(), Event::ChatStarted(event)));
            }
            Event::MessageCompleted(mut event) => {
                event.started_at -= ago;
                event.finished_at -= ago;
                ends.push(Event::MessageCompleted(event));
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    let (chats, starts): (Vec<_>, Vec<_>) = starts.into_iter().unzip();
    for event in starts.iter().chain(&ends[..1]) {
        publish_again(&jetstream, event).await?;
    }
    recorder::store::apply(
        &pool,
        &mut recorder::projection::pricing::Prices::default(),
        recorder::projection::project(&starts),
        &[],
    )
    .await?;

    let hour = Duration::from_secs(3600);
    let client = recorder::source::connect(&shared::nats::BrokerConfig::from_url(&stack.nats.url())?).await?;
    let metrics = Arc::new(Metrics::register(&mut <_>::default()));
    let mut orphans =
        OrphanReaper::new(client, pool.clone(), metrics, OrphanPolicy { grace: hour, longest_chat: 24 * hour });
    for _ in 0..3 {
        assert_eq!(
            look(&mut orphans).await?,
            0,
            "no chat may be ended while the tables are behind the stream, as the stream may have its end"
        );
    }
    stack.recorder.more.push(("RECORDER_GATEWAY_GRACE".into(), "1h".into()));
    stack.recorder.more.push(("RECORDER_LONGEST_CHAT".into(), "1000h".into()));
    stack.add_recorder().await?;
    stack.drained().await?;
    assert_eq!(look(&mut orphans).await?, 1, "only the recorder can end the chat without an end event");
    becomes(&pool, &chats[1], "orphaned").await?;
    becomes(&pool, &chats[0], "completed").await?;
    stack.drained().await?;
    assert_eq!(look(&mut orphans).await?, 0);
    stack.settled().await.map(drop)
}

/// Takes one look, as soon as the broker is there.
async fn look(orphans: &mut OrphanReaper) -> anyhow::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match orphans.step().await {
            Err(error) if error.to_string().contains("is away") && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            looked => return looked,
        }
    }
}
