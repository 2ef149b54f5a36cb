//! A user who creates conversations, sends idempotency keys, or sends large bodies without an end: refused in time, alone, and for a while.

use reqwest::Response;
use serde_json::{Value, json};
use tests::stack::{Stack, User};

async fn refusal(response: Response, code: &str) -> anyhow::Result<()> {
    anyhow::ensure!(response.status() == 429, "{code}: {response:?}");
    let seconds: u64 = response.headers()["retry-after"].to_str()?.parse()?;
    anyhow::ensure!((1..=24 * 3600).contains(&seconds), "{code}: {seconds} s");
    let error = response.json::<Value>().await?["error"].take();
    anyhow::ensure!(error["code"] == code && error["type"] == "rate_limit_error", "{error}");
    Ok(())
}

/// Sends a request until the answer is 429, and returns that answer and the number of answers before. A minute may end in between.
async fn until_refused(send: impl AsyncFn() -> anyhow::Result<Response>) -> anyhow::Result<(Response, usize)> {
    for number in 0..100 {
        let response = send().await?;
        if response.status() == 429 {
            return Ok((response, number));
        }
        anyhow::ensure!(response.status().is_success(), "{response:?}");
        response.bytes().await?;
    }
    anyhow::bail!("nothing was refused")
}

async fn create(stack: &Stack, user: &User) -> anyhow::Result<Response> {
    Ok(stack.post("/api/conversations").bearer_auth(&user.token).json(&json!({"title": "x"})).send().await?)
}

#[tokio::test]
async fn bounds_on_each_user_hold_and_leave_others_alone() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[
        ("GATEWAY_USER_CONVERSATIONS_PER_MINUTE", "5"),
        ("GATEWAY_USER_IDEMPOTENCY_KEYS_PER_MINUTE", "5"),
        ("GATEWAY_USER_BODY_BYTES_PER_DAY", "100000"),
    ])
    .await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);

    let (refused, created) = until_refused(async || create(&stack, &ann).await).await?;
    refusal(refused, "too_many_conversations").await?;
    anyhow::ensure!((5..=10).contains(&created), "{created}");
    anyhow::ensure!(create(&stack, &bob).await?.status() == 201, "another user is not concerned");

    let keys = std::sync::atomic::AtomicUsize::new(0);
    let with_key = async || {
        let key = keys.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        anyhow::Ok(stack.chat(&ann, "x").header("idempotency-key", key).send().await?)
    };
    let (refused, _) = until_refused(with_key).await?;
    refusal(refused, "too_many_idempotency_keys").await?;
    stack.finished_chat(&ann, "a chat without a key").await?;

    let text = "x".repeat(60_000);
    stack.finished_chat(&ann, &text).await?;
    stack.finished_chat(&ann, &text).await?;
    refusal(stack.chat(&ann, "small").send().await?, "too_many_body_bytes").await?;
    stack.finished_chat(&bob, "another user is not concerned").await?;
    let chats = stack.settled().await?.tables.chats;
    let refused = keys.into_inner() - 1;
    anyhow::ensure!(chats.len() == refused + 4, "nothing that was refused is on the record: {}", chats.len());
    Ok(())
}
