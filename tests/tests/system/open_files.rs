//! The limit of open files: the soft limit is raised, and a hard limit that is too low makes the gateway refuse chats in good
//! order, while health, running chats and the journal go on.

use futures_util::future::join_all;
use harness::services::Gateway;
use harness::upstream::{Gate, Script, Step};
use serde_json::json;
use tests::stack::{MODEL, Stack, User};

const PIECE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";

async fn chat(gateway: &Gateway, user: &User) -> anyhow::Result<reqwest::Response> {
    let body = json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&user.token);
    Ok(request.json(&body).send().await?)
}

async fn limited(stack: &Stack, open_files: (u64, u64)) -> anyhow::Result<Gateway> {
    let one_user_may_take_all = ("GATEWAY_CHATS_USER_SHARE".to_owned(), "100".to_owned());
    let started = stack.another_gateway(|settings| {
        settings.open_files = Some(open_files);
        settings.more.push(one_user_may_take_all);
    });
    started.await
}

/// Opens as many chats at once, and returns those that were served and the number of those that were refused.
async fn many(gateway: &Gateway, ann: &User, count: usize) -> anyhow::Result<(Vec<reqwest::Response>, usize)> {
    let (mut served, mut refused) = (Vec::new(), 0);
    for response in join_all((0..count).map(|_| chat(gateway, ann))).await {
        let response = response?;
        match response.status().as_u16() {
            200 => served.push(response),
            503 => refused += 1,
            other => anyhow::bail!("status {other}: {}", response.text().await?),
        }
    }
    Ok((served, refused))
}

#[tokio::test]
async fn beyond_the_soft_limit_are_opened() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let gateway = limited(&stack, (64, 4096)).await?;
    let gate = Gate::new();
    let script = Script::stream([PIECE, "data: [DONE]\n\n"]).after(1, Step::Wait(gate.clone()));
    stack.upstream.respond_with(move |_| script.clone());
    let (served, refused) = many(&gateway, &ann, 100).await?;
    assert_eq!((served.len(), refused), (100, 0));
    gate.open();
    for response in served {
        assert!(response.text().await?.ends_with("[DONE]\n\n"));
    }
    gateway.drained(crate::leases::PATIENCE).await?;
    stack.settled().await.map(drop)
}

#[tokio::test]
async fn beyond_the_hard_limit_are_refused_while_health_and_the_journal_go_on() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    // 256 descriptors are in reserve, and the others are shared out in proportion to the limits of chats and connections.
    let gateway = limited(&stack, (400, 400)).await?;
    gateway.process().logged("which are lowered").await?;
    let gate = Gate::new();
    let script = Script::stream([PIECE, "data: [DONE]\n\n"]).after(1, Step::Wait(gate.clone()));
    stack.upstream.respond_with(move |_| script.clone());
    let (served, refused) = many(&gateway, &ann, 90).await?;
    assert_eq!((served.len(), refused), (48, 42), "a third of 144 descriptors is for chats");
    gateway.ready().await?;
    gate.open();
    for response in served {
        assert!(response.text().await?.ends_with("[DONE]\n\n"));
    }
    gateway.drained(crate::leases::PATIENCE).await?;
    assert_eq!(gateway.metric("stenograph_gateway_journal_fsync_failures_total").await?, 0.0);
    let log = std::fs::read_to_string(gateway.process().log())?;
    assert!(!log.contains("cannot accept connections") && !log.contains("cannot be synced"), "{log}");
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 48);
    Ok(())
}
