//! Providers that refuse `stream_options`: the gateway removes the option that the gateway had added, and remembers the
//! refusal.

use harness::upstream::{ReceivedRequest, Script, answer};
use http::StatusCode;
use serde_json::{Value, json};
use shared::event::{Attempt, Event};
use tests::stack::{MODEL, Stack, User, streamed_text};

const REFUSAL: &str = r#"{"error":{"message":"Unrecognized request argument supplied: stream_options","type":"invalid_request_error","param":null,"code":null}}"#;

fn names_stream_options(request: &ReceivedRequest) -> bool {
    serde_json::from_slice::<Value>(&request.body).is_ok_and(|body| body.get("stream_options").is_some())
}

fn refusing(request: &ReceivedRequest) -> Script {
    match names_stream_options(request) {
        true => Script::json(StatusCode::BAD_REQUEST, REFUSAL),
        false => answer(request, "As you wish."),
    }
}

async fn chat(stack: &Stack, user: &User, body: &Value) -> anyhow::Result<(StatusCode, String)> {
    let response = stack.post("/v1/chat/completions").bearer_auth(&user.token).json(body).send().await?;
    Ok((response.status(), response.text().await?))
}

fn streamed() -> Value {
    json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "x"}]})
}

/// The statuses of each chat's attempts, in the order in which the chats ended.
async fn attempts(stack: &Stack) -> anyhow::Result<Vec<Vec<Option<u16>>>> {
    let statuses = |attempts: &[Attempt]| attempts.iter().map(|attempt| attempt.status).collect();
    let events = stack.settled().await?.events;
    let ended = events.iter().filter_map(|event| match event {
        Event::MessageCompleted(event) => Some((event.started_at, statuses(&event.attempts))),
        Event::ChatFailed(event) => Some((event.started_at, statuses(&event.attempts))),
        _ => None,
    });
    let mut ended: Vec<_> = ended.collect();
    ended.sort_by_key(|(at, _)| *at);
    Ok(ended.into_iter().map(|(_, statuses)| statuses).collect())
}

#[tokio::test]
async fn added_by_the_gateway_are_removed_after_a_refusal_which_is_remembered() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.upstream.respond_with(refusing);
    for _ in 0..2 {
        let (status, text) = chat(&stack, &ann, &streamed()).await?;
        assert_eq!((status, streamed_text(&text).as_str()), (StatusCode::OK, "As you wish."));
    }
    // If the client itself asks for stream_options, the refusal of the upstream is forwarded to the client.
    let mut own = streamed();
    own["stream_options"] = json!({"include_usage": true});
    assert_eq!(chat(&stack, &ann, &own).await?, (StatusCode::BAD_REQUEST, REFUSAL.to_owned()));
    let sent: Vec<bool> = stack.upstream.chats().iter().map(|request| names_stream_options(request)).collect();
    assert_eq!(sent, [true, false, false, true]);
    assert_eq!(attempts(&stack).await?, [vec![Some(400), Some(200)], vec![Some(200)], vec![Some(400)]]);
    stack.gateway.process().logged("an upstream refuses stream_options").await?;
    Ok(())
}

#[tokio::test]
async fn are_kept_after_any_other_error_which_is_passed_on_unchanged() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    // The error repeats the request and therefore contains stream_options, without refusing stream_options.
    let echo = |request: &ReceivedRequest| {
        let body = json!({"detail": [{"type": "missing", "input": String::from_utf8_lossy(&request.body)}]});
        Script::json(StatusCode::UNPROCESSABLE_ENTITY, body.to_string())
    };
    stack.upstream.respond_with(echo);
    let (status, text) = chat(&stack, &ann, &streamed()).await?;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!text.contains("stream_options"), "expected the answer to the request as the client sent it: {text}");

    // Three more errors: an error longer than the examined part, an error cut off midway, and an error about another
    // subject.
    let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "too long ".repeat(30_000));
    stack.upstream.respond_next(Script::json(StatusCode::BAD_REQUEST, long.clone()));
    assert_eq!(chat(&stack, &ann, &streamed()).await?, (StatusCode::BAD_REQUEST, long));
    let pieces = ["half of ", "an error"].map(bytes::Bytes::from);
    let cut = Script::stream(pieces).after(2, harness::upstream::Step::Cut);
    stack.upstream.respond_next(Script { status: StatusCode::BAD_REQUEST, ..cut });
    assert!(chat(&stack, &ann, &streamed()).await.is_err(), "a broken error body must end with an error");
    let context = r#"{"error":{"message":"too many tokens","code":"context_length_exceeded"}}"#;
    stack.upstream.respond_next(Script::json(StatusCode::BAD_REQUEST, context));
    assert_eq!(chat(&stack, &ann, &streamed()).await?, (StatusCode::BAD_REQUEST, context.to_owned()));

    assert!(names_stream_options(stack.upstream.chats().last().unwrap()), "the upstream must still be asked for usage");
    let expected = [vec![Some(422), Some(422)], vec![Some(400)], vec![Some(400)], vec![Some(400)]];
    assert_eq!(attempts(&stack).await?, expected);
    Ok(())
}

/// With `ask_for_usage = "learn"`, a chunk with usage that the upstream sends unasked reaches the client.
#[tokio::test]
async fn are_added_only_for_upstreams_that_report_nothing_by_themselves() -> anyhow::Result<()> {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n";
    let answer = |with_usage: bool| {
        let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n";
        format!("{text}{}data: [DONE]\n\n", if with_usage { usage } else { "" })
    };
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("routes.toml");
    let routes = format!(
        "[upstreams.a]\nbase_url = \"{}\"\nkey_from = \"KEY\"\nask_for_usage = \"learn\"\n\
         [[routes]]\nmodels = [\"*\"]\nupstreams = [\"a\"]\n",
        stack.upstream.base_url()
    );
    std::fs::write(&file, routes)?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
            settings.more.push(("KEY".into(), stack.upstream.key().into()));
        })
        .await?;
    let chat = async || {
        let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&ann.token);
        anyhow::Ok(request.json(&streamed()).send().await?.error_for_status()?.text().await?)
    };
    // Sends usage to every chat, asked or not.
    for _ in 0..2 {
        stack.upstream.respond_next(Script::stream([answer(true)]));
        assert_eq!(chat().await?, answer(true), "the chunk that nobody asked for passes");
    }
    // Sends nothing unasked, and usage when asked.
    stack.upstream.respond_next(Script::stream([answer(false)]));
    assert_eq!(chat().await?, answer(false));
    stack.upstream.respond_next(Script::stream([answer(true)]));
    assert_eq!(chat().await?, answer(false), "the chunk that only the gateway asked for is taken out");
    let asked: Vec<bool> = stack.upstream.chats().iter().map(|request| names_stream_options(request)).collect();
    assert_eq!(asked, [false, false, false, true]);
    gateway.drained(std::time::Duration::from_secs(120)).await?;
    stack.settled().await?;
    Ok(())
}
