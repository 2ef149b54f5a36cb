//! Bad input: a clear error in the shape that OpenAI's clients read, nothing on the record, and the gateway goes on.

use serde_json::Value;
use tests::stack::Stack;

#[tokio::test]
async fn is_refused_and_changes_nothing() -> anyhow::Result<()> {
    let stack = Stack::with_gateway(&[("GATEWAY_MAX_BODY_BYTES", "10000")]).await?;
    let ann = stack.user("ann").await?;
    let large = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(20_000));
    let cases: [(&str, &str, u16, &str); 11] = [
        ("application/json", "{", 400, "expected a JSON object"),
        ("application/json", "[]", 400, "expected a JSON object"),
        ("application/json", r#"{"model":"m"}"#, 400, "messages: missing"),
        ("application/json", r#"{"model":"m","messages":[]}"#, 400, "at least one message"),
        ("application/json", r#"{"model":1,"messages":[{"role":"user","content":"x"}]}"#, 400, "model: expected"),
        ("application/json", r#"{"model":"m","messages":{}}"#, 400, "messages: expected a list"),
        (
            "application/json",
            r#"{"model":"m","model":"n","messages":[{"role":"user","content":"x"}]}"#,
            400,
            "model: expected one",
        ),
        (
            "application/json",
            r#"{"model":"m","Messages":[],"messages":[{"role":"user","content":"x"}]}"#,
            400,
            "\"Messages\"",
        ),
        (
            "application/json",
            "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\n\"}]}",
            400,
            "control character",
        ),
        ("application/json", &large, 413, "larger than 10000 bytes"),
        ("text/plain", r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#, 415, "application/json"),
    ];
    for path in ["/api/chat", "/v1/chat/completions"] {
        for (kind, body, status, message) in &cases {
            let request =
                stack.post(path).bearer_auth(&ann.token).header("content-type", *kind).body((*body).to_owned());
            let response = request.send().await?;
            assert_eq!(response.status(), *status, "{body:.80}");
            let error = &response.json::<Value>().await?["error"];
            assert!(error["message"].as_str().unwrap().contains(message), "{error}");
            assert!(error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some());
        }
    }
    let later = r#"{"model":"m","input":"x","background":"later"}"#;
    let later =
        stack.post("/v1/responses").bearer_auth(&ann.token).header("content-type", "application/json").body(later);
    let response = later.send().await?;
    assert_eq!(response.status(), 400);
    let error = &response.json::<Value>().await?["error"];
    assert_eq!(error["param"], "background");
    let wrong = stack.post("/v1/nothing").bearer_auth(&ann.token).send().await?;
    assert_eq!(wrong.status(), 404);
    let wrong = harness::http::client().get(stack.gateway.url("/api/chat")).bearer_auth(&ann.token).send().await?;
    assert_eq!(wrong.status(), 405);
    assert_eq!(stack.events().await?, 0);
    stack.finished_chat(&ann, "still serving").await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 1);
    Ok(())
}
