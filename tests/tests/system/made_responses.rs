//! Responses that a provider keeps: read, cancelled and deleted by the user for whom they were made, and by nobody else.

use std::time::{Duration, Instant};

use harness::upstream::Script;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::stack::{MODEL, Stack, User};

const MADE: &str = r#"{"id":"resp_1","object":"response","model":"m-1","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"kept"}]}],"usage":{"input_tokens":3,"output_tokens":1,"total_tokens":4}}"#;

async fn ask(stack: &Stack, user: &User, method: Method, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let response = stack.request(method, path).bearer_auth(&user.token).send().await?;
    Ok((response.status(), response.text().await?))
}

#[tokio::test]
async fn are_for_their_own_user_alone() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    stack.upstream.respond_next(Script::json(StatusCode::OK, MADE));
    let request = json!({"model": MODEL, "input": "keep this"});
    let made = stack.post("/v1/responses").bearer_auth(&ann.token).json(&request).send().await?;
    assert_eq!(made.text().await?, MADE);

    // At once, before the recorder may have the chat. The gateway waits for the recorder, but not for as long as a slow machine
    // may need.
    let cases = [
        (Method::GET, "/v1/responses/resp_1", MADE),
        (Method::GET, "/v1/responses/resp_1/input_items?limit=2&order=asc", r#"{"object":"list","data":[]}"#),
        (Method::GET, "/openai/v1/responses/resp_1?api-version=preview", MADE),
        (Method::GET, "/openai/responses/resp_1/input_items?api-version=2025-03-01&limit=2&order=asc", "{}"),
        (Method::POST, "/v1/responses/resp_1/cancel", MADE),
        (Method::DELETE, "/v1/responses/resp_1", r#"{"id":"resp_1","object":"response","deleted":true}"#),
    ];
    for (number, (method, path, answer)) in cases.iter().enumerate() {
        stack.upstream.respond_next(Script::json(StatusCode::OK, *answer));
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut got = ask(&stack, &ann, method.clone(), path).await?;
        while got.0 == StatusCode::NOT_FOUND && Instant::now() < deadline {
            got = ask(&stack, &ann, method.clone(), path).await?;
        }
        assert_eq!(got, (StatusCode::OK, (*answer).to_owned()), "{method} {path}");
        let asked = stack.upstream.chat(number + 2).await;
        let expected =
            path.split('?').next().unwrap_or_default().replace("/openai/v1/", "/v1/").replace("/openai/", "/v1/");
        assert_eq!((&asked.method, &asked.path), (method, &expected));
        let expected = path.contains("input_items").then_some("limit=2&order=asc");
        assert_eq!(asked.query.as_deref(), expected, "{path}: the version is not for the upstream");
        assert_eq!(asked.key(), Some(stack.upstream.key()), "the upstream gets the gateway's key");
    }
    let asked = stack.upstream.chats().len();

    // Others get the same answer as for a response that does not exist, and the upstream is not asked.
    for (method, path, _) in &cases {
        let nothing = path.replace("resp_1", "resp_2");
        let refused = ask(&stack, &bob, method.clone(), path).await?;
        assert_eq!(refused.0, StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(serde_json::from_str::<Value>(&refused.1)?["error"]["code"], "response_not_found");
        assert_eq!(ask(&stack, &bob, method.clone(), &nothing).await?, refused, "{method} {path}");
        assert_eq!(ask(&stack, &ann, method.clone(), &nothing).await?, refused, "{method} {path}");
        assert_eq!(stack.request(method.clone(), path).send().await?.status(), 401, "{method} {path}");
    }
    for path in ["/v1/responses/..%2Fmodels", "/v1/responses/a%00b", &format!("/v1/responses/{}", "x".repeat(600))] {
        assert_eq!(ask(&stack, &ann, Method::GET, path).await?.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(ask(&stack, &ann, Method::POST, "/v1/responses/resp_1").await?.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(stack.upstream.chats().len(), asked, "refused requests do not reach the upstream");

    // The provider's own errors pass as they came, and a key in another header will do.
    let gone = r#"{"error":{"message":"Response with id 'resp_1' not found.","type":"invalid_request_error","param":null,"code":null}}"#;
    stack.upstream.respond_next(Script::json(StatusCode::NOT_FOUND, gone));
    let request = stack.request(Method::GET, "/v1/responses/resp_1").header("api-key", &ann.token);
    let response = request.send().await?;
    assert_eq!((response.status(), response.text().await?), (StatusCode::NOT_FOUND, gone.to_owned()));
    // An API key reaches the responses of its owner, too, until it is revoked.
    let create = ["api-keys", "create", "--name", "k", "--user"];
    let (anns, bobs) = (
        stack.recorder.run(&[&create[..], &["ann"]].concat()).await?,
        stack.recorder.run(&[&create[..], &["bob"]].concat()).await?,
    );
    stack.settled().await?;
    let listed = stack.recorder.run(&["api-keys", "list", "--user", "ann"]).await?;
    // The gateway may learn of a key a moment after its issue.
    let with_key = async |key: &str| loop {
        let response = stack.request(Method::GET, "/v1/responses/resp_1").bearer_auth(key).send().await?;
        if response.status() != StatusCode::SERVICE_UNAVAILABLE {
            break anyhow::Ok((response.status(), response.text().await?));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stack.upstream.respond_next(Script::json(StatusCode::OK, MADE));
    assert_eq!(with_key(&anns).await?, (StatusCode::OK, MADE.to_owned()));
    assert_eq!(with_key(&bobs).await?.0, StatusCode::NOT_FOUND);
    stack.recorder.run(&["api-keys", "revoke", listed.split('\t').next().unwrap_or_default()]).await?;
    stack.settled().await?;
    let direct = stack.request(Method::GET, "/api/responses/resp_1").bearer_auth(&anns).send().await?;
    assert_eq!(
        direct.status(),
        StatusCode::UNAUTHORIZED,
        "the tables refuse a revoked key, whatever the gateway knows"
    );
    assert_eq!(stack.settled().await?.tables.chats.len(), 1, "only the response itself is on the record");
    Ok(())
}
