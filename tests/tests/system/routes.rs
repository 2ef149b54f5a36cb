//! Routes: which upstream answers, what is tried before the first byte, and changing the routes while chats run.

use std::path::PathBuf;
use std::time::Duration;

use harness::openai::ApiError;
use harness::services::Gateway;
use harness::upstream::{Gate, Script, ScriptedUpstream, Step};
use http::StatusCode;
use http::header::{HeaderName, RETRY_AFTER};
use rustix::process::Signal;
use serde_json::{Value, json};
use shared::event::{Attempt, Event};
use tests::oracle::Oracle;
use tests::stack::{Stack, User, streamed_text};
use tokio::time::timeout;

/// Long enough on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with a file of routes, and two upstreams named `first` and `second`.
struct Routed {
    stack: Stack,
    first: ScriptedUpstream,
    second: ScriptedUpstream,
    gateway: Gateway,
    file: PathBuf,
    ann: User,
    _dir: tempfile::TempDir,
}

impl Routed {
    async fn start(routes: &str) -> anyhow::Result<Self> {
        let (stack, first, second) =
            (Stack::start().await?, ScriptedUpstream::start().await?, ScriptedUpstream::start().await?);
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("routes.toml");
        std::fs::write(&file, text(&first, &second, routes))?;
        let gateway = stack
            .another_gateway(|settings| {
                settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
                settings.more.push(("KEY_1".into(), first.key().into()));
                settings.more.push(("KEY_2".into(), second.key().into()));
            })
            .await?;
        let ann = stack.user("ann").await?;
        Ok(Self { stack, first, second, gateway, file, ann, _dir: dir })
    }

    async fn chat(&self, model: &str) -> anyhow::Result<reqwest::Response> {
        let body = json!({"messages": [{"role": "user", "content": "x"}], "model": model});
        self.post("/api/chat", &body).await
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        let request = harness::http::client().post(self.gateway.url(path)).bearer_auth(&self.ann.token);
        Ok(request.json(body).send().await?)
    }

    /// Result of [`Stack::settled`], after the journal of this gateway is empty, too.
    async fn settled(&self) -> anyhow::Result<Oracle> {
        self.gateway.drained(Duration::from_secs(120)).await?;
        self.stack.settled().await
    }

    /// The attempts of the only chat, once it is on the record.
    async fn attempts(&self) -> anyhow::Result<Vec<(String, Option<u16>, Option<String>)>> {
        let tried = |attempt: &Attempt| (attempt.upstream.clone(), attempt.status, attempt.error.clone());
        let oracle = self.settled().await?;
        let attempts = endings(&oracle).next().unwrap_or_default();
        Ok(attempts.iter().map(tried).collect())
    }
}

fn endings(oracle: &Oracle) -> impl Iterator<Item = &[Attempt]> {
    oracle.events.iter().filter_map(|event| match event {
        Event::MessageCompleted(event) => Some(&event.attempts[..]),
        Event::ChatFailed(event) => Some(&event.attempts[..]),
        _ => None,
    })
}

fn text(first: &ScriptedUpstream, second: &ScriptedUpstream, routes: &str) -> String {
    format!(
        "[upstreams.first]\nbase_url = \"{}\"\nkey_from = \"KEY_1\"\nlist_models = true\n\n\
         [upstreams.second]\nbase_url = \"{}\"\nkey_from = \"KEY_2\"\nheaders = {{ x-tenant = \"t-1\" }}\n\
         ask_for_usage = false\n\n{routes}",
        first.base_url(),
        second.base_url()
    )
}

const BOTH: &str = "[[routes]]\nmodels = [\"m\"]\nupstreams = [\"first\", \"second\"]\n";

fn tried(upstream: &str, status: u16) -> (String, Option<u16>, Option<String>) {
    (upstream.to_owned(), Some(status), None)
}

fn unwell() -> Script {
    Script::json(StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":{"message":"unwell"}}"#)
}

#[tokio::test]
async fn if_one_upstream_fails_the_next_answers() -> anyhow::Result<()> {
    let routed = Routed::start(BOTH).await?;
    routed.first.respond_with(|_| unwell());
    let response = routed.chat("m").await?;
    assert_eq!(response.status(), 200);
    assert!(!streamed_text(&response.text().await?).is_empty());
    assert_eq!(routed.attempts().await?, [tried("first", 500), tried("first", 500), tried("second", 200)]);
    Ok(())
}

fn failed(upstream: &str, code: &str) -> (String, Option<u16>, Option<String>) {
    (upstream.to_owned(), Some(200), Some(code.to_owned()))
}

/// Success responses whose answer fails before its first event: a name, the script, the body, and the word in the attempt.
fn failing_answers() -> Vec<(&'static str, Script, String, &'static str)> {
    let error = r#"{"error":{"message":"no capacity left","code":502}}"#;
    let event = format!("data: {error}\n\n");
    let comment = ": the model is being loaded\n\n";
    vec![
        ("a document", Script::json(StatusCode::OK, error), error.to_owned(), "error_in_answer"),
        ("a first event", Script::stream([event.clone()]), event.clone(), "error_in_answer"),
        (
            "after a comment",
            Script::stream([comment.to_owned(), event.clone()]),
            format!("{comment}{event}"),
            "error_in_answer",
        ),
        ("an empty stream", Script::stream([comment]), comment.to_owned(), "empty_answer"),
        ("an empty body", Script::new(StatusCode::OK), String::new(), "empty_answer"),
    ]
}

#[tokio::test]
async fn an_answer_that_fails_before_its_first_event_is_tried_at_the_next_upstream() -> anyhow::Result<()> {
    let routed = Routed::start(&format!("{BOTH}[[routes]]\nmodels = [\"alone\"]\nupstreams = [\"first\"]\n")).await?;
    for (number, (name, script, body, code)) in failing_answers().into_iter().enumerate() {
        routed.first.respond_next(script.clone());
        let answer = routed.chat("m").await?.error_for_status()?.text().await?;
        assert!(answer.ends_with("[DONE]\n\n") && !answer.contains("capacity"), "{name}: {answer}");
        routed.first.respond_next(script);
        let alone = json!({"messages": [{"role": "user", "content": "x"}], "model": "alone", "stream": true});
        let response = routed.post("/v1/chat/completions", &alone).await?;
        assert_eq!(response.status(), 200, "{name}");
        assert_eq!(response.text().await?, body, "{name}: without another upstream the answer passes as it came");
        // A success in between keeps the circuit breaker closed.
        routed.chat("alone").await?.text().await?;

        let oracle = routed.settled().await?;
        let chats: Vec<Vec<_>> = endings(&oracle)
            .map(|attempts| attempts.iter().map(|a| (a.upstream.clone(), a.status, a.error.clone())).collect())
            .collect();
        assert_eq!(chats[3 * number], [failed("first", code), tried("second", 200)], "{name}");
        assert_eq!(chats[3 * number + 1], [failed("first", code)], "{name}");
        let day = oracle.tables.usage_stats.values().next().unwrap();
        assert_eq!((day.failed_calls, day.successful_calls), (number as i64 + 1, 2 * number as i64 + 2), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn answers_that_fail_open_the_circuit_breaker() -> anyhow::Result<()> {
    let routed = Routed::start(BOTH).await?;
    routed.first.respond_with(|_| Script::json(StatusCode::OK, r#"{"error":{"message":"no capacity left"}}"#));
    for _ in 0..5 {
        routed.chat("m").await?.error_for_status()?.text().await?;
    }
    logged(&routed.gateway, "circuit breaker open").await?;
    Ok(())
}

#[tokio::test]
async fn comments_reach_the_client_before_the_first_event() -> anyhow::Result<()> {
    let routed = Routed::start(BOTH).await?;
    let gate = Gate::new();
    let pieces = [": loading\n\n".to_owned(), "data: {\"choices\":[]}\n\n".to_owned(), "data: [DONE]\n\n".to_owned()];
    routed.first.respond_next(Script::stream(pieces).after(1, Step::Wait(gate.clone())));
    let mut answer = routed.chat("m").await?;
    assert_eq!(timeout(PATIENCE, answer.chunk()).await??.as_deref(), Some(b": loading\n\n".as_slice()));
    gate.open();
    assert!(answer.text().await?.ends_with("[DONE]\n\n"));
    Ok(())
}

#[tokio::test]
async fn a_request_without_a_head_in_time_is_not_sent_again() -> anyhow::Result<()> {
    let routed = Routed::start(&BOTH.replace("[[routes]]", "[[routes]]\nretry_within = \"1h\"")).await?;
    let slow =
        text(&routed.first, &routed.second, BOTH).replacen("list_models", "head_timeout = \"300ms\"\nlist_models", 1);
    std::fs::write(&routed.file, slow)?;
    routed.gateway.process().signal(Signal::HUP);
    logged(&routed.gateway, "the routes are in force").await?;
    routed.first.respond_with(|_| Script::new(StatusCode::OK).before(Step::Hang));
    let response = routed.chat("m").await?;
    assert_eq!(
        (response.status(), &response.headers()["x-should-retry"]),
        (StatusCode::GATEWAY_TIMEOUT, &"false".parse()?)
    );
    assert_eq!(response.json::<Value>().await?["error"]["code"], "upstream_head_timeout");
    assert_eq!(
        routed.first.chats().len() + routed.second.chats().len(),
        1,
        "the upstream may be working on the request"
    );
    Ok(())
}

#[tokio::test]
async fn a_short_retry_after_is_waited_for_and_a_broken_connection_is_tried_again() -> anyhow::Result<()> {
    let routed = Routed::start(&BOTH.replace(", \"second\"", "")).await?;
    let limited = Script::error(&ApiError::rate_limited()).header(HeaderName::from_static("retry-after-ms"), "20");
    routed.first.respond_next(limited);
    assert_eq!(routed.chat("m").await?.text().await?.matches("[DONE]").count(), 1);
    assert_eq!(routed.attempts().await?, [tried("first", 429), tried("first", 200)]);
    routed.first.respond_next(Script::new(StatusCode::OK).before(Step::Cut));
    assert_eq!(routed.chat("m").await?.text().await?.matches("[DONE]").count(), 1);
    let oracle = routed.settled().await?;
    let last = endings(&oracle).last().unwrap();
    assert_eq!(last[0].error.as_deref(), Some("upstream_broken"));
    assert_eq!(last.last().unwrap().status, Some(200));
    Ok(())
}

#[tokio::test]
async fn if_all_upstreams_fail_the_client_gets_the_last_error() -> anyhow::Result<()> {
    let routed = Routed::start(BOTH).await?;
    routed.first.respond_with(|_| unwell());
    let refusal = ApiError::rate_limited();
    let script = Script::error(&refusal).header(RETRY_AFTER, "3600");
    routed.second.respond_with(move |_| script.clone());
    let begun = std::time::Instant::now();
    let response = routed.chat("m").await?;
    assert!(begun.elapsed() < Duration::from_secs(1800), "the gateway must not wait an hour for a retry");
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "3600");
    assert_eq!(response.bytes().await?, refusal.body(), "the bytes received differ from the bytes sent");
    assert_eq!(routed.attempts().await?, [tried("first", 500), tried("first", 500), tried("second", 429)]);
    let oracle = routed.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().next().unwrap().failed_calls, 1);
    Ok(())
}

#[tokio::test]
async fn each_upstream_gets_its_own_settings() -> anyhow::Result<()> {
    let routes = "[[routes]]\nmodels = [\"m\"]\nupstreams = [{ name = \"second\", model = \"there\" }]\n\n\
                  [[routes]]\nmodels = [\"scripted-*\"]\nupstreams = [\"first\"]\n";
    let routed = Routed::start(routes).await?;
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": true, "seed": 1.0});
    // The response is read to the end, which the client gets only after the end event is recorded.
    routed.post("/v1/chat/completions", &body).await?.error_for_status()?.text().await?;
    let sent = routed.second.chat(1).await;
    assert_eq!(sent.headers["x-tenant"], "t-1");
    let there: Value = serde_json::from_slice(&sent.body)?;
    assert_eq!(there["model"], "there");
    assert!(there.get("stream_options").is_none(), "the upstream must not be asked for usage: {there}");

    let unknown = routed.chat("no-such-model").await?;
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await?["error"]["code"], "model_not_found");

    let request = harness::http::client().get(routed.gateway.url("/v1/models")).bearer_auth(&routed.ann.token);
    let list: Value = request.send().await?.json().await?;
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["m", "scripted-1"],
        "expected the models named in routes, and the upstreams' models that match a pattern"
    );

    let oracle = routed.settled().await?;
    assert_eq!(oracle.tables.chats.len(), 1, "a request for an unknown model must not be recorded as a chat");
    let chat = oracle.tables.chats.values().next().unwrap();
    assert_eq!(chat.model, "m", "the record must have the model name that the client used");
    Ok(())
}

#[tokio::test]
async fn are_reloaded_while_streams_continue() -> anyhow::Result<()> {
    let routed = Routed::start(BOTH).await?;
    let gate = Gate::new();
    let piece =
        |text: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    let pieces = [piece("a"), piece("b"), "data: [DONE]\n\n".to_owned()];
    routed.first.respond_next(Script::stream(pieces).after(1, Step::Wait(gate.clone())));
    let mut running = routed.chat("m").await?;
    assert!(running.chunk().await?.is_some());

    // A reload with an invalid file keeps the routes in force.
    std::fs::write(&routed.file, "[[routes]]\nmodels = 7\n")?;
    routed.gateway.process().signal(Signal::HUP);
    logged(&routed.gateway, "routes.toml:2").await?;
    routed.chat("m").await?.error_for_status()?.text().await?;

    let moved = "[[routes]]\nmodels = [\"n\"]\nupstreams = [\"second\"]\n";
    std::fs::write(&routed.file, text(&routed.first, &routed.second, moved))?;
    routed.gateway.process().signal(Signal::HUP);
    logged(&routed.gateway, "the routes are in force").await?;
    assert_eq!(routed.chat("m").await?.status(), 404);
    routed.chat("n").await?.error_for_status()?.text().await?;

    gate.open();
    let rest = running.text().await?;
    assert_eq!(streamed_text(&rest), "b", "the reload must not disturb the open stream");
    assert!(rest.ends_with("[DONE]\n\n"));
    routed.settled().await?;
    Ok(())
}

#[tokio::test]
async fn a_configuration_can_be_checked() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let routes = dir.path().join("routes.toml");
    let keys = dir.path().join("jwks.json");
    std::fs::write(
        &keys,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    )?;
    let check = |text: &str| -> anyhow::Result<(Option<i32>, String)> {
        std::fs::write(&routes, text)?;
        let output = std::process::Command::new(harness::program::built("gateway")?)
            .arg("check-config")
            .env("TOKEN_KEYS_FILE", &keys)
            .env("CONVERSATION_KEYS", "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
            .env("GATEWAY_ROUTES_FILE", &routes)
            .env("GATEWAY_DATA_DIR", dir.path().join("data"))
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(said)?))
    };
    let good =
        "[upstreams.a]\nbase_url = \"http://127.0.0.1:1/v1\"\n[[routes]]\nmodels = [\"m\"]\nupstreams = [\"a\"]\n";
    assert_eq!(check(good)?, (Some(0), "the configuration is good: 1 routes, 1 upstreams\n".to_owned()));
    let (code, said) = check(&good.replace("[\"a\"]", "[\"b\"]"))?;
    assert_eq!(code, Some(64));
    assert!(said.contains("routes.toml:5: upstream \"b\" is not defined"), "{said}");
    Ok(())
}

/// Waits until the gateway's log has a line with these words.
async fn logged(gateway: &Gateway, words: &str) -> anyhow::Result<()> {
    let waiting = async {
        while !std::fs::read_to_string(gateway.process().log())?.contains(words) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, waiting).await?
}
