//! Google's clients: `/v1beta/models/{model}:{method}`, streamed and whole, with credentials in Google's places and errors in
//! Google's shape.

use harness::upstream::{Script, Step};
use http::{HeaderValue, StatusCode};
use recorder::projection::chat::Chat;
use serde_json::{Value, json};
use shared::event::{DialectName, Event, Operation};
use sqlx::Row as _;
use tests::stack::{Stack, header};

const FIRST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Grüß "}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4},"modelVersion":"gemini-x-001","responseId":"resp_1"}"#;
const LAST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Gott"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2,"thoughtsTokenCount":3,"totalTokenCount":9},"modelVersion":"gemini-x-001","responseId":"resp_1"}"#;

fn body() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}], "generationConfig": {"temperature": 0.5}})
}

fn stream() -> String {
    format!("data: {FIRST}\r\n\r\ndata: {LAST}\r\n\r\n")
}

#[tokio::test]
async fn streams_pass_and_are_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let mut script = Script::new(StatusCode::OK);
    script.headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    script.body = stream().into_bytes().chunks(11).map(|piece| Step::Send(piece.to_vec().into())).collect();
    stack.upstream.respond_next(script);
    let path = "/v1beta/models/gemini-x:streamGenerateContent?alt=sse";
    let response = stack.post(path).header("x-goog-api-key", &ann.token).json(&body()).send().await?;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await?, stream());

    let sent = stack.upstream.chat(1).await;
    assert_eq!(sent.path, "/v1/models/gemini-x:streamGenerateContent");
    assert_eq!(serde_json::from_slice::<Value>(&sent.body)?, body());
    assert_eq!(sent.headers["x-goog-api-key"], stack.upstream.key(), "the upstream gets the gateway's key");
    assert!(!sent.headers.contains_key("authorization") && !sent.headers.contains_key("x-api-key"));

    stack.settled().await?;
    let row = sqlx::query(
        "SELECT chats.dialect, chats.model, chats.upstream_model, chats.prompt_tokens, chats.completion_tokens,
            chats.reasoning_tokens,
            user_message.content AS question, assistant.content AS answer, assistant.finish_reason AS reason
        FROM chats
        JOIN messages user_message ON user_message.chat_id = chats.chat_id AND user_message.role = 'user'
        JOIN messages assistant ON assistant.chat_id = chats.chat_id AND assistant.role = 'assistant'",
    );
    let row = row.fetch_one(&stack.database().await?).await?;
    let text = |column: &str| row.get::<Option<String>, _>(column).unwrap_or_default();
    assert_eq!(text("dialect"), DialectName::GoogleGemini.as_str());
    assert_eq!((text("model"), text("upstream_model")), ("gemini-x".to_owned(), "gemini-x-001".to_owned()));
    assert_eq!((text("question"), text("answer")), ("hello".to_owned(), "Grüß Gott".to_owned()));
    assert_eq!(text("reason"), "STOP");
    let count = |column: &str| row.get::<Option<i64>, _>(column);
    assert_eq!(
        [count("prompt_tokens"), count("completion_tokens"), count("reasoning_tokens")],
        [Some(4), Some(5), Some(3)]
    );
    Ok(())
}

#[tokio::test]
async fn documents_lists_and_counts_pass() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let list = format!("[{FIRST}\n,\n{LAST}\n]");
    for (method, answer) in [("generateContent", LAST.to_owned()), ("streamGenerateContent", list)] {
        stack.upstream.respond_next(Script::json(StatusCode::OK, answer.clone()));
        let path = format!("/v1beta/models/gemini-x:{method}?key={}", ann.token);
        let response = stack.post(&path).json(&body()).send().await?;
        assert_eq!(response.text().await?, answer, "{method}");
    }
    assert_eq!(stack.upstream.chat(1).await.path, "/v1/models/gemini-x:generateContent");
    assert_eq!(stack.upstream.chat(2).await.path, "/v1/models/gemini-x:streamGenerateContent");
    let oracle = stack.settled().await?;
    let mut answers: Vec<_> = oracle.tables.messages.values().map(|message| message.content.as_str()).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["Gott", "Grüß Gott", "hello", "hello"]);

    let path = "/v1beta/models/gemini-x:countTokens";
    let counted = stack.post(path).header("x-goog-api-key", &ann.token).json(&body()).send().await?;
    assert_eq!(counted.text().await?, r#"{"totalTokens":7}"#);
    assert_eq!(stack.settled().await?.tables.chats.len(), 2, "a count of tokens is no chat");
    Ok(())
}

#[tokio::test]
async fn errors_have_the_shape_of_google() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let generate = "/v1beta/models/gemini-x:generateContent";
    let cases = [
        (generate, "nonsense", json!({"contents": [1]}), 401, "UNAUTHENTICATED"),
        (generate, ann.token.as_str(), json!({"contents": []}), 400, "INVALID_ARGUMENT"),
        (generate, &ann.token, json!({"contents": "text"}), 400, "INVALID_ARGUMENT"),
        (generate, &ann.token, json!([]), 400, "INVALID_ARGUMENT"),
        ("/v1beta/models/gemini-x:dance", &ann.token, body(), 404, "NOT_FOUND"),
        ("/v1beta/models/gemini-x", &ann.token, body(), 404, "NOT_FOUND"),
        ("/v1beta/nothing", &ann.token, body(), 404, "NOT_FOUND"),
    ];
    for (path, token, body, status, word) in cases {
        let response = stack.post(path).header("x-goog-api-key", token).json(&body).send().await?;
        assert_eq!(response.status(), status, "{path} {body}");
        let error: Value = response.json().await?;
        assert_eq!(
            (&error["error"]["code"], &error["error"]["status"]),
            (&json!(status), &json!(word)),
            "{path} {error}"
        );
        assert!(error["error"]["message"].is_string(), "{error}");
    }
    // The provider's own error passes as it came, and is recorded.
    let busy = r#"{"error":{"code":400,"message":"too long","status":"INVALID_ARGUMENT"}}"#;
    stack.upstream.respond_next(Script::json(StatusCode::BAD_REQUEST, busy));
    let response = stack.post(generate).header("x-goog-api-key", &ann.token).json(&body()).send().await?;
    assert!(header(&response, "x-chat-id").is_ok());
    assert_eq!((response.status(), response.text().await?), (StatusCode::BAD_REQUEST, busy.to_owned()));
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.values().map(Chat::status).collect::<Vec<_>>(), ["failed"]);
    Ok(())
}

#[tokio::test]
async fn calls_for_vectors_pass_and_are_recorded() -> anyhow::Result<()> {
    let one = json!({"content": {"parts": [{"text": "first"}]}, "taskType": "CLUSTERING"});
    let batch = json!({"requests": [one, one]});
    let usage = json!({"promptTokenCount": 6, "totalTokenCount": 6});
    let cases = [
        ("embedContent", &one, json!({"embedding": {"values": [0.25, 0.5]}, "usageMetadata": usage}), (1, Some(6))),
        ("batchEmbedContents", &batch, json!({"embeddings": [{"values": [0.25]}, {"values": [0.5]}]}), (2, None)),
    ];
    for (method, body, answer, (items, tokens)) in cases {
        let stack = Stack::start().await?;
        let ann = stack.user("ann").await?;
        stack.upstream.respond_next(Script::json(StatusCode::OK, answer.to_string()));
        let path = format!("/v1beta/models/gemini-embedder:{method}");
        let response = stack.post(&path).header("x-goog-api-key", &ann.token).json(body).send().await?;
        assert_eq!(response.text().await?, answer.to_string(), "{method}");
        let sent = stack.upstream.chat(1).await;
        assert_eq!(sent.path, format!("/v1/models/gemini-embedder:{method}"));
        assert_eq!(serde_json::from_slice::<Value>(&sent.body)?, *body);
        assert_eq!(sent.headers["x-goog-api-key"], stack.upstream.key());
        let events = stack.settled().await?.events;
        let [Event::ChatStarted(started), Event::MessageCompleted(completed)] = &events[..] else {
            anyhow::bail!("{method}: {events:?}")
        };
        assert_eq!((started.dialect, started.operation), (DialectName::GoogleGemini, Operation::Embeddings));
        assert_eq!(started.model, "gemini-embedder");
        let media = completed.media.unwrap();
        assert_eq!([media.input_items, media.output_items], [Some(items); 2], "{method}");
        assert_eq!(completed.usage.prompt_tokens, tokens, "{method}");
        assert!(!format!("{events:?}").contains("0.25"), "vectors are not recorded");
        // A request without content is refused in Google's shape.
        let wrong = stack.post(&path).header("x-goog-api-key", &ann.token).json(&json!({})).send().await?;
        assert_eq!(wrong.status(), 400);
        assert_eq!(wrong.json::<Value>().await?["error"]["status"], "INVALID_ARGUMENT");
    }
    Ok(())
}

#[tokio::test]
async fn the_stable_version_of_the_paths_serves_the_same() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let post = async |target: &str, body: &Value| -> anyhow::Result<_> {
        let request = stack.post(&format!("/v1/models/{target}")).header("x-goog-api-key", &ann.token);
        let response = request.json(body).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    };
    stack.upstream.respond_next(Script::json(StatusCode::OK, LAST));
    assert_eq!(post("gemini-x:generateContent", &body()).await?, (200, LAST.to_owned()));
    let mut events = Script::json(StatusCode::OK, stream());
    events.headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    stack.upstream.respond_next(events);
    assert_eq!(post("gemini-x:streamGenerateContent?alt=sse", &body()).await?, (200, stream()));
    assert_eq!(post("gemini-x:countTokens", &body()).await?, (200, r#"{"totalTokens":7}"#.to_owned()));
    let vectors = json!({"embedding": {"values": [0.5]}}).to_string();
    stack.upstream.respond_next(Script::json(StatusCode::OK, vectors.clone()));
    let content = json!({"content": {"parts": [{"text": "x"}]}});
    assert_eq!(post("gemini-x:embedContent", &content).await?, (200, vectors));
    for (target, status) in [("gemini-x:generateContent", 400), ("gemini-x:dance", 404), ("gemini-x", 404)] {
        let (found, error) = post(target, &json!([])).await?;
        assert_eq!(found, status, "{target}");
        assert_eq!(serde_json::from_str::<Value>(&error)?["error"]["code"], status, "{target}: {error}");
    }
    let model = stack.request(http::Method::GET, &format!("/v1/models/{}", tests::stack::MODEL));
    let model: Value = model.bearer_auth(&ann.token).send().await?.error_for_status()?.json().await?;
    assert_eq!(model["object"], "model");
    assert_eq!(stack.settled().await?.tables.chats.len(), 3);
    Ok(())
}
