//! Endpoints that take forms: files stream through, and the record has the texts, sizes and durations, but no picture and
//! no sound.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use harness::upstream::{Script, Step};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use reqwest::Body;
use serde_json::{Value, json};
use shared::event::{Event, Operation};
use tests::stack::{MODEL, Stack, User};

const BOUNDARY: &str = "----form-boundary-7";

fn text(name: &str, value: &str) -> Vec<u8> {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

fn file(name: &str, filename: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\nContent-Type: audio/mpeg\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

/// Sends a form in pieces of 64 KiB, without an announced length.
async fn send(stack: &Stack, user: &User, path: &str, form: &[u8]) -> anyhow::Result<(StatusCode, Bytes)> {
    let pieces: Vec<_> = form.chunks(64 << 10).map(|piece| anyhow::Ok(Bytes::copy_from_slice(piece))).collect();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = stack.post(path).bearer_auth(&user.token).header("content-type", kind);
    let response = request.body(Body::wrap_stream(stream::iter(pieces))).send().await?;
    Ok((response.status(), response.bytes().await?))
}

#[tokio::test]
async fn pass_untouched_whatever_the_order_of_their_parts() -> anyhow::Result<()> {
    let small = b"sound\r\n--\r\n".repeat(10);
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let transcript = r#"{"text":"Good morning.","usage":{"type":"duration","seconds":3}}"#;
    for (name, sound) in [("small", small), ("large", large)] {
        let model_first = form(&[text("model", MODEL), text("language", "en"), file("file", "a.mp3", &sound)]);
        let model_last = form(&[file("file", "a.mp3", &sound), text("language", "en"), text("model", MODEL)]);
        for (order, body) in [("model first", model_first), ("model last", model_last)] {
            let stack = Stack::start().await?;
            let ann = stack.user("ann").await?;
            stack.upstream.respond_next(Script::json(StatusCode::OK, transcript));
            let answer = send(&stack, &ann, "/v1/audio/transcriptions", &body).await?;
            assert_eq!(answer, (StatusCode::OK, Bytes::from(transcript)), "{name}, {order}");
            let asked = stack.upstream.chat(1).await;
            assert!(asked.body[..] == body[..], "{name}, {order}: the upstream got other bytes");
            let kind = asked.headers[CONTENT_TYPE].to_str()?.to_owned();
            assert_eq!(kind, format!("multipart/form-data; boundary={BOUNDARY}"), "{name}, {order}");
            let events = stack.settled().await?.events;
            let Some(Event::ChatStarted(started)) = events.iter().find(|event| matches!(event, Event::ChatStarted(_)))
            else {
                panic!("{name}, {order}: no start")
            };
            assert_eq!(
                (started.operation, started.model.as_str()),
                (Operation::Transcription, MODEL),
                "{name}, {order}"
            );
            let parameters: Value = serde_json::from_str(started.parameters.get())?;
            let expected = json!({"filename": "a.mp3", "content_type": "audio/mpeg"});
            assert_eq!((&parameters["file"], &parameters["language"]), (&expected, &json!("en")), "{name}, {order}");
            let completed = events.iter().find_map(|event| match event {
                Event::MessageCompleted(completed) => Some(completed),
                _ => None,
            });
            let completed = completed.unwrap();
            assert_eq!(completed.message.as_ref().unwrap().text, "Good morning.", "{name}, {order}");
            let media = completed.media.unwrap();
            assert_eq!(
                (media.input_bytes, media.input_seconds),
                (Some(body.len() as u64), Some(3.0)),
                "{name}, {order}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn answer_with_events_text_and_pictures() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = form(&[text("model", MODEL), text("stream", "true"), file("file", "a.mp3", b"sound")]);
    let events = [
        "data: {\"type\":\"transcript.text.delta\",\"delta\":\"Good \"}\n\n",
        "data: {\"type\":\"transcript.text.delta\",\"delta\":\"day.\"}\n\n",
        "data: {\"type\":\"transcript.text.done\",\"text\":\"Good day.\",\"usage\":{\"input_tokens\":9,\"output_tokens\":3,\"total_tokens\":12}}\n\n",
    ];
    stack.upstream.respond_next(Script::stream(events));
    assert_eq!(send(&stack, &ann, "/v1/audio/transcriptions", &body).await?, (StatusCode::OK, events.concat().into()));
    let plain = Script {
        body: vec![Step::Send("Good evening.\n".into())],
        ..Script::new(StatusCode::OK).header(CONTENT_TYPE, "text/plain; charset=utf-8")
    };
    stack.upstream.respond_next(plain);
    assert_eq!(send(&stack, &ann, "/v1/audio/translations", &body).await?.1, "Good evening.\n");
    let picture = json!({"data": [{"b64_json": "iVBORw0KGgo".repeat(50_000)}]}).to_string();
    stack.upstream.respond_next(Script::json(StatusCode::OK, picture.clone()));
    let edit = form(&[file("image[]", "a.png", b"PNG"), file("image[]", "b.png", b"PNG"), text("prompt", "bluer")]);
    assert_eq!(send(&stack, &ann, "/v1/images/edits", &edit).await?.1, picture);
    let ended = stack.settled().await?.events;
    let mut ended: Vec<_> = ended
        .iter()
        .filter_map(|event| match event {
            Event::MessageCompleted(completed) => Some(completed),
            _ => None,
        })
        .collect();
    ended.sort_by_key(|completed| completed.started_at);
    let texts: Vec<_> = ended.iter().map(|end| end.message.as_ref().map(|message| message.text.as_str())).collect();
    assert_eq!(texts, [Some("Good day."), Some("Good evening.\n"), None]);
    assert_eq!(ended[0].usage.prompt_tokens, Some(9));
    let media = ended[2].media.unwrap();
    assert_eq!((media.input_items, media.output_items, ended[2].model.as_str()), (Some(2), Some(1), "dall-e-2"));
    Ok(())
}

#[tokio::test]
async fn that_break_off_are_recorded_as_left_by_the_client() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let start = [text("model", MODEL), file("file", "a.mp3", &[7; 600_000])].concat();
    let pieces = stream::unfold(Some(start), |start| async move {
        let start = start?;
        Some((anyhow::Ok(Bytes::from(start)), None))
    });
    let broken = stream::once(async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        anyhow::Result::<Bytes>::Err(anyhow::anyhow!("broken on purpose"))
    });
    let body = Body::wrap_stream(futures_util::StreamExt::chain(pieces, broken));
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = stack.post("/v1/audio/transcriptions").bearer_auth(&ann.token).header("content-type", kind);
    assert!(request.body(body).send().await.is_err());
    let events = loop {
        let events = stack.settled().await?.events;
        if events.len() == 2 {
            break events;
        }
    };
    let stage = events.iter().find_map(|event| match event {
        Event::ChatFailed(failed) => Some(failed.stage.label()),
        _ => None,
    });
    assert_eq!(stage, Some("client_gone"));
    Ok(())
}

#[tokio::test]
async fn that_name_another_model_behind_a_large_file_never_reach_the_upstream_whole() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = form(&[text("model", MODEL), file("file", "a.mp3", &[7; 600_000]), text("model", "other")]);
    let (status, answer) = send(&stack, &ann, "/v1/audio/transcriptions", &body).await?;
    assert_eq!(status, 400, "{answer:?}");
    assert_eq!(serde_json::from_slice::<Value>(&answer)?["error"]["code"], "bad_form");
    assert_eq!(stack.upstream.chats().len(), 0);
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 1, "the call that was begun is on the record");
    Ok(())
}
