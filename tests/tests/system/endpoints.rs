//! Endpoints that are no chats: the bytes pass in both directions, and each call is on the record with its operation,
//! model, usage, counts and sizes; vectors, pictures and sounds are not.

use anyhow::Context as _;
use std::time::Duration;

use harness::upstream::{ReceivedRequest, Script, Step};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use shared::event::{ChatStarted, Event, MessageCompleted, Operation};
use shared::usage::UsageSource;
use tests::stack::{MODEL, Stack, User};

/// A request, the answer of the upstream, and the record that is expected.
struct Case {
    path: &'static str,
    upstream_path: &'static str,
    request: Value,
    answer: Script,
    operation: Operation,
    input: Value,
    text: Option<&'static str>,
    /// Prompt tokens, input items and output items.
    counts: [Option<u64>; 3],
}

async fn post(stack: &Stack, user: &User, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let response = stack.post(path).bearer_auth(&user.token).json(body).send().await?;
    Ok((response.status(), response.bytes().await?.to_vec()))
}

/// The start and the end of the only call.
async fn recorded(stack: &Stack) -> anyhow::Result<(Box<ChatStarted>, Box<MessageCompleted>)> {
    let events = stack.settled().await?.events;
    let started = events.iter().find_map(|event| match event {
        Event::ChatStarted(started) => Some(started.clone()),
        _ => None,
    });
    let completed = events.iter().find_map(|event| match event {
        Event::MessageCompleted(completed) => Some(completed.clone()),
        _ => None,
    });
    anyhow::ensure!(events.len() == 2, "expected a start and an end: {events:?}");
    Ok((started.context("no start")?, completed.context("no end")?))
}

fn sent_bytes(script: &Script) -> Vec<u8> {
    let pieces = script.body.iter().filter_map(|step| match step {
        Step::Send(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    pieces.flatten().collect()
}

fn cases() -> Vec<Case> {
    let json_answer = |body: Value| Script::json(StatusCode::OK, body.to_string());
    let vector: Vec<f64> = (0..3000).map(|n| f64::from(n) / 7.0).collect();
    vec![
        Case {
            path: "/v1/embeddings",
            upstream_path: "/v1/embeddings",
            request: json!({"model": MODEL, "input": ["first text", "second text"], "encoding_format": "float"}),
            answer: json_answer(json!({"object": "list", "data": [
                {"object": "embedding", "index": 0, "embedding": vector},
                {"object": "embedding", "index": 1, "embedding": vector},
            ], "model": "embedder-1", "usage": {"prompt_tokens": 8, "total_tokens": 8}})),
            operation: Operation::Embeddings,
            input: json!(["first text", "second text"]),
            text: None,
            counts: [Some(8), Some(2), Some(2)],
        },
        Case {
            path: "/v1/moderations",
            upstream_path: "/v1/moderations",
            request: json!({"model": MODEL, "input": "is this harmless?"}),
            answer: json_answer(json!({"id": "modr-1", "model": "moderator-1", "results": [{"flagged": false}]})),
            operation: Operation::Moderation,
            input: json!("is this harmless?"),
            text: None,
            counts: [None, Some(1), Some(1)],
        },
        Case {
            path: "/v2/rerank",
            upstream_path: "/v1/rerank",
            request: json!({"model": MODEL, "query": "q", "documents": ["a", "b", "c"], "top_n": 2}),
            answer: json_answer(
                json!({"results": [{"index": 2, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}],
                "usage": {"total_tokens": 31}}),
            ),
            operation: Operation::Rerank,
            input: json!(["a", "b", "c"]),
            text: None,
            counts: [Some(31), Some(3), Some(2)],
        },
        Case {
            path: "/v1/responses/compact",
            upstream_path: "/v1/responses/compact",
            request: json!({"model": MODEL, "input": [{"role": "user", "content": "long ago"}]}),
            answer: json_answer(
                json!({"id": "resp_1", "object": "response.compaction", "output": [{"type": "compaction",
                "encrypted_content": "AAAA"}], "usage": {"input_tokens": 40, "output_tokens": 9, "total_tokens": 49}}),
            ),
            operation: Operation::ResponseCompaction,
            input: json!([{"role": "user", "content": "long ago"}]),
            text: None,
            counts: [Some(40), Some(1), Some(1)],
        },
        Case {
            path: "/v1/completions",
            upstream_path: "/v1/completions",
            request: json!({"model": MODEL, "prompt": "Once upon", "max_tokens": 5}),
            answer: json_answer(
                json!({"id": "cmpl-1", "object": "text_completion", "model": "completer-1", "choices": [
                {"index": 0, "text": " a time", "finish_reason": "length"}],
                "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}}),
            ),
            operation: Operation::TextCompletion,
            input: json!("Once upon"),
            text: Some(" a time"),
            counts: [Some(2), Some(1), Some(1)],
        },
        Case {
            path: "/v1/completions",
            upstream_path: "/v1/completions",
            request: json!({"model": MODEL, "prompt": "Once upon", "stream": true}),
            answer: Script::stream([
                "data: {\"id\":\"cmpl-1\",\"model\":\"completer-1\",\"choices\":[{\"index\":0,\"text\":\" a\"}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"text\":\" time\",\"finish_reason\":\"stop\"}]}\n\n",
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":2,\"total_tokens\":4}}\n\n",
                "data: [DONE]\n\n",
            ]),
            operation: Operation::TextCompletion,
            input: json!("Once upon"),
            text: Some(" a time"),
            counts: [Some(2), Some(1), None],
        },
        Case {
            path: "/v1/images/generations",
            upstream_path: "/v1/images/generations",
            request: json!({"model": MODEL, "prompt": "a red square", "n": 2}),
            answer: json_answer(json!({"created": 1, "data": [{"b64_json": "iVBORw0KGgo".repeat(20_000)},
                {"b64_json": "iVBORw0KGgo".repeat(20_000)}],
                "usage": {"input_tokens": 5, "output_tokens": 272, "total_tokens": 277}})),
            operation: Operation::ImageGeneration,
            input: json!("a red square"),
            text: None,
            counts: [Some(5), Some(1), Some(2)],
        },
        Case {
            path: "/v1/audio/speech",
            upstream_path: "/v1/audio/speech",
            request: json!({"model": MODEL, "input": "Good morning.", "voice": "alloy"}),
            answer: Script {
                body: (0..50).map(|_| Step::Send(vec![0xff_u8; 4096].into())).collect(),
                ..Script::new(StatusCode::OK).header(CONTENT_TYPE, "audio/mpeg")
            },
            operation: Operation::Speech,
            input: json!("Good morning."),
            text: None,
            counts: [None, Some(1), None],
        },
        Case {
            path: "/v1/audio/speech",
            upstream_path: "/v1/audio/speech",
            request: json!({"model": MODEL, "input": "Good morning.", "voice": "alloy", "stream_format": "sse"}),
            answer: Script::stream([
                "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AAAA\"}\n\n",
                "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":4,\"output_tokens\":20,\"total_tokens\":24}}\n\n",
            ]),
            operation: Operation::Speech,
            input: json!("Good morning."),
            text: None,
            counts: [Some(4), Some(1), None],
        },
    ]
}

#[tokio::test]
async fn pass_untouched_and_are_recorded_with_their_operation() -> anyhow::Result<()> {
    for case in cases() {
        let stack = Stack::start().await?;
        let ann = stack.user("ann").await?;
        let expected = sent_bytes(&case.answer);
        stack.upstream.respond_next(case.answer.clone());
        let (status, body) = post(&stack, &ann, case.path, &case.request).await?;
        let name = format!("{} {}", case.path, case.request);
        assert!(status == 200 && body == expected, "{name}: {status}");
        let asked = stack.upstream.chat(1).await;
        assert_eq!(
            (asked.path.as_str(), &asked.body[..]),
            (case.upstream_path, case.request.to_string().as_bytes()),
            "{name}"
        );
        let (started, completed) = recorded(&stack).await?;
        assert_eq!((started.operation, completed.operation), (case.operation, case.operation), "{name}");
        assert_eq!((started.conversation_id, completed.conversation_id), (None, None), "{name}");
        assert_eq!(started.model, MODEL, "{name}");
        let input: Value = serde_json::from_str(started.messages.as_ref().unwrap().get())?;
        assert_eq!(input, case.input, "{name}");
        assert_eq!(completed.message.as_ref().map(|message| message.text.as_str()), case.text, "{name}");
        let media = completed.media.unwrap();
        assert_eq!([completed.usage.prompt_tokens, media.input_items, media.output_items], case.counts, "{name}");
        assert_eq!(media.input_bytes, Some(case.request.to_string().len() as u64), "{name}");
        assert_eq!(media.output_bytes, Some(expected.len() as u64), "{name}");
        let source = if case.counts[0].is_some() { UsageSource::Reported } else { UsageSource::Unknown };
        assert_eq!(completed.usage.source, source, "{name}");
        let tables = stack.settled().await?.tables;
        assert_eq!((tables.chats.len(), tables.conversations.len()), (1, 0), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn that_fail_are_recorded_as_failed() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let body = json!({"model": MODEL, "input": "x"});
    let refusal = r#"{"error":{"message":"too long","type":"invalid_request_error","param":"input","code":null}}"#;
    stack.upstream.respond_next(Script::json(StatusCode::BAD_REQUEST, refusal));
    assert_eq!(post(&stack, &ann, "/v1/embeddings", &body).await?, (StatusCode::BAD_REQUEST, refusal.into()));
    // The connection breaks in the middle of the answer: the client must not take the half for the whole.
    let half = Script {
        body: vec![Step::Send("{\"data\":[".into()), Step::Cut],
        ..Script::new(StatusCode::OK).header(CONTENT_TYPE, "application/json")
    };
    stack.upstream.respond_next(half);
    let response = stack.post("/v1/embeddings").bearer_auth(&ann.token).json(&body).send().await?;
    assert!(response.bytes().await.is_err());
    let events = stack.settled().await?.events;
    let mut stages: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::ChatFailed(failed) => Some((failed.started_at, failed.stage.label())),
            _ => None,
        })
        .map(|(_, stage)| stage)
        .collect();
    stages.sort_unstable();
    assert_eq!((events.len(), stages), (4, vec!["upstream_status", "upstream_stream"]));
    Ok(())
}

#[tokio::test]
async fn that_count_tokens_pass_and_are_not_recorded() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let answer = r#"{"object":"response.input_tokens","input_tokens":11}"#;
    stack.upstream.respond_with(move |_: &ReceivedRequest| Script::json(StatusCode::OK, answer));
    let body = json!({"model": MODEL, "input": "x"});
    assert_eq!(post(&stack, &ann, "/v1/responses/input_tokens", &body).await?, (StatusCode::OK, answer.into()));
    assert_eq!(stack.upstream.chat(1).await.path, "/v1/responses/input_tokens");
    assert_eq!(stack.events().await?, 0);
    Ok(())
}

#[tokio::test]
async fn that_all_users_of_the_account_share_are_closed_but_for_named_callers() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let (ann, bob) = (stack.user("ann").await?, stack.user("bob").await?);
    for path in ["/v1/files", "/v1/files/file-1/content", "/v1/batches", "/v1/vector_stores/vs_1", "/v1/threads/t/runs"]
    {
        for method in [reqwest::Method::GET, reqwest::Method::POST, reqwest::Method::DELETE] {
            let response = stack.request(method.clone(), path).bearer_auth(&ann.token).send().await?;
            assert_eq!(response.status(), 403, "{method} {path}");
            let error = &response.json::<Value>().await?["error"];
            assert_eq!(error["code"], "shared_endpoint", "{method} {path}");
            assert!(error["message"].as_str().unwrap().contains(path), "{method} {path}: {error}");
        }
    }
    assert_eq!((stack.events().await?, stack.upstream.chats().len()), (0, 0));

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("routes.toml");
    let routes = format!(
        "[upstreams.main]\nbase_url = {:?}\nkey_file = {:?}\n[[routes]]\nmodels = [\"*\"]\nupstreams = [\"main\"]\n\
         [[pass_through]]\npaths = [\"/v1/files*\"]\ncallers = [{:?}]\nupstream = \"main\"\n",
        stack.upstream.base_url(),
        directory.path().join("key"),
        ann.id,
    );
    std::fs::write(&file, routes)?;
    std::fs::write(directory.path().join("key"), stack.upstream.key())?;
    let routes = file.display().to_string();
    let gateway = stack.another_gateway(|settings| settings.more.push(("GATEWAY_ROUTES_FILE".into(), routes))).await?;
    let listed = r#"{"object":"list","data":[]}"#;
    stack.upstream.respond_with(move |_: &ReceivedRequest| Script::json(StatusCode::OK, listed));
    let client = harness::http::client();
    let uploaded = vec![7_u8; 700_000];
    let upload = client.post(gateway.url("/v1/files?purpose=x")).header("content-type", "application/octet-stream");
    let answer = upload.bearer_auth(&ann.token).body(uploaded.clone()).send().await?;
    assert_eq!((answer.status(), answer.text().await?.as_str()), (StatusCode::OK, listed));
    let asked = stack.upstream.chat(1).await;
    assert!(asked.path == "/v1/files" && asked.body == uploaded);
    let list = client.get(gateway.url("/v1/files")).bearer_auth(&ann.token).send().await?;
    assert_eq!((list.status(), list.text().await?.as_str()), (StatusCode::OK, listed));
    let refused = client.get(gateway.url("/v1/files")).bearer_auth(&bob.token).send().await?;
    assert_eq!(refused.status(), 403);
    gateway.drained(Duration::from_secs(60)).await?;
    let events = stack.settled().await?.events;
    let mut recorded: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::ChatStarted(started) => {
                let parameters: Value = serde_json::from_str(started.parameters.get()).unwrap();
                Some((started.started_at, started.operation, parameters))
            }
            _ => None,
        })
        .map(|(at, operation, parameters)| (at, operation.label(), parameters))
        .collect();
    recorded.sort_by_key(|(at, ..)| *at);
    let recorded: Vec<_> = recorded.into_iter().map(|(_, operation, parameters)| (operation, parameters)).collect();
    let expected = [
        ("pass_through", json!({"method": "POST", "path": "/v1/files?purpose=x"})),
        ("pass_through", json!({"method": "GET", "path": "/v1/files"})),
    ];
    assert_eq!(recorded, expected);
    let sizes = events.iter().filter_map(|event| match event {
        Event::MessageCompleted(completed) => completed.media.map(|media| (media.input_bytes, media.output_bytes)),
        _ => None,
    });
    let mut sizes: Vec<_> = sizes.collect();
    sizes.sort_unstable();
    let answered = Some(listed.len() as u64);
    assert_eq!(sizes, [(Some(0), answered), (Some(uploaded.len() as u64), answered)]);
    Ok(())
}

/// An error or nothing with a success status is a failed try of a call too.
#[tokio::test]
async fn are_answered_by_the_next_upstream_after_an_error_in_a_good_answer() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("routes.toml");
    let upstream =
        |name: &str| format!("[upstreams.{name}]\nbase_url = \"{}\"\nkey_from = \"KEY\"\n", stack.upstream.base_url());
    let route = "[[routes]]\nmodels = [\"*\"]\nupstreams = [\"a\", \"b\"]\ntries = 1\n";
    std::fs::write(&file, [upstream("a"), upstream("b"), route.into()].concat())?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
            settings.more.push(("KEY".into(), stack.upstream.key().into()));
        })
        .await?;
    let good = json!({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}).to_string();
    let failed = r#"{"error":{"message":"no capacity","code":503}}"#;
    let request = json!({"model": MODEL, "input": "x"});
    for first in [failed, ""] {
        stack.upstream.respond_next(Script::json(StatusCode::OK, first));
        stack.upstream.respond_next(Script::json(StatusCode::OK, good.clone()));
        let sent = harness::http::client().post(gateway.url("/v1/embeddings")).bearer_auth(&ann.token).json(&request);
        assert_eq!(sent.send().await?.text().await?, good, "after {first:?}");
    }
    // Without a good answer, the client gets the error as it came.
    for _ in 0..2 {
        stack.upstream.respond_next(Script::json(StatusCode::OK, failed));
    }
    let sent = harness::http::client().post(gateway.url("/v1/embeddings")).bearer_auth(&ann.token).json(&request);
    assert_eq!(sent.send().await?.text().await?, failed);
    gateway.drained(Duration::from_secs(120)).await?;
    let events = stack.settled().await?.events;
    let mut attempts = events.iter().filter_map(|event| match event {
        Event::MessageCompleted(event) => Some(event.attempts.iter().map(|attempt| attempt.error.clone()).collect()),
        _ => None,
    });
    let mut attempts: Vec<Vec<_>> = attempts.by_ref().collect();
    attempts.sort();
    let code = |code: &str| Some(code.to_owned());
    assert_eq!(attempts, [vec![code("empty_answer"), None], vec![code("error_in_answer"), None]]);
    assert!(events.iter().any(|event| matches!(event, Event::ChatFailed(failed) if failed.attempts.len() == 2)));
    Ok(())
}
