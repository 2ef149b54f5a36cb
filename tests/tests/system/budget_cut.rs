//! Budgets with the policy `cut`: a streamed answer ends when the money is used up, as its clients expect, and the record says so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, stream};
use harness::services::Gateway;
use harness::upstream::{Ending, Script, Step};
use http::StatusCode;
use serde_json::{Value, json};
use shared::event::{BudgetPolicy, Event, LimitScope};
use tests::stack::{Stack, User, header, streamed_text};
use tokio::time::Instant;

use crate::budgets::{PATIENCE, PRICED, budget, recorded, set, until_exact};

/// A word of one token and four bytes.
const WORD: &str = " the";
/// The price of a token of the answer, in nano-dollars.
const PRICE: u64 = 10_000;
/// The calls that are open at the same time.
const OPEN: usize = 200;
/// The tokens of a chunk of a large answer, and the time between two chunks: 800 tokens in a second.
const CHUNK: usize = 16;
const PACE: Duration = Duration::from_millis(20);
/// The time in which a broker on a busy machine answers a gateway.
const ANSWER_TIME: Duration = Duration::from_millis(250);

fn chat_chunk(words: usize) -> String {
    let choice = json!({"index": 0, "delta": {"content": WORD.repeat(words)}});
    format!("data: {}\n\n", json!({"id": "c1", "choices": [choice]}))
}

/// Sets the budget of a user, and waits until the gateway knows it. Calls that the provider refuses cost nothing.
async fn set_and_wait(
    stack: &Stack,
    gateways: &[&Gateway],
    user: &User,
    amount: u64,
    policy: BudgetPolicy,
) -> anyhow::Result<LimitScope> {
    let scope = LimitScope::User(user.id.parse()?);
    set(stack, &scope, budget(amount, policy)).await?;
    stack.upstream.respond_with(|_| Script::json(StatusCode::BAD_REQUEST, r#"{"error":{"message":"no"}}"#));
    for gateway in gateways {
        let began = Instant::now();
        while !call(gateway, &user.token, json!({})).await?.headers().contains_key("ratelimit-policy") {
            ensure!(began.elapsed() < PATIENCE, "the gateway does not know the budget");
        }
    }
    Ok(scope)
}

async fn call(gateway: &Gateway, token: &str, more: Value) -> anyhow::Result<reqwest::Response> {
    crate::budgets::call(gateway, token, more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_an_answer_as_at_its_maximum_length_in_each_dialect() -> anyhow::Result<()> {
    let text = WORD.repeat(8);
    let responses_start = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r1\"}}\n\n";
    let delta = json!({"type": "response.output_text.delta", "sequence_number": 1, "item_id": "i", "output_index": 0, "delta": text});
    let messages_start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m1\",\"type\":\"message\",\
         \"role\":\"assistant\",\"content\":[],\"model\":\"gpt-4o\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n\
         event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let block = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
    let part = json!({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}}]});
    let question = json!([{"role": "user", "content": "x"}]);
    let ui = json!([{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]);
    let contents = json!([{"role": "user", "parts": [{"text": "x"}]}]);
    let cases = [
        (
            "/v1/chat/completions",
            json!({"model": PRICED, "messages": question, "stream": true}),
            (String::new(), chat_chunk(8)),
            "\"finish_reason\":\"length\"",
        ),
        (
            "/v1/responses",
            json!({"model": PRICED, "input": "x", "stream": true}),
            (responses_start.to_owned(), format!("event: response.output_text.delta\ndata: {delta}\n\n")),
            "\"incomplete_details\":{\"reason\":\"max_output_tokens\"}",
        ),
        (
            "/v1/messages",
            json!({"model": PRICED, "messages": question, "max_tokens": 9000, "stream": true}),
            (messages_start.to_owned(), format!("event: content_block_delta\ndata: {block}\n\n")),
            "\"stop_reason\":\"max_tokens\"",
        ),
        (
            "/v1beta/models/gpt-4o:streamGenerateContent?alt=sse",
            json!({"contents": contents}),
            (String::new(), format!("data: {part}\n\n")),
            "\"finishReason\":\"MAX_TOKENS\"",
        ),
        (
            "/api/chat",
            json!({"id": "t", "model": PRICED, "messages": ui}),
            (String::new(), chat_chunk(8)),
            "\"finishReason\":\"length\"",
        ),
    ];
    let stack = Stack::with_api(&[], &[]).await?;
    for (number, (path, body, (start, piece), end)) in cases.into_iter().enumerate() {
        let ann = stack.user(&format!("ann-{number}")).await?;
        // Three steps of 64 tokens and the prompt.
        let amount = 3 * 64 * PRICE + 60_000;
        let scope = set_and_wait(&stack, &[&stack.gateway], &ann, amount, BudgetPolicy::Cut).await?;
        let pieces = [start].into_iter().filter(|start| !start.is_empty()).chain(vec![piece; 2000]);
        stack.upstream.respond_next(Script::stream(pieces).paced(Duration::from_millis(2)));
        let response = stack.post(path).bearer_auth(&ann.token).json(&body).send().await?;
        let status = response.status();
        let chat = header(&response, "x-chat-id")?;
        let text = response.text().await.with_context(|| format!("{path}: the stream breaks off"))?;
        ensure!(status == 200 && text.contains(end), "{path}: {status} {text}");

        let cost = until_exact(&stack, &scope, &ann.id, 1).await?;
        // What arrives while the broker is asked, and the chunk that is on the way.
        let bound = amount + 64 * PRICE;
        ensure!(cost > amount / 2 && cost <= bound, "{path}: {cost} of {amount}");
        let refused = call(&stack.gateway, &ann.token, json!({"stream": true})).await?;
        ensure!(refused.status() == 429 && refused.text().await?.contains("budget_exceeded"), "{path}");

        let read = stack.read(&ann, &format!("/api/chats/{chat}")).await?;
        ensure!(read["status"] == "completed", "{path}: {read}");
        let conversation = read["conversationId"].as_str().context("no conversation")?;
        let messages = stack.read(&ann, &format!("/api/conversations/{conversation}/messages")).await?;
        let answer = &messages["data"][1];
        ensure!(answer["status"] == "partial" && answer["finishReason"] == "cut_by_budget", "{path}: {answer}");
        // The client has seen what is on the record, and no more. The last event of responses repeats the text.
        let seen = text.matches(WORD).count() / if path == "/v1/responses" { 2 } else { 1 };
        ensure!(
            answer["content"].as_str().map(|text| text.matches(WORD).count()) == Some(seen),
            "{path}: {seen} {answer}"
        );
    }
    let oracle = stack.settled().await?;
    let is_cut = |event: &&Event| {
        matches!(event, Event::MessageCompleted(event)
        if event.message.as_ref().is_some_and(|message| message.finish_reason.as_deref() == Some("cut_by_budget")))
    };
    ensure!(oracle.events.iter().filter(is_cut).count() == 5);
    ensure!(stack.recorder.run(&["verify"]).await?.contains("identical"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_a_silent_answer_that_is_drained_too_and_lets_go_of_the_provider() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let amount = 2 * 64 * PRICE;
    set_and_wait(&stack, &[&stack.gateway], &ann, amount, BudgetPolicy::Cut).await?;
    let calls = stack.upstream.chats().len();
    stack
        .upstream
        .respond_next(Script::stream(vec![chat_chunk(8); 100]).paced(Duration::from_millis(20)).after(100, Step::Hang));
    let body = json!({"model": PRICED, "messages": [{"role": "user", "content": "x"}], "stream": true});
    let request = stack.post("/v1/chat/completions").bearer_auth(&ann.token).header("x-stenograph-on-leave", "drain");
    let mut response = request.json(&body).send().await?;
    ensure!(response.chunk().await?.is_some());
    drop(response);
    let ending = tokio::time::timeout(PATIENCE, stack.upstream.chat(calls + 1).await.ended()).await?;
    ensure!(ending == Ending::ClientGone);
    let began = Instant::now();
    while recorded(&stack, &ann.id).await?.0 == 0 {
        ensure!(began.elapsed() < PATIENCE, "the end is not recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let oracle = stack.settled().await?;
    let reason = oracle.tables.messages.values().find_map(|message| message.finish_reason.clone());
    ensure!(reason.as_deref() == Some("cut_by_budget"), "{reason:?}");
    Ok(())
}

/// Streams answers with sizes of which most are small and few are large.
fn stream_many_sizes(stack: &Stack) {
    stack.upstream.respond_with(|_| {
        let normal: f64 = (0..12).map(|_| rand::random::<f64>()).sum::<f64>() - 6.0;
        let sampled = (400.0 * (0.8 * normal).exp()).clamp(1.0, 6000.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 6000")]
        let answer = sampled as usize;
        let words = (0..answer.div_ceil(CHUNK)).map(|chunk| chat_chunk((answer - chunk * CHUNK).min(CHUNK)));
        let usage = json!({"prompt_tokens": 8, "completion_tokens": answer, "total_tokens": 8 + answer});
        let last = json!({"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage});
        let pieces = words.chain([format!("data: {last}\n\n"), "data: [DONE]\n\n".to_owned()]);
        Script::stream(pieces).paced(PACE)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_four_gateways_with_200_open_chats_exceeds_the_amount_within_its_bound() -> anyhow::Result<()> {
    let amount = 10_000_000_000;
    let stack = crate::leases::stack("2s", 1).await?;
    let ann = stack.user("ann").await?;
    let mut more = Vec::new();
    for name in ["gateway-2", "gateway-3", "gateway-4"] {
        more.push(crate::leases::gateway(&stack, name, name).await?);
    }
    let gateways: Vec<&Gateway> = [&stack.gateway].into_iter().chain(&more).collect();
    let scope = set_and_wait(&stack, &gateways, &ann, amount, BudgetPolicy::Cut).await?;
    stream_many_sizes(&stack);
    let [completed, cut, refused, lost] = std::array::from_fn(|_| AtomicUsize::new(0));
    let at_refusal = Arc::new(Mutex::new(None));
    let tries = stream::iter(0..40_000_usize).map(|number| {
        let (gateways, stack, ann, at_refusal) = (&gateways, &stack, &ann, &at_refusal);
        let (completed, cut, refused, lost) = (&completed, &cut, &refused, &lost);
        async move {
            if refused.load(Ordering::Relaxed) >= 300 {
                return anyhow::Ok(());
            }
            if number == 1000 {
                gateways[3].kill9().await;
            }
            let Ok(response) = call(gateways[number % 4], &ann.token, json!({"stream": true})).await else {
                lost.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            };
            if response.status() == StatusCode::OK {
                match response.text().await {
                    Ok(text) if text.contains("\"finish_reason\":\"length\"") => cut.fetch_add(1, Ordering::Relaxed),
                    Ok(text) if text.contains("[DONE]") => completed.fetch_add(1, Ordering::Relaxed),
                    Ok(text) => anyhow::bail!("an answer without an end: {}", streamed_text(&text)),
                    Err(_) => lost.fetch_add(1, Ordering::Relaxed),
                };
                return Ok(());
            }
            let (status, text) = (response.status(), response.text().await?);
            ensure!(status == 429 && text.contains("budget_exceeded"), "{status} {text}");
            if refused.fetch_add(1, Ordering::Relaxed) == 0 {
                let spent = recorded(stack, &ann.id).await?.0;
                *at_refusal.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(spent);
            }
            Ok(())
        }
    });
    let mut tries = tries.buffer_unordered(OPEN);
    while let Some(done) = tries.next().await {
        done?;
    }
    drop(tries);
    let [completed, cut, refused, lost] =
        [&completed, &cut, &refused, &lost].map(|count| count.load(Ordering::Relaxed));
    let at_refusal = at_refusal.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.context("no call was refused")?;
    // The killed gateway starts again: what it had is settled from the record.
    let _restarted = crate::leases::gateway(&stack, "gateway-4", "gateway-4").await?;
    let spent = until_exact(&stack, &scope, &ann.id, 4).await?;
    println!(
        "cut: {completed} completed, {cut} cut, {refused} refused, {lost} lost; {at_refusal} recorded at the first refusal, \
         {spent} at the end of {amount}"
    );
    ensure!(at_refusal > amount / 100 * 85, "refused with {at_refusal} spent of {amount}");
    ensure!(cut > 0, "no answer was cut");
    // For each open chat, the tokens that are drawn at once, a chunk, and what arrives while the broker is asked.
    let while_asked = (ANSWER_TIME.as_millis() / PACE.as_millis()) as usize * CHUNK;
    let bound = amount + (OPEN * (64 + CHUNK + while_asked)) as u64 * PRICE;
    ensure!(spent <= bound, "{spent} of {amount}, bound {bound}");
    Ok(())
}
