//! Traces: one trace shows a call from the client's request to the commit, without text; and a collector that is away costs no call anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::openai::ApiError;
use harness::upstream::Script;
use http::StatusCode;
use serde_json::{Value, json};
use shared::event::Event;
use tests::collector::{CollectedSpan, Collector};
use tests::stack::{MODEL, Stack, User};

/// Long enough on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CLIENT}-{flags}")
}

fn question() -> Value {
    json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "a planted question"}]})
}

async fn traced_stack(collector: &Collector, share: &str) -> anyhow::Result<(Stack, User)> {
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer for-the-collector"),
        ("OTEL_TRACES_SAMPLER_ARG", share),
    ];
    let stack = Stack::with_api(&settings, &settings).await?;
    let ann = stack.user("ann").await?;
    Ok((stack, ann))
}

/// The spans of the client's trace by name. Fails if two have the same name but for the tries.
fn of_trace<'a>(spans: &'a [CollectedSpan], trace: &str) -> BTreeMap<(&'a str, &'a str, i32), Vec<&'a CollectedSpan>> {
    let mut named: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.trace == trace) {
        named.entry((span.service.as_str(), span.name.as_str(), span.kind)).or_default().push(span);
    }
    named
}

#[tokio::test]
async fn one_trace_shows_a_call_from_the_client_to_the_commit() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let (stack, ann) = traced_stack(&collector, "0").await?;
    // The first try fails, and is repeated.
    stack.upstream.respond_next(Script::error(&ApiError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        ..ApiError::invalid("a planted error".to_owned(), None)
    }));
    let request = stack.post("/v1/chat/completions").bearer_auth(&ann.token).json(&question());
    let response = request.header("traceparent", traceparent("01")).header("tracestate", "vendor=1").send().await?;
    assert_eq!(response.status(), 200);
    let chat = tests::stack::header(&response, "x-chat-id")?;
    let answer = response.text().await?;
    assert!(answer.contains("[DONE]"));
    stack.settled().await?;

    let spans =
        collector.wait_for(PATIENCE, |spans| spans.iter().filter(|span| span.trace == TRACE).count() >= 9).await?;
    let named = of_trace(&spans, TRACE);
    let chat_name = format!("chat {MODEL}");
    let one = |service: &str, name: &str, kind: i32| {
        let found = named.get(&(service, name, kind)).cloned().unwrap_or_default();
        assert_eq!(found.len(), 1, "{name}: {named:?}");
        found[0]
    };
    let (gateway, recorder) = ("stenograph-gateway", "stenograph-recorder");
    let call = one(gateway, &chat_name, 2);
    assert_eq!((call.parent.as_str(), call.is_error), (CLIENT, false));
    assert_eq!(call.attributes["stenograph.chat.id"], chat);
    assert_eq!(call.attributes["user.id"], ann.id);
    assert_eq!(call.attributes["stenograph.outcome"], "completed");
    let tries = &named[&(gateway, chat_name.as_str(), 3)];
    assert_eq!(tries.len(), 2);
    assert_eq!(tries[0].attributes["http.response.status_code"], "503");
    assert!(tries[0].is_error && !tries[1].is_error);
    let answered = &tries[1].attributes;
    assert_eq!(answered["gen_ai.operation.name"], "chat");
    assert_eq!(answered["gen_ai.response.finish_reasons"], "stop");
    assert_eq!(answered["gen_ai.response.model"], MODEL);
    assert_eq!(answered["stenograph.usage.source"], "reported");
    assert!(
        answered.contains_key("gen_ai.response.id") && answered.contains_key("gen_ai.response.time_to_first_chunk")
    );
    let database = stack.database().await?;
    let (prompt, completion): (i64, i64) =
        sqlx::query_as("SELECT prompt_tokens, completion_tokens FROM chats").fetch_one(&database).await?;
    assert_eq!(answered["gen_ai.usage.input_tokens"], prompt.to_string());
    assert_eq!(answered["gen_ai.usage.output_tokens"], completion.to_string());

    // Everything else is below the call, and every time is within it or after it.
    for (service, name, kind) in [
        (gateway, "journal start", 1),
        (gateway, "journal end", 1),
        (gateway, "publish ChatStarted", 4),
        (gateway, "publish MessageCompleted", 4),
        (recorder, "record ChatStarted", 5),
        (recorder, "record MessageCompleted", 5),
    ] {
        let span = one(service, name, kind);
        assert_eq!(span.parent, call.id, "{name}");
        assert!(span.times.0 >= call.times.0 && span.times.1 >= span.times.0, "{name}");
    }
    assert!(one(gateway, "journal end", 1).times.1 <= call.times.1, "the call ends when its end is durable");
    assert_eq!(named.values().map(Vec::len).sum::<usize>(), 9, "{named:?}");
    let ids: BTreeSet<_> = spans.iter().map(|span| (&span.trace, &span.id)).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
    // The batches have traces of their own, and are linked with the events.
    let recorded = one(recorder, "record MessageCompleted", 5);
    let batch = spans.iter().find(|span| span.name == "record batch" && recorded.links.contains(&span.id));
    assert!(batch.is_some_and(|batch| batch.trace != TRACE && batch.links.contains(&call.id)), "{spans:?}");

    // The upstream sees the span of its try.
    let seen: Vec<_> = stack.upstream.chats().iter().map(|chat| chat.headers["traceparent"].clone()).collect();
    let expected: Vec<_> = tries.iter().map(|span| format!("00-{TRACE}-{}-01", span.id)).collect();
    assert_eq!(seen, expected);
    assert_eq!(stack.upstream.chats()[0].headers["tracestate"], "vendor=1");
    // The events and the log name the trace.
    let oracle = stack.settled().await?;
    let of_call = format!("00-{TRACE}-{}-01", call.id);
    let named = oracle.events.iter().filter(|event| event.traceparent().is_some_and(|at| at.to_string() == of_call));
    assert_eq!(named.count(), 2);
    assert!(stack.gateway_log()?.contains(&format!("\"trace_id\":\"{TRACE}\"")));
    // No text, no key and no error message is in any span.
    let everything = format!("{spans:?}");
    for secret in ["planted", "This is the answer", stack.upstream.key(), &ann.token] {
        assert!(!everything.contains(secret), "{secret} is in a span");
    }
    assert_eq!(collector.headers()["authorization"], "Bearer for-the-collector");
    assert!(!stack.gateway_log()?.contains("for-the-collector"));
    Ok(())
}

#[tokio::test]
async fn the_client_or_the_share_decides_which_traces_are_kept() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let (stack, ann) = traced_stack(&collector, "0").await?;
    let ask = async |gateway: &harness::services::Gateway, client: Option<&str>| {
        let request = harness::http::client().post(gateway.url("/v1/chat/completions"));
        let mut request = request.bearer_auth(&ann.token).json(&question());
        if let Some(client) = client {
            request = request.header("traceparent", client);
        }
        let response = request.send().await?;
        assert_eq!(response.status(), 200);
        response.text().await?;
        anyhow::Ok(())
    };
    // Not kept: the client's header passes as it is, also when it is malformed.
    for client in [None, Some(traceparent("00")), Some("00-nothing".to_owned())] {
        ask(&stack.gateway, client.as_deref()).await?;
        let seen = stack.upstream.chats().last().and_then(|chat| chat.headers.get("traceparent").cloned());
        assert_eq!(seen.map(|value| value.to_str().unwrap_or_default().to_owned()), client);
    }
    // Without a collector nothing is kept, and the events name the client's span.
    let off = stack.another_gateway(|settings| settings.more.retain(|(name, _)| !name.starts_with("OTEL"))).await?;
    ask(&off, Some(&traceparent("01"))).await?;
    let seen = stack.upstream.chats().last().map(|chat| chat.headers["traceparent"].clone());
    assert_eq!(seen.unwrap(), traceparent("01"));
    off.drained(PATIENCE).await?;
    let oracle = stack.settled().await?;
    let named = oracle.events.iter().filter_map(Event::traceparent).map(|context| context.to_string());
    let mut named: Vec<_> = named.collect();
    named.sort();
    assert_eq!(named, [traceparent("00"), traceparent("00"), traceparent("01"), traceparent("01")]);
    // The recorder makes spans below the client's span, because the client keeps the trace.
    let spans =
        collector.wait_for(PATIENCE, |spans| spans.iter().filter(|span| span.parent == CLIENT).count() == 2).await?;
    assert!(spans.iter().all(|span| span.service == "stenograph-recorder"), "{spans:?}");
    drop(off);

    // All calls begin a trace.
    let all = |settings: &mut harness::services::gateway::GatewaySettings| {
        settings.more.retain(|(name, _)| name != "OTEL_TRACES_SAMPLER_ARG");
    };
    let all = stack.another_gateway(all).await?;
    ask(&all, None).await?;
    let is_call = |span: &CollectedSpan| span.kind == 2 && span.parent.is_empty();
    collector.wait_for(PATIENCE, |spans| spans.iter().any(is_call)).await?;
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_call_anything() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    collector.refuse_with(503);
    let (stack, ann) = traced_stack(&collector, "1").await?;
    for _ in 0..10 {
        stack.finished_chat(&ann, "hello").await?;
    }
    stack.settled().await?;
    let failed = r#"stenograph_gateway_trace_spans_total{outcome="failed"}"#;
    let sent = r#"stenograph_gateway_trace_spans_total{outcome="sent"}"#;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while stack.gateway.metric(failed).await? == 0.0 {
        assert!(tokio::time::Instant::now() < deadline, "no span failed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stack.gateway.metric(sent).await?, 0.0);
    let warnings = stack.gateway_log()?.matches("spans of traces could not be sent").count();
    assert_eq!(warnings, 1, "one warning, however many batches");

    collector.refuse_with(0);
    stack.finished_chat(&ann, "hello").await?;
    collector.wait_for(PATIENCE, |spans| spans.iter().any(|span| span.kind == 2)).await?;
    assert!(stack.gateway.metric(sent).await? > 0.0);
    Ok(())
}
