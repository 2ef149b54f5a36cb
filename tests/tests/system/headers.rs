//! Headers in both directions, framing, and the provider's secrets in errors: what passes the gateway, and what stops.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use harness::upstream::{RawUpstream, Script, answer};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use serde_json::{Value, json};
use shared::event::Event;
use tests::stack::{MODEL, Stack, User};

fn question() -> Value {
    json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "x"}]})
}

#[tokio::test]
async fn an_answer_leaves_without_headers_that_act_on_proxies_and_browsers() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let acting = [
        "x-accel-redirect",
        "x-sendfile",
        "set-cookie",
        "clear-site-data",
        "refresh",
        "link",
        "nel",
        "report-to",
        "service-worker-allowed",
        "openai-organization",
    ];
    let passing =
        ["x-ratelimit-remaining-tokens", "openai-processing-ms", "anthropic-ratelimit-tokens-reset", "retry-after"];
    stack.upstream.respond_with(move |request| {
        let mut script = answer(request, "fine").header(HeaderName::from_static("cache-control"), "public, max-age=60");
        for name in acting.iter().chain(&passing) {
            script.headers.insert(HeaderName::from_static(name), HeaderValue::from_static("7"));
        }
        script
    });
    for stream in [true, false] {
        let mut body = question();
        body["stream"] = stream.into();
        let response = stack.post("/v1/chat/completions").bearer_auth(&ann.token).json(&body).send().await?;
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        for name in acting {
            assert!(!headers.contains_key(name), "{name} passes, stream: {stream}");
        }
        for name in passing {
            assert_eq!(headers[name], "7", "{name}, stream: {stream}");
        }
        assert!(headers.get("cache-control").is_none_or(|value| value == "no-cache"), "{headers:?}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["content-security-policy"], "default-src 'none'; sandbox");
        response.bytes().await?;
    }
    Ok(())
}

#[tokio::test]
async fn credentials_billing_and_what_proxies_add_do_not_reach_the_upstream() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("routes.toml");
    let upstream = format!("[upstreams.a]\nbase_url = \"{}\"\nkey_from = \"KEY\"\n", stack.upstream.base_url());
    let routes = "[[routes]]\nmodels = [\"billed\"]\nupstreams = [\"a\"]\npass_billing_headers = true\n\n\
                  [[routes]]\nmodels = [\"*\"]\nupstreams = [\"a\"]\n";
    std::fs::write(&file, format!("{upstream}{routes}"))?;
    let gateway = stack
        .another_gateway(|settings| {
            settings.more.push(("GATEWAY_ROUTES_FILE".into(), file.display().to_string()));
            settings.more.push(("KEY".into(), stack.upstream.key().into()));
        })
        .await?;
    let billing = ["openai-organization", "openai-project"];
    let stopping = [
        "api-key",
        "x-real-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "via",
        "x-auth-request-email",
        "x-amzn-trace-id",
        "x-goog-authenticated-user-email",
        "dpop",
        "cf-access-jwt-assertion",
        "x-forwarded-for",
    ];
    let passing = ["x-stainless-retry-count", "x-unknown-to-us", "openai-beta", "anthropic-beta"];
    for (number, (model, bills)) in [("m", false), ("billed", true)].into_iter().enumerate() {
        let mut request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&ann.token);
        for name in billing.iter().chain(&stopping).chain(&passing) {
            request = request.header(*name, "v");
        }
        let mut body = question();
        body["model"] = model.into();
        request.json(&body).send().await?.error_for_status()?.bytes().await?;
        let sent = stack.upstream.chat(number + 1).await;
        for name in stopping {
            assert!(!sent.headers.contains_key(name), "{name} reaches the upstream");
        }
        for name in passing {
            assert_eq!(sent.headers[name], "v", "{name}");
        }
        for name in billing {
            assert_eq!(sent.headers.contains_key(name), bills, "{model}: {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_with_two_framings_is_refused_and_recorded_as_broken() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let framings = [
        "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        "content-length: 2, 2\r\n\r\n{}",
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    ];
    let raw = RawUpstream::start(move |body| {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let framing = framings[body["seed"].as_u64().unwrap_or_default() as usize];
        Bytes::from(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{framing}"))
    })
    .await?;
    let gateway = stack.another_gateway(|settings| settings.llm_base_url = raw.base_url()).await?;
    for (seed, framing) in framings.into_iter().enumerate() {
        let mut body = question();
        body["seed"] = seed.into();
        let request = harness::http::client().post(gateway.url("/v1/chat/completions")).bearer_auth(&ann.token);
        let response = request.json(&body).send().await?;
        assert_eq!(response.status(), 502, "{framing:?}");
        assert_eq!(response.json::<Value>().await?["error"]["code"], "upstream_broken", "{framing:?}");
    }
    gateway.drained(Duration::from_secs(120)).await?;
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.usage_stats.values().next().unwrap().failed_calls, framings.len() as i64);
    Ok(())
}

#[tokio::test]
async fn a_request_has_exactly_one_host() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    for (hosts, expected) in
        [("", "400"), ("host: a\r\nhost: b\r\n", "400"), ("host: a\r\nhost: a\r\n", "400"), ("host: a\r\n", "200")]
    {
        let mut client = TcpStream::connect(stack.gateway.address())?;
        client.set_read_timeout(Some(Duration::from_secs(60)))?;
        client.write_all(format!("GET /health/live HTTP/1.1\r\n{hosts}connection: close\r\n\r\n").as_bytes())?;
        let mut response = String::new();
        client.read_to_string(&mut response)?;
        assert!(response.starts_with(&format!("HTTP/1.1 {expected} ")), "{hosts:?}: {response}");
    }
    Ok(())
}

#[tokio::test]
async fn a_list_of_models_is_never_a_page() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    for status in ["200 OK", "404 Not Found", "500 Internal Server Error"] {
        let raw = RawUpstream::start(move |_| {
            let page = "<script>fetch('/api/conversations')</script>";
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
            Bytes::from(head + page)
        })
        .await?;
        let dir = tempfile::tempdir()?;
        let gateway = stack.another_gateway(|settings| {
            settings.llm_base_url = raw.base_url();
            settings.data_dir = dir.path().join("data");
            settings.instance = format!("lists-{}", &status[..3]);
        });
        let gateway = gateway.await?;
        for path in ["/v1/models", "/v1/models/m"] {
            let response = harness::http::client().get(gateway.url(path)).bearer_auth(&ann.token).send().await?;
            assert_eq!(response.headers()["content-type"], "application/json", "{status} {path}");
            assert_eq!(response.status(), 502, "{status} {path}");
            assert!(!response.text().await?.contains("<script>"), "{status} {path}");
        }
    }
    Ok(())
}

/// Sends a chat, and returns the bytes of the answer.
fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes)?;
    packed.finish()
}

async fn answer_to(stack: &Stack, ann: &User, script: Script) -> anyhow::Result<String> {
    stack.upstream.respond_next(script);
    let response = stack.post("/v1/chat/completions").bearer_auth(&ann.token).json(&question()).send().await?;
    Ok(response.text().await?)
}

#[tokio::test]
async fn the_providers_secrets_are_in_no_error_and_in_no_record() -> anyhow::Result<()> {
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let key = stack.upstream.key().to_owned();
    let organization = "org-4nT8sKq2LwRm";
    let masked = format!("{}********{}", &key[..7], &key[key.len() - 4..]);
    let message = format!("the key {key} ({masked}) of organization {organization} may not do this");
    let expected = "the key [redacted] ([redacted]) of organization [redacted] may not do this";
    let error = json!({"error": {"message": message, "type": "invalid_request_error", "code": "no"}}).to_string();
    let event = format!("data: {error}\n\n");
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half\"}}]}\n\n";
    let scripts = [
        ("400", Script::json(StatusCode::BAD_REQUEST, error.clone())),
        ("403", Script::json(StatusCode::FORBIDDEN, error.clone())),
        ("501", Script::json(StatusCode::NOT_IMPLEMENTED, message.clone())),
        ("a document", Script::json(StatusCode::OK, error.clone())),
        ("a first event", Script::stream([event.clone()])),
        ("a later event", Script::stream([piece, &event].map(str::to_owned))),
        ("a cut event", Script::stream([piece, &event[..20], &event[20..60], &event[60..]].map(str::to_owned))),
    ];
    let count = scripts.len();
    // What cannot be read may hide a secret.
    let packed = gzip(error.as_bytes())?;
    for (encoding, body) in
        [("gzip, gzip", gzip(&packed)?), ("lzma", packed.clone()), ("gzip", error.clone().into_bytes())]
    {
        let script = Script::json(StatusCode::FORBIDDEN, body).header(CONTENT_ENCODING, encoding);
        stack.upstream.respond_next(script);
        let refused = stack.chat(&ann, "hello").send().await?;
        assert_eq!((refused.status(), refused.headers().get(CONTENT_ENCODING)), (StatusCode::FORBIDDEN, None));
        let body = refused.text().await?;
        assert!(body.contains("upstream_error_unreadable"), "{encoding}: {body}");
    }
    let script = Script::json(StatusCode::FORBIDDEN, packed).header(CONTENT_ENCODING, "gzip");
    assert!(answer_to(&stack, &ann, script).await?.contains(expected), "packed once");
    for (name, script) in scripts {
        let body = answer_to(&stack, &ann, script).await?;
        assert!(body.contains(expected), "{name}: {body}");
        for secret in [key.as_str(), &masked, organization] {
            assert!(!body.contains(secret), "{name}: {body}");
        }
    }
    let oracle = stack.settled().await?;
    let failures: Vec<_> = oracle
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ChatFailed(failed) => Some(&failed.error.message),
            _ => None,
        })
        .collect();
    assert_eq!(failures.len(), count + 4);
    let unreadable = failures.iter().filter(|message| message.contains("cannot read, so it is not passed on")).count();
    assert_eq!(unreadable, 3, "{failures:?}");
    assert_eq!(failures.iter().filter(|message| message.as_str() == expected).count(), count + 1, "{failures:?}");
    Ok(())
}
