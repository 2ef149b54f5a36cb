//! SIGTERM while chats stream: they finish, they are on the record, and the gateway exits with success.

use std::time::Duration;

use futures_util::future::join_all;
use harness::openai::{Answer, ChatRequest};
use harness::upstream::{Gate, Script, Step};
use rustix::process::Signal;
use tests::stack::Stack;
use tokio::time::Instant;

#[tokio::test]
async fn waits_for_the_running_chats() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let gate = Gate::new();
    let held = gate.clone();
    stack.upstream.respond_with(move |request| match ChatRequest::parse(&request.body) {
        Ok(chat) => Script::answer(&chat, &Answer::to(&chat, "slow but sure")).after(1, Step::Wait(held.clone())),
        Err(error) => Script::error(&error),
    });
    let chats = join_all((0..50).map(|n| stack.finished_chat(&ann, if n % 2 == 0 { "even" } else { "odd" })));
    let stopping = async {
        gate.reached(50).await;
        let stopped = stack.gateway.terminate(Duration::from_secs(30));
        let refused = async {
            while harness::http::client().get(stack.gateway.url("/health/live")).send().await.is_ok() {
                tokio::task::yield_now().await;
            }
            gate.open();
        };
        tokio::join!(stopped, refused).0
    };
    let (chats, status) = tokio::join!(chats, stopping);
    for chat in chats {
        assert!(chat?.1.ends_with("data: [DONE]\n\n"));
    }
    assert!(status?.success());
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().map(|day| day.successful_calls).sum::<i64>(), 50);
    Ok(())
}

/// For the drain delay, the listener stays open and every answer closes its connection; readiness is 503 at once.
#[tokio::test]
async fn serves_requests_during_the_drain_delay() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_DRAIN_DELAY", "10m")]).await?;
    let ann = stack.user("ann").await?;
    let before = stack.chat(&ann, "before").send().await?;
    assert_eq!(before.headers().get("connection"), None);
    before.error_for_status()?.text().await?;
    assert_eq!(health_command(&stack.gateway.health_url(""))?, (Some(0), "ready\n".to_owned()));
    stack.gateway.process().signal(Signal::TERM);
    let ready = |url: String| async move {
        let response = harness::http::client().get(url).send().await?;
        anyhow::Ok((response.status().as_u16(), response.text().await?))
    };
    let deadline = Instant::now() + Duration::from_secs(90);
    while ready(stack.gateway.health_url("/health/ready")).await?.0 == 200 {
        anyhow::ensure!(Instant::now() < deadline, "still ready after SIGTERM");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, reason) = ready(stack.gateway.health_url("/health/ready")).await?;
    assert_eq!((status, reason.as_str()), (503, "not ready: the gateway is stopping\n"));
    assert_eq!(ready(stack.gateway.url("/health/ready")).await?.0, 503);
    assert_eq!(ready(stack.gateway.url("/health/live")).await?.0, 200);
    let (status, said) = health_command(&stack.gateway.health_url(""))?;
    assert!(status == Some(1) && said.contains("503: not ready: the gateway is stopping"), "{status:?} {said}");
    for text in ["one", "two"] {
        let response = stack.chat(&ann, text).send().await?.error_for_status()?;
        assert_eq!(response.headers()["connection"], "close");
        assert!(response.text().await?.ends_with("data: [DONE]\n\n"));
    }
    stack.settled().await?;
    // A second signal does not wait for the end of the delay.
    stack.gateway.process().signal(Signal::TERM);
    assert_eq!(stack.gateway.process().exited().await.code(), Some(130));
    Ok(())
}

#[tokio::test]
async fn stops_after_the_drain_delay() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_DRAIN_DELAY", "2s")]).await?;
    let began = Instant::now();
    assert!(stack.gateway.terminate(Duration::from_secs(90)).await?.success());
    assert!(began.elapsed() >= Duration::from_secs(2), "stopped after {:?}", began.elapsed());
    let (status, said) = health_command(&stack.gateway.health_url(""))?;
    assert!(status == Some(1) && said.contains("no answer from 127.0.0.1:"), "{status:?} {said}");
    Ok(())
}

#[tokio::test]
async fn asks_recorders_for_their_readiness() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    stack.recorders[0].ready().await?;
    let ask = |arguments: &[&str], setting: &str, url: String| {
        let address = url.trim_start_matches("http://").to_owned();
        let mut command = std::process::Command::new(harness::program::built("recorder")?);
        let output = command.args(arguments).env(setting, address).output()?;
        anyhow::Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
    };
    let is_ready = (Some(0), "ready\n".to_owned());
    assert_eq!(ask(&["health"], "RECORDER_LISTEN", stack.recorders[0].health_url(""))?, is_ready);
    let api = stack.api.as_ref().unwrap().health_url("");
    assert_eq!(ask(&["health", "serve"], "RECORDER_SERVE_HEALTH_LISTEN", api)?, is_ready);
    let nobody = ask(&["health"], "RECORDER_LISTEN", "127.0.0.1:1".to_owned())?;
    assert!(nobody.0 == Some(1) && nobody.1.contains("no answer from 127.0.0.1:1"), "{nobody:?}");
    Ok(())
}

/// The exit status and the output of `gateway health`, for a gateway at this URL.
fn health_command(url: &str) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = std::process::Command::new(harness::program::built("gateway")?);
    let output = command.arg("health").env("GATEWAY_HEALTH_LISTEN", url.trim_start_matches("http://")).output()?;
    Ok((output.status.code(), String::from_utf8([output.stdout, output.stderr].concat())?))
}
