//! A user who opens streams without an end, as many and as often as the gateway allows: all others have places.

use std::time::Duration;

use harness::upstream::{Script, Step};
use serde_json::Value;
use tests::stack::Stack;
use tokio::time::{sleep, timeout};

/// The path, the body, and the members of the error that say why: the code, and the type in the shape of the caller's API.
const REFUSALS: [(&str, &str); 2] =
    [("/v1/chat/completions", "rate_limit_error"), ("/v1/messages", "rate_limit_error")];

#[tokio::test]
async fn one_user_takes_half_of_the_places_and_no_more() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_MAX_CHATS", "6")]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    let (stack, bob) = (&stack, &bob);
    let piece = "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"heard\"}}]}\n\n";
    let mut held = Vec::new();
    for _ in 0..3 {
        stack.upstream.respond_next(Script::stream([piece]).after(1, Step::Hang));
        let mut response = stack.chat(&ann, "for ever").send().await?;
        anyhow::ensure!(response.status() == 200 && response.chunk().await?.is_some());
        held.push(response);
    }
    for (path, kind) in REFUSALS {
        let body = format!(
            r#"{{"model":"{}","max_tokens":9,"messages":[{{"role":"user","content":"x"}}]}}"#,
            tests::stack::MODEL
        );
        let request = stack.post(path).bearer_auth(&ann.token).header("content-type", "application/json");
        let refused = request.body(body).send().await?;
        anyhow::ensure!(refused.status() == 429 && refused.headers()["retry-after"] == "1", "{path}: {refused:?}");
        let error = refused.json::<Value>().await?["error"].take();
        anyhow::ensure!(error["type"] == kind && error["message"].to_string().contains("this user"), "{path}: {error}");
    }
    // Another user has places, one after the other and all at once, while the first goes on trying.
    let trying = async {
        loop {
            if let Ok(response) = stack.chat(&ann, "again").send().await {
                // 503 while the other user has the other half.
                assert!(matches!(response.status().as_u16(), 429 | 503), "{response:?}");
            }
        }
    };
    let others = async {
        for n in 0..20 {
            let chats = (0..3).map(|m| async move { stack.finished_chat(bob, &format!("{n} {m}")).await });
            futures_util::future::try_join_all(chats).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        () = trying => {}
        done = others => done?,
    }

    // A place is free again once its chat has ended.
    drop(held.pop());
    let freed = async {
        while stack.chat(&ann, "and again").send().await?.status() != 200 {
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(30), freed).await??;
    drop(held);
    let chats = stack.settled().await?.tables.chats.len();
    anyhow::ensure!(chats == 3 + 60 + 1, "{chats} chats");
    Ok(())
}
