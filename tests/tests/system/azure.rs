//! The paths of Azure's clients: every endpoint of a deployment, and `/openai/v1` in place of `/v1`.

use harness::upstream::{Gate, Script, Step};
use http::StatusCode;
use serde_json::{Value, json};
use shared::event::{Event, Operation};
use tests::stack::{MODEL, Stack, User};

const DEPLOYMENT: &str = "my-deployment";
const BOUNDARY: &str = "----form-boundary-7";

fn part(head: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

fn model(name: &str) -> Vec<u8> {
    part("name=\"model\"", name.as_bytes())
}

async fn send(
    stack: &Stack,
    user: &User,
    path: &str,
    kind: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, String)> {
    let request = stack.post(path).header("api-key", &user.token).header("content-type", kind).body(body);
    let response = request.send().await?;
    Ok((response.status(), response.text().await?))
}

#[tokio::test]
async fn every_endpoint_of_a_deployment_is_a_call_with_the_deployment_as_its_model() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let cases = [
        ("/completions", json!({"prompt": "x"}), Operation::TextCompletion),
        ("/embeddings", json!({"model": "other", "input": ["x", "y"]}), Operation::Embeddings),
        ("/moderations", json!({"model": null, "input": "x"}), Operation::Moderation),
        ("/rerank", json!({"query": "q", "documents": ["x"]}), Operation::Rerank),
        ("/images/generations", json!({"prompt": "x"}), Operation::ImageGeneration),
        ("/audio/speech", json!({"model": 7, "input": "x", "voice": "v"}), Operation::Speech),
    ];
    for (number, (endpoint, body, operation)) in cases.iter().enumerate() {
        let answer = json!({"data": [{}], "choices": [{"text": "t"}]}).to_string();
        stack.upstream.respond_next(Script::json(StatusCode::OK, answer.clone()));
        let path = format!("/openai/deployments/{DEPLOYMENT}{endpoint}?api-version=2025-03-01-preview");
        let sent = send(&stack, &ann, &path, "application/json", body.to_string().into()).await?;
        assert_eq!(sent, (StatusCode::OK, answer), "{endpoint}");
        let asked = stack.upstream.chat(number + 1).await;
        assert_eq!((asked.path.as_str(), asked.query.as_deref()), (format!("/v1{endpoint}").as_str(), None));
        let mut expected = body.clone();
        expected["model"] = DEPLOYMENT.into();
        assert_eq!(serde_json::from_slice::<Value>(&asked.body)?, expected, "{endpoint}");
        assert!(!asked.headers.contains_key("api-key"), "{endpoint}");
        let events = stack.settled().await?.events;
        let started = events.iter().find_map(|event| match event {
            Event::ChatStarted(started) if started.operation == *operation => Some(started),
            _ => None,
        });
        let started = started.unwrap();
        assert_eq!(started.model, DEPLOYMENT, "{endpoint}");
        assert_eq!(serde_json::from_str::<Value>(started.parameters.get())?["model"], DEPLOYMENT, "{endpoint}");
    }
    for body in ["", "[]", "{\"input\":\"x", "text", r#"{"input":"x","Model":"y"}"#] {
        let path = format!("/openai/deployments/{DEPLOYMENT}/embeddings");
        let (status, error) = send(&stack, &ann, &path, "application/json", body.into()).await?;
        assert_eq!((status, error.contains("invalid_request_error")), (StatusCode::BAD_REQUEST, true), "{body}");
    }
    assert_eq!(stack.upstream.chats().len(), cases.len());
    Ok(())
}

#[tokio::test]
async fn a_form_gets_the_deployment_as_its_model() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let small = part("name=\"file\"; filename=\"a.mp3\"", b"sound");
    let large = part("name=\"file\"; filename=\"a.mp3\"", &[7; 600_000]);
    let deployed = model(DEPLOYMENT);
    let cases = [
        ("transcriptions", vec![small.clone()], vec![deployed.clone(), small.clone()]),
        ("transcriptions", vec![small.clone(), model("whisper-1")], vec![small.clone(), deployed.clone()]),
        ("translations", vec![large.clone()], vec![deployed.clone(), large.clone()]),
        ("translations", vec![model("whisper-1"), large.clone()], vec![deployed.clone(), large.clone()]),
    ];
    let path = |kind: &str| format!("/openai/deployments/{DEPLOYMENT}/audio/{kind}?api-version=2024-10-21");
    for (number, (endpoint, sent, expected)) in cases.iter().enumerate() {
        stack.upstream.respond_next(Script::json(StatusCode::OK, r#"{"text":"Good morning."}"#));
        let (status, answer) = send(&stack, &ann, &path(endpoint), &kind, form(sent)).await?;
        assert_eq!((status, answer.as_str()), (StatusCode::OK, r#"{"text":"Good morning."}"#), "case {number}");
        let asked = stack.upstream.chat(number + 1).await;
        assert_eq!(asked.path, format!("/v1/audio/{endpoint}"));
        assert!(asked.body[..] == form(expected)[..], "case {number}: the upstream got another form");
    }
    let later = form(&[large, model("other")]);
    let (status, error) = send(&stack, &ann, &path("transcriptions"), &kind, later).await?;
    assert_eq!((status, error.contains("bad_form")), (StatusCode::BAD_REQUEST, true), "a model behind a large file");
    let injected = format!("/openai/deployments/a%0D%0A--{BOUNDARY}/audio/transcriptions");
    let (status, error) = send(&stack, &ann, &injected, &kind, form(&[small])).await?;
    assert_eq!((status, error.contains("line breaks")), (StatusCode::BAD_REQUEST, true), "{error}");
    let oracle = stack.settled().await?;
    assert!(oracle.tables.chats.values().all(|chat| chat.model == DEPLOYMENT));
    assert_eq!(oracle.tables.chats.len(), cases.len() + 1);
    Ok(())
}

#[tokio::test]
async fn paths_below_openai_v1_are_those_below_v1() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let compaction = json!({"id": "resp_1", "object": "response.compaction", "output": []}).to_string();
    let vectors = json!({"data": [{"embedding": [0.5]}]}).to_string();
    let cases = [
        ("/openai/v1/responses/compact", json!({"model": MODEL, "input": []}), &compaction),
        ("/openai/responses/compact?api-version=preview", json!({"model": MODEL, "input": []}), &compaction),
        ("/openai/v1/embeddings", json!({"model": MODEL, "input": "x"}), &vectors),
    ];
    for (path, body, answer) in cases {
        stack.upstream.respond_next(Script::json(StatusCode::OK, answer.clone()));
        let (status, found) = send(&stack, &ann, path, "application/json", body.to_string().into()).await?;
        assert_eq!((status, &found), (StatusCode::OK, answer), "{path}");
    }
    for path in ["/openai/v1/responses/input_tokens", "/openai/responses/input_tokens?api-version=preview"] {
        let body = json!({"model": MODEL, "input": "x"}).to_string();
        stack.upstream.respond_next(Script::json(StatusCode::OK, r#"{"input_tokens":1}"#));
        assert_eq!(send(&stack, &ann, path, "application/json", body.into()).await?.0, StatusCode::OK, "{path}");
    }
    for path in ["/openai/v1/files", "/openai/files?api-version=2024-10-21", "/openai/batches/b1/cancel"] {
        let (status, error) = send(&stack, &ann, path, "application/json", b"{}".to_vec()).await?;
        assert_eq!((status, error.contains("shared_endpoint")), (StatusCode::FORBIDDEN, true), "{path}: {error}");
    }
    assert_eq!(stack.settled().await?.tables.chats.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_body_whose_model_is_set_is_charged_once_while_it_is_held() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let text = "x".repeat(1 << 20);
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let json_kind = "application/json".to_owned();
    let cases = [
        (
            "embeddings",
            &json_kind,
            json!({"input": text}).to_string().into_bytes(),
            r#""model":"my-deployment","#.len(),
        ),
        (
            "chat/completions",
            &json_kind,
            json!({"messages": [{"role": "user", "content": text}]}).to_string().into_bytes(),
            r#""model":"my-deployment","#.len(),
        ),
        (
            "audio/transcriptions",
            &kind,
            form(&[part("name=\"file\"; filename=\"a\"", &[7; 1000])]),
            model(DEPLOYMENT).len(),
        ),
    ];
    for (number, (endpoint, kind, body, growth)) in cases.into_iter().enumerate() {
        let gate = Gate::new();
        stack.upstream.respond_next(Script::json(StatusCode::OK, "{}").before(Step::Wait(gate.clone())));
        let expected = body.len() + growth;
        let path = format!("/openai/deployments/{DEPLOYMENT}/{endpoint}");
        let sending = send(&stack, &ann, &path, kind, body);
        let watching = async {
            assert_eq!(stack.upstream.chat(number + 1).await.body.len(), expected, "{endpoint}");
            let charged = stack.gateway.metric("stenograph_gateway_body_bytes").await?;
            gate.open();
            anyhow::Ok(charged)
        };
        let (sent, charged) = tokio::join!(sending, watching);
        sent?;
        assert_eq!(charged? as usize, expected, "{endpoint}");
    }
    stack.settled().await?;
    assert_eq!(stack.gateway.metric("stenograph_gateway_body_bytes").await? as usize, 0);
    Ok(())
}
