//! The journal under a gateway that is killed, a broker that is away or forgets, a disk without room, and a second process.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::join_all;
use harness::servers::Nats;
use shared::event::Event;
use tests::stack::{Stack, User, header, publish_again};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(120);

/// Observations of the clients.
#[derive(Debug, Default)]
struct Seen {
    /// Chats with at least one received byte.
    begun: BTreeSet<String>,
    /// Chats with a received end.
    ended: BTreeSet<String>,
}

/// Sends chats one after another until told to stop. The gateway may be killed meanwhile.
async fn client(stack: &Stack, user: &User, is_enough: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !is_enough.load(Ordering::Relaxed) {
        let Ok(mut response) = stack.chat(user, "hello").send().await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(chat) = header(&response, "x-chat-id") else { continue };
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            seen.begun.insert(chat.clone());
            body.extend_from_slice(&chunk);
        }
        if body.ends_with(b"data: [DONE]\n\n") {
            seen.ended.insert(chat);
        }
    }
    seen
}

/// Every half second for a minute, or as fast as it starts again.
#[tokio::test]
async fn of_a_gateway_that_is_killed_repeatedly_loses_nothing_that_clients_received() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_DURABILITY", "journal")]).await?;
    let ann = stack.user("ann").await?;
    let is_enough = AtomicBool::new(false);
    let address = stack.gateway.address();
    let killing = async {
        let (mut gateway, mut killed, until) = (None, 0, Instant::now() + Duration::from_secs(60));
        while Instant::now() < until {
            killed += 1;
            gateway.as_ref().unwrap_or(&stack.gateway).kill9().await;
            // The new gateway has the same journal and the same address.
            let data = stack.journal().parent().map(std::path::Path::to_owned);
            let restarted = stack.another_gateway(|settings| {
                settings.listen = address.to_string();
                settings.instance = "gateway-1".into();
                settings.data_dir = data.unwrap_or_default();
            });
            gateway = Some(restarted.await?);
            sleep(Duration::from_millis(500)).await;
        }
        is_enough.store(true, Ordering::Relaxed);
        println!("killed {killed} times");
        anyhow::Ok(gateway)
    };
    let clients = join_all((0..8).map(|_| client(&stack, &ann, &is_enough)));
    let (gateway, seen) = tokio::join!(killing, clients);
    let gateway = gateway?;
    if let Some(gateway) = &gateway {
        gateway.drained(PATIENCE).await?;
    }
    let oracle = stack.settled().await?;
    let chat = |id: &String| id.parse().ok().and_then(|id| oracle.tables.chats.get(&id));
    let mut ended = 0;
    for seen in &seen {
        for id in &seen.begun {
            ensure!(
                chat(id).is_some_and(|chat| chat.ending.is_some()),
                "chat {id} was seen and has no end: {:?}",
                chat(id)
            );
        }
        for id in &seen.ended {
            let outcome = chat(id).and_then(|chat| chat.ending.as_ref()).map(|ending| format!("{:?}", ending.outcome));
            ensure!(
                outcome.as_deref().is_some_and(|outcome| outcome.starts_with("Completed")),
                "chat {id}: {outcome:?}"
            );
            ended += 1;
        }
    }
    println!("{} chats, of which {ended} were seen to their end", oracle.tables.chats.len());
    ensure!(ended > 0, "no chat got through");
    ensure!(oracle.tables.chats.values().all(|chat| chat.ending.is_some()), "some chats never ended");
    Ok(())
}

#[tokio::test]
async fn that_is_full_refuses_new_chats_before_the_upstream_is_asked_and_recovers() -> anyhow::Result<()> {
    let mut stack = Stack::with_gateway(&[("GATEWAY_JOURNAL_MAX_BYTES", "4194304")]).await?;
    let ann = stack.user("ann").await?;
    stack.nats.stop().await?;
    let long = "x".repeat(200_000);
    let mut served = 0;
    let refused = loop {
        let response = stack.chat(&ann, &long).send().await?;
        if response.status() != 200 {
            break response;
        }
        ensure!(response.text().await?.ends_with("data: [DONE]\n\n"));
        served += 1;
        ensure!(served < 100, "the journal is never full");
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(refused.text().await?.contains("journal_unavailable"));
    ensure!(served > 3, "{served} chats in 4 MiB");
    assert_eq!(stack.upstream.chats().len(), served, "a refused chat must not reach the upstream");

    stack.nats.start().await?;
    stack.gateway.ready().await?;
    stack.finished_chat(&ann, "hello").await?;
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), served + 1);
    Ok(())
}

#[tokio::test]
async fn of_another_process_is_not_touched() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let data = stack.journal().parent().map(std::path::Path::to_owned).unwrap_or_default();
    let second = stack.another_gateway(|settings| settings.data_dir = data).await;
    ensure!(second.is_err(), "the second gateway started");
    let words = format!("is in use by process {}", stack.gateway.process().pid());
    // The last lines of a process may reach the log file shortly after the process has ended.
    let log = stack.journal().ancestors().nth(2).map(|directory| directory.join("gateway-2.log")).unwrap_or_default();
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&log)?.contains(&words) {
        ensure!(Instant::now() < deadline, "the log does not say that the directory {words}");
        sleep(Duration::from_millis(20)).await;
    }
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    stack.settled().await?;
    Ok(())
}

/// A stopped broker with 30 events of 15 chats, and the broker's files after the first 10 events.
async fn broker_and_its_past() -> anyhow::Result<(Stack, tempfile::TempDir)> {
    let mut stack = Stack::start().await?;
    let (past, _) = give_a_past(&mut stack).await?;
    Ok((stack, past))
}

/// Stops the broker after 30 events of 15 chats. Returns a copy of the broker's files after the first 10 events, and the events.
async fn give_a_past(stack: &mut Stack) -> anyhow::Result<(tempfile::TempDir, Vec<Event>)> {
    let ann = stack.user("ann").await?;
    for n in 0..5 {
        stack.finished_chat(&ann, &format!("{n}")).await?;
    }
    stack.settled().await?;
    stack.nats.stop().await?;
    let (messages, copy) = (stack.nats.messages_of(shared::stream::NAME), tempfile::tempdir()?);
    ensure!(std::process::Command::new("cp").arg("-a").arg(&messages).arg(copy.path()).status()?.success());
    stack.nats.start().await?;
    for n in 5..15 {
        stack.finished_chat(&ann, &format!("{n}")).await?;
    }
    let events = stack.settled().await?.events;
    assert_eq!(events.len(), 30);
    stack.nats.stop().await?;
    Ok((copy, events))
}

/// Restores the broker's files.
async fn go_back(stack: &mut Stack, past: &tempfile::TempDir) -> anyhow::Result<()> {
    let messages = stack.nats.messages_of(shared::stream::NAME);
    std::fs::remove_dir_all(&messages)?;
    let kept = past.path().join("msgs");
    ensure!(std::process::Command::new("cp").arg("-a").arg(kept).arg(&messages).status()?.success());
    stack.nats.start().await
}

async fn await_events(stack: &Stack, count: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while stack.events().await? < count {
        ensure!(Instant::now() < deadline, "{} of {count} events are back", stack.events().await?);
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn publishes_again_what_a_broker_has_lost_even_if_the_gateway_is_killed_meanwhile() -> anyhow::Result<()> {
    let (mut stack, past) = broker_and_its_past().await?;
    stack.gateway.kill9().await;
    go_back(&mut stack, &past).await?;
    // The broker accepts no further events for now, so the events published again stay unacknowledged.
    let stream = stack.jetstream().await?.get_stream(shared::stream::NAME).await?;
    let mut config = stream.cached_info().config.clone();
    let most = std::mem::replace(&mut config.max_messages, 10);
    stack.jetstream().await?.update_stream(&config).await?;
    stack.restart_gateway().await?;
    let deadline = Instant::now() + PATIENCE;
    while stack.gateway.metric("stenograph_gateway_journal_republished_total").await? < 20.0 {
        ensure!(Instant::now() < deadline, "nothing is published again");
        sleep(Duration::from_millis(20)).await;
    }
    // The gateway writes the broker's position to the journal ten times a second.
    sleep(Duration::from_secs(1)).await;
    stack.gateway.kill9().await;
    config.max_messages = most;
    stack.jetstream().await?.update_stream(&config).await?;
    assert_eq!(stack.events().await?, 10);
    stack.restart_gateway().await?;
    await_events(&stack, 30).await
}

#[tokio::test]
async fn publishes_again_what_a_broker_has_lost() -> anyhow::Result<()> {
    let (mut stack, past) = broker_and_its_past().await?;
    go_back(&mut stack, &past).await?;
    await_events(&stack, 30).await?;
    assert!(stack.gateway.metric("stenograph_gateway_journal_republished_total").await? >= 20.0);
    Ok(())
}

/// Checks get no answer while the gateway may not read the stream and no recorder runs. Meanwhile other events take the
/// sequences of the lost events.
#[tokio::test]
async fn publishes_again_what_a_broker_has_lost_even_if_checks_get_an_answer_late() -> anyhow::Result<()> {
    let users = "authorization { users: [{ user: admin, password: admin }, { user: gateway, password: gateway, \
                 permissions: { publish: { deny: [\"$JS.API.STREAM.MSG.GET.>\", \"$JS.API.DIRECT.GET.>\"] } } }] }\n";
    let nats = Nats::with_settings(users, "admin:admin").await?;
    let url = nats.bare_url();
    let gateway = [("NATS_URL", url.as_str()), ("NATS_USER", "gateway"), ("NATS_PASSWORD", "gateway")];
    let mut stack = Stack::with_broker(nats, &gateway, &[], &[]).await?;
    let (past, events) = give_a_past(&mut stack).await?;
    stack.recorders.clear();
    stack.gateway.process().pause();
    go_back(&mut stack, &past).await?;
    let jetstream = stack.jetstream().await?;
    for event in &events {
        publish_again(&jetstream, event).await?;
    }
    stack.gateway.process().resume();
    let bob = stack.user("bob").await?;
    for n in 0..15 {
        stack.finished_chat(&bob, &format!("{n}")).await?;
    }
    await_events(&stack, 70).await?;
    // The gateway has connected and asked, without an answer; another connection makes that harder to remember.
    stack.nats.kill9().await;
    stack.nats.start().await?;
    stack.finished_chat(&bob, "15").await?;
    await_events(&stack, 72).await?;
    stack.add_recorder().await?;
    await_events(&stack, 92).await?;
    stack.settled().await?;
    Ok(())
}
