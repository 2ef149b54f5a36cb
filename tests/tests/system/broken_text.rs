//! Requests with text that is not valid Unicode: forwarded as sent, and recorded with U+FFFD and a note, in all dialects.

use harness::upstream::Script;
use http::StatusCode;
use tests::stack::{MODEL, Stack};

/// Broken text as it stands in a JSON string, and the text that is recorded.
const BROKEN: [(&[u8], &str); 4] = [
    (br"cut \ud83d", "cut \u{fffd}"),
    (br"\ude00 is the second half", "\u{fffd} is the second half"),
    (b"bytes \xf0\x9f and \xff", "bytes \u{fffd} and \u{fffd}"),
    (br"escape \x41", "escape \u{fffd}x41"),
];

/// Requests of each dialect with the text in each place that is recorded, before and after the text.
const PLACES: [(&str, &str, &str); 10] = [
    ("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user","content":""#, r#""}]}"#),
    (
        "/v1/chat/completions",
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":""#,
        r#""}]}]}"#,
    ),
    ("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"tool","tool_call_id":"c","content":""#, r#""}]}"#),
    ("/v1/responses", r#"{"model":"m","input":""#, r#""}"#),
    ("/v1/responses", r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":""#, r#""}]}]}"#),
    ("/v1/responses", r#"{"model":"m","input":[{"type":"function_call_output","call_id":"c","output":""#, r#""}]}"#),
    ("/v1/messages", r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":""#, r#""}]}"#),
    (
        "/v1/messages",
        r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":[{"type":"text","text":""#,
        r#""}]}]}"#,
    ),
    ("/api/chat", r#"{"model":"m","stream":false,"messages":[{"role":"user","content":""#, r#""}]}"#),
    ("/api/chat", r#"{"model":"m","messages":[{"role":"user","parts":[{"type":"text","text":""#, r#""}]}]}"#),
];

fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|window| window == text)
}

#[tokio::test]
async fn is_forwarded_as_sent_and_recorded_with_a_note() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#;
    stack.upstream.respond_with(move |_| Script::json(StatusCode::BAD_REQUEST, refusal));
    let mut expected = Vec::new();
    for (path, before, after) in PLACES {
        for (broken, recorded) in BROKEN {
            let body = [before.replace(r#""m""#, &format!("{MODEL:?}")).as_bytes(), broken, after.as_bytes()].concat();
            let name = format!("{path} {}", String::from_utf8_lossy(&body));
            let request = stack.post(path).bearer_auth(&ann.token).header("content-type", "application/json");
            let answered = request.body(body.clone()).send().await?;
            let status = answered.status();
            assert_eq!(answered.text().await?, refusal, "{name}: {status}");
            expected.push(recorded);
            let received = stack.upstream.chat(expected.len()).await;
            assert!(contains(&received.body, broken), "{name}: {}", String::from_utf8_lossy(&received.body));
            assert!(path == "/api/chat" || received.body == body, "{name}");
        }
    }
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), expected.len());
    for chat in oracle.tables.chats.values() {
        let notes = chat.ending.as_ref().expect("the chat has ended").notes.as_str();
        assert!(notes.contains("text_mended"), "{notes}");
    }
    let mut recorded: Vec<&str> = oracle.tables.messages.values().map(|message| message.content.as_str()).collect();
    recorded.sort_unstable();
    expected.sort_unstable();
    assert_eq!(recorded, expected);
    Ok(())
}

#[tokio::test]
async fn is_forwarded_as_sent_even_if_the_gateway_changes_the_body() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    for (broken, _) in BROKEN {
        let before =
            format!(r#"{{"model":"{MODEL}","stream":true,"messages":[{{"role":"user","content":"hi"}}],"user":""#);
        let body = [before.as_bytes(), broken, br#""}"#].concat();
        let sent = stack.upstream.chats().len();
        let request = stack.post("/v1/chat/completions").bearer_auth(&ann.token);
        request.header("content-type", "application/json").body(body).send().await?.bytes().await?;
        let received = stack.upstream.chat(sent + 1).await;
        let expected = [before.as_bytes(), broken, br#"","stream_options":{"include_usage":true}}"#].concat();
        assert_eq!(received.body, expected, "{}", String::from_utf8_lossy(&received.body));
    }
    Ok(())
}
