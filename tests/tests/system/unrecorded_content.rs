//! Answers with nothing but a picture or a sound: the client gets them, and the chat is completed, not a failed try.

use harness::upstream::Script;
use http::StatusCode;
use serde_json::{Value, json};
use shared::event::Event;
use tests::stack::Stack;

/// Bodies without a finish reason, each with the path that answers so.
fn answers() -> Vec<(&'static str, String)> {
    let images = r#"{"role":"assistant","content":"","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD"}}]}"#;
    let sound = r#"{"role":"assistant","content":null,"audio":{"id":"a","data":"QUJD"}}"#;
    vec![
        ("/v1/chat/completions", format!(r#"{{"id":"c","choices":[{{"index":0,"message":{images}}}]}}"#)),
        ("/v1/chat/completions", format!(r#"{{"id":"c","choices":[{{"index":0,"message":{sound}}}]}}"#)),
        ("/v1/chat/completions", format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{images}}}]}}\n\ndata: [DONE]\n\n")),
        ("/v1/responses", r#"{"id":"r","object":"response","output":[{"type":"message","content":[{"type":"output_image","image_url":"u"}]}]}"#.to_owned()),
        ("/v1/messages", r#"{"id":"m","type":"message","role":"assistant","content":[{"type":"image","source":{"type":"url","url":"u"}}]}"#.to_owned()),
        ("/v1beta/models/gemini-x:generateContent", r#"{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"QUJD"}}]}}]}"#.to_owned()),
    ]
}

#[tokio::test]
async fn answers_with_nothing_but_pictures_or_sounds_are_completed() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let messages = json!([{"role": "user", "content": "draw"}]);
    let request = json!({
        "model": "m", "messages": messages, "input": "draw", "max_tokens": 9, "contents": [{"parts": [{"text": "draw"}]}],
    });
    for (path, body) in answers() {
        let members: &[&str] = match path {
            "/v1/responses" => &["model", "input"],
            "/v1/messages" => &["model", "messages", "max_tokens"],
            "/v1/chat/completions" => &["model", "messages"],
            _ => &["contents"],
        };
        let request: Value = members.iter().map(|name| ((*name).to_owned(), request[*name].clone())).collect();
        let script = if body.starts_with("data:") {
            Script::stream([body.clone()])
        } else {
            Script::json(StatusCode::OK, body.clone())
        };
        stack.upstream.respond_next(script);
        let response = stack.post(path).bearer_auth(&ann.token).json(&request).send().await?;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.text().await?, body, "{path}");
    }
    let oracle = stack.settled().await?;
    let mut completed = 0;
    for event in &oracle.events {
        match event {
            Event::ChatFailed(event) => panic!("failed: {event:?}"),
            Event::MessageCompleted(event) => {
                completed += 1;
                assert!(event.notes.iter().any(|note| note == "content_not_recorded"), "{:?}", event.notes);
                assert!(event.attempts.iter().all(|attempt| attempt.error.is_none()), "{:?}", event.attempts);
            }
            _ => {}
        }
    }
    assert_eq!(completed, answers().len());
    Ok(())
}
