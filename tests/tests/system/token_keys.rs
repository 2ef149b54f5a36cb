//! Keys change while the services run: a new key is accepted after a reload, and an old key until the removal of the key.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tests::stack::Stack;
use tokio::time::{Instant, sleep};

/// Waits until a read with this token, through the gateway and by the gateway itself, is answered so.
async fn until(stack: &Stack, token: &str, status: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let read = stack.request(Method::GET, "/api/auth/me").bearer_auth(token).send().await?.status().as_u16();
        // The gateway itself checks the token of a chat before the body, so 415 means an accepted token.
        let chat = stack.post("/api/chat").bearer_auth(token).send().await?.status().as_u16();
        let chat = if chat == 415 { 200 } else { chat };
        if (read, chat) == (status, status) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "read {read}, chat {chat}; expected {status}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn are_reloaded_without_a_restart() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    until(&stack, &ann.token, 200).await?;
    let (keys, next) = (stack.recorder.keys.clone(), stack.recorder.keys.join("next"));
    stack.recorder.run(&["keys", "create", "--dir", &next.display().to_string()]).await?;
    let set = |path: &std::path::Path| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(path.join("jwks.json"))?)?)
    };
    let (old, new) = (set(&keys)?, set(&next)?);

    // Rotation in three steps: both keys are known, the new key signs, and the old key is removed.
    let mut both = old.clone();
    both["keys"] = [&old, &new].iter().flat_map(|set| set["keys"].as_array().cloned().unwrap_or_default()).collect();
    std::fs::write(keys.join("jwks.json"), both.to_string())?;
    std::fs::copy(next.join("signing-key.pem"), keys.join("signing-key.pem"))?;
    let later = stack.recorder.token("ann", "1h").await?;
    until(&stack, &later, 200).await?;
    until(&stack, &ann.token, 200).await?;
    // An invalid key set changes nothing: the keys in use stay.
    std::fs::write(keys.join("jwks.json"), "{")?;
    sleep(Duration::from_secs(3)).await;
    until(&stack, &later, 200).await?;
    std::fs::write(keys.join("jwks.json"), new.to_string())?;
    until(&stack, &ann.token, 401).await?;
    until(&stack, &later, 200).await
}
