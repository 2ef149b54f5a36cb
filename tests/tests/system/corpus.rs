//! Recorded exchanges with real providers, where a collection of them lies beside the checkout (`../shared/corpus`): each is
//! served by the upstream, goes through a running gateway, and comes to the client byte for byte; the row that is projected
//! says what the collection says that the answer is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use harness::upstream::{ReceivedRequest, Script, Step};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use recorder::projection::chat::Chat;
use recorder::projection::pg_value::PgJson;
use serde_json::{Value, json};
use shared::usage::UsageSource;
use tests::oracle::Oracle;
use tests::stack::{Stack, User};

#[path = "../../../gateway/tests/corpus/later_rules.rs"]
mod later_rules;

/// Number of concurrent exchanges.
const AT_ONCE: usize = 8;

/// A recorded exchange with a provider.
struct Exchange {
    path: &'static str,
    status: StatusCode,
    streams: bool,
    content_type: String,
    body: Bytes,
    expected: Value,
}

fn read(directory: &Path, folder: &str, path: &'static str) -> anyhow::Result<Exchange> {
    let file = |name: &str| std::fs::read(directory.join(name));
    let meta: Value = serde_json::from_slice(&file("meta.json")?)?;
    let body = file("response.body")?;
    let mut expected = serde_json::from_slice(&file("expected.json")?)?;
    later_rules::apply(folder, &body, &mut expected);
    Ok(Exchange {
        path,
        status: StatusCode::from_u16(u16::try_from(meta["status"].as_u64().unwrap_or_default())?)?,
        streams: meta["stream"] == true,
        content_type: meta["content_type"].as_str().unwrap_or("application/octet-stream").to_owned(),
        body: body.into(),
        expected,
    })
}

/// All exchanges by dialect and name. The name is the model of the request.
fn exchanges(corpus: &Path) -> anyhow::Result<BTreeMap<String, Exchange>> {
    let mut found = BTreeMap::new();
    let folders = [
        ("openai-chat", "/v1/chat/completions"),
        ("openai-responses", "/v1/responses"),
        ("anthropic-messages", "/v1/messages"),
    ];
    for (folder, path) in folders {
        for entry in std::fs::read_dir(corpus.join(folder))? {
            let entry = entry?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            found.insert(name, read(&entry.path(), folder, path)?);
        }
    }
    // Exchanges with status 401 are left out: the gateway does not forward a refusal of its own key.
    found.retain(|_, exchange| exchange.status != StatusCode::UNAUTHORIZED);
    Ok(found)
}

fn script(exchange: &Exchange) -> Script {
    let mut script = Script::new(exchange.status);
    script.headers.extend(HeaderValue::from_str(&exchange.content_type).map(|value| (CONTENT_TYPE, value)));
    script.body = exchange.body.chunks(997).map(|piece| Step::Send(exchange.body.slice_ref(piece))).collect();
    script
}

/// Sends the request of an exchange and compares the bytes of the answer. Returns the difference.
async fn ask(stack: &Stack, user: &User, model: &str, exchange: &Exchange) -> anyhow::Result<Option<String>> {
    let question = "How is the weather?";
    let mut body = json!({"model": model, "stream": exchange.streams, "max_tokens": 100});
    match exchange.path {
        "/v1/responses" => body["input"] = question.into(),
        _ => body["messages"] = json!([{"role": "user", "content": question}]),
    }
    if exchange.path == "/v1/chat/completions" {
        body["stream_options"] = json!({"include_usage": true});
    }
    let response = stack.post(exchange.path).bearer_auth(&user.token).json(&body).send().await?;
    let status = response.status();
    let got = response.bytes().await;
    Ok(match got {
        Ok(got) if got == exchange.body && status == exchange.status => None,
        Ok(got) => Some(format!("{model}: {status} with {} bytes of {}", got.len(), exchange.body.len())),
        Err(error) => Some(format!("{model}: {status}, then {error}")),
    })
}

/// Differences between a row and the expected values of the corpus.
fn differences(oracle: &Oracle, chat: &Chat, exchange: &Exchange) -> Vec<String> {
    let expected = &exchange.expected;
    let mut differs = Vec::new();
    let mut compare = |what: &str, expected: Option<&str>, got: Option<&str>| {
        let expected = expected.filter(|text| !text.is_empty()).map(|text| text.replace('\0', "\\u0000"));
        if expected.as_deref() != got.filter(|text| !text.is_empty()) {
            differs.push(format!("{}: {what}: expected {expected:?}, got {got:?}", chat.model));
        }
    };
    let message = oracle.tables.messages.get(&chat.chat_id.assistant_message());
    let ending = chat.ending.as_ref();
    let upstream = ending.and_then(|ending| ending.upstream.as_ref());
    compare("text", expected["text"].as_str(), message.map(|message| message.content.as_str()));
    compare("reasoning", expected["reasoning"].as_str(), message.and_then(|message| message.reasoning.as_deref()));
    compare("refusal", expected["refusal"].as_str(), message.and_then(|message| message.refusal.as_deref()));
    compare("response id", expected["response_id"].as_str(), upstream.and_then(|answer| answer.response_id.as_deref()));
    compare("model", expected["model"].as_str(), upstream.and_then(|answer| answer.model.as_deref()));
    if let Some(message) = message {
        compare("finish reason", expected["finish_reason"].as_str(), message.finish_reason.as_deref());
    }
    let calls = message.and_then(|message| message.tool_calls.as_ref()).map_or("[]", PgJson::as_str);
    let word = |call: &Value, name: &str| call[name].as_str().unwrap_or_default().to_owned();
    let words = |calls: &Value| -> Vec<_> {
        let calls = calls.as_array().into_iter().flatten();
        calls.map(|call| ["id", "name", "arguments"].map(|name| word(call, name))).collect()
    };
    let (calls, wanted) = (words(&serde_json::from_str(calls).unwrap_or_default()), words(&expected["tool_calls"]));
    if calls != wanted {
        differs.push(format!("{}: tool calls: expected {wanted:?}, got {calls:?}", chat.model));
    }
    let usage = ending.map(|ending| &ending.usage);
    let reported = usage.filter(|usage| usage.source == UsageSource::Reported);
    let completion = reported.and_then(|usage| usage.completion_tokens);
    // The collection is older than the rule that compaction passes belong to the total.
    let raw = usage.and_then(|usage| serde_json::from_str::<Value>(usage.raw.as_ref()?.as_str()).ok());
    let passes = raw.as_ref().and_then(|raw| raw["iterations"].as_array()).map(Vec::as_slice).unwrap_or_default();
    let compactions = passes.iter().filter(|pass| pass["type"] == "compaction");
    let compacted: i64 = compactions.filter_map(|pass| pass["output_tokens"].as_i64()).sum();
    let expected_completion = expected["usage"]["completion"].as_i64().map(|completion| completion + compacted);
    if expected["usage"].is_object() != reported.is_some() || completion != expected_completion {
        differs.push(format!("{}: usage: expected {}, got {usage:?}", chat.model, expected["usage"]));
    }
    let fails = !expected["error"].is_null();
    if fails != (chat.status() == "failed") {
        differs.push(format!("{}: {} though the error is {}", chat.model, chat.status(), expected["error"]));
    }
    differs
}

#[tokio::test]
async fn recorded_exchanges_pass_and_are_recorded() -> anyhow::Result<()> {
    let corpus: PathBuf = harness::program::checkout().join("../shared/corpus");
    if !corpus.is_dir() {
        println!("skipped: there is no collection of recorded exchanges beside the checkout");
        return Ok(());
    }
    let exchanges = Arc::new(exchanges(&corpus)?);
    assert!(!exchanges.is_empty());
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let served = Arc::clone(&exchanges);
    stack.upstream.respond_with(move |request: &ReceivedRequest| {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let exchange = body["model"].as_str().and_then(|model| served.get(model));
        exchange.map_or_else(|| Script::new(StatusCode::NOT_FOUND), script)
    });
    let asked = stream::iter(exchanges.iter()).map(|(model, exchange)| ask(&stack, &ann, model, exchange));
    let mut wrong = Vec::new();
    for difference in asked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        wrong.extend(difference?);
    }
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.chats.len(), exchanges.len(), "each chat has one row");
    for chat in oracle.tables.chats.values() {
        wrong.extend(differences(&oracle, chat, &exchanges[&chat.model]));
    }
    println!("{} exchanges through a gateway: {} disagreements", exchanges.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
