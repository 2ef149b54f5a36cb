//! Without a valid token a request gets 401, before any other effect and without a record.

use serde_json::Value;
use tests::stack::Stack;

#[tokio::test]
async fn without_a_valid_token_nothing_happens() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    stack.user("ann").await?;
    let expired = stack.recorder.token("ann", "-1h").await?;
    let good = stack.recorder.token("ann", "1h").await?;
    let forged = format!("{}x", &good[..good.len() - 1]);
    let cases = [None, Some("nonsense".to_owned()), Some(expired), Some(forged)];
    for token in cases {
        for path in ["/api/chat", "/v1/chat/completions", "/api/conversations"] {
            let request = stack.post(path).header("content-type", "application/json").body("not even JSON");
            let request = match &token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            let response = request.send().await?;
            assert_eq!(response.status(), 401, "{path} {token:?}");
            let body: Value = response.json().await?;
            assert_eq!(body["error"]["code"], "invalid_api_key");
            assert!(body["error"]["message"].is_string());
        }
    }
    assert_eq!(stack.events().await?, 0);
    assert!(stack.upstream.chats().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_cookie_equals_a_bearer_token_and_neither_reaches_the_upstream() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = r#"{"model":"scripted-1","messages":[{"role":"user","content":"hi"}]}"#;
    let request = stack.post("/api/chat").header("cookie", format!("a=b; stenograph_session={}", ann.token));
    let response = request.header("content-type", "application/json").body(body).send().await?;
    assert_eq!(response.status(), 200);
    assert!(!format!("{:?}", response.headers()).contains(stack.upstream.key()));
    response.bytes().await?;
    let chat = stack.upstream.chat(1).await;
    assert_eq!(chat.bearer(), Some(stack.upstream.key()));
    assert!(!format!("{:?}", chat.headers).contains(&ann.token));
    stack.settled().await?;
    Ok(())
}
