//! Bad bodies at every endpoint that takes one: a clear error in the shape that the endpoint's clients read, nothing on the
//! record, and no request at the upstream.

mod forms;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::stack::{Stack, User};

/// The maximum size of a body in these tests, in bytes.
const MAX_BYTES: usize = 10_000;

/// The shape of an endpoint's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Openai,
    Anthropic,
    Google,
}

/// An endpoint that takes a JSON object.
struct JsonEndpoint {
    path: &'static str,
    shape: Shape,
    /// A good body.
    good: Value,
    /// Members with values of a wrong type, and the beginning of the error.
    wrong: Vec<(&'static str, Value, &'static str)>,
    /// Members without which the request is refused.
    required: &'static [&'static str],
}

fn json_endpoint(path: &'static str, shape: Shape, good: Value) -> JsonEndpoint {
    JsonEndpoint { path, shape, good, wrong: Vec::new(), required: &[] }
}

impl JsonEndpoint {
    /// A member that the request needs, with a value of a wrong type, and the error for it.
    fn wrong(mut self, member: &'static str, value: Value, message: &'static str) -> Self {
        self.wrong.push((member, value, message));
        self
    }

    fn requires(mut self, required: &'static [&'static str]) -> Self {
        self.required = required;
        self
    }
}

fn chat(path: &'static str, shape: Shape, messages: &'static str) -> JsonEndpoint {
    let mut good = json!({"model": "m", "max_tokens": 9});
    good[messages] = json!([{"role": "user", "content": "x"}]);
    let chat = json_endpoint(path, shape, good);
    let is_list = messages == "messages";
    let chat = if is_list { chat.wrong(messages, json!({}), "messages: expected a list") } else { chat };
    chat.wrong("model", json!(7), "model: expected").wrong("model", json!(""), "model: expected").wrong(
        "stream",
        json!("yes"),
        "stream: expected true or false",
    )
}

/// All endpoints of the gateway that take a JSON object.
fn json_endpoints() -> Vec<JsonEndpoint> {
    use Shape::{Anthropic, Google, Openai};
    let mut all = vec![
        chat("/api/chat", Openai, "messages").requires(&["messages"]),
        chat("/v1/chat/completions", Openai, "messages").requires(&["messages", "model"]),
        chat("/openai/v1/chat/completions", Openai, "messages").requires(&["messages", "model"]),
        chat("/v1/messages", Anthropic, "messages").requires(&["messages", "model"]),
        chat("/v1/responses", Openai, "input").requires(&["model"]),
        chat("/openai/v1/responses", Openai, "input").requires(&["model"]),
        chat("/openai/responses", Openai, "input").requires(&["model"]),
    ];
    let mut deployment = chat("/openai/deployments/m/chat/completions", Openai, "messages").requires(&["messages"]);
    // The path names the model.
    deployment.wrong.retain(|(member, ..)| *member != "model");
    all.push(deployment);
    let contents = || json!({"contents": [{"parts": [{"text": "x"}]}]});
    for path in [
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "/v1beta/models/m:streamGenerateContent",
        "/v1/models/m:generateContent",
    ] {
        all.push(
            json_endpoint(path, Google, contents())
                .wrong("contents", json!("x"), "contents: expected a list")
                .requires(&["contents"]),
        );
    }
    for path in ["/v1beta/models/m:countTokens", "/v1/models/m:countTokens"] {
        all.push(json_endpoint(path, Google, contents()));
    }
    all.push(json_endpoint("/v1/messages/count_tokens", Anthropic, json!({"model": "m", "messages": []})));
    for path in ["/v1/responses/input_tokens", "/openai/v1/responses/input_tokens", "/openai/responses/input_tokens"] {
        all.push(json_endpoint(path, Openai, json!({"model": "m", "input": "x"})));
    }
    all.push(
        json_endpoint("/v1beta/models/m:embedContent", Google, json!({"content": {"parts": []}}))
            .wrong("content", json!("x"), "content: expected an object")
            .requires(&["content"]),
    );
    all.push(
        json_endpoint("/v1beta/models/m:batchEmbedContents", Google, json!({"requests": [{}]}))
            .wrong("requests", json!({}), "requests: expected a list")
            .requires(&["requests"]),
    );
    // A path below the version, a good body without a model, the member of the input with a value of a wrong type, and the
    // error for it.
    let calls = [
        ("/completions", json!({"prompt": "x"}), "stream", json!(1), "stream: expected true or false"),
        ("/embeddings", json!({"input": "x"}), "input", json!(7), "input: expected a text or a list"),
        ("/moderations", json!({"input": "x"}), "input", json!(true), "input: expected a text or a list"),
        ("/rerank", json!({"query": "q", "documents": ["d"]}), "documents", json!("d"), "documents: expected a list"),
        ("/images/generations", json!({"prompt": "x"}), "prompt", json!(["x"]), "prompt: expected a text"),
        ("/audio/speech", json!({"input": "x", "voice": "v"}), "input", json!({}), "input: expected a text"),
    ];
    for (path, good, member, value, message) in calls {
        let required: &'static [&'static str] = if path == "/completions" { &[] } else { leaked(member) };
        for prefix in ["/v1", "/openai/v1", "/openai/deployments/m"] {
            let path: &'static str = Box::leak(format!("{prefix}{path}").into_boxed_str());
            let mut good = good.clone();
            good["model"] = json!("m");
            let mut endpoint =
                json_endpoint(path, Openai, good).wrong(member, value.clone(), message).requires(required);
            if !prefix.ends_with("/m") {
                endpoint = endpoint.wrong("model", json!([]), "model: expected");
            }
            all.push(endpoint.wrong("temperature", json!("hot"), "temperature: expected a number"));
        }
    }
    all.push(
        json_endpoint("/v2/rerank", Openai, json!({"model": "m", "query": "q", "documents": []}))
            .requires(&["model", "documents"]),
    );
    for path in ["/v1/responses/compact", "/openai/v1/responses/compact", "/openai/responses/compact"] {
        all.push(json_endpoint(path, Openai, json!({"model": "m", "input": []})).requires(&["model"]));
    }
    all.push(
        json_endpoint("/api/conversations", Openai, json!({"title": "t"}))
            .wrong("title", json!(7), "expected an object with title")
            .wrong("temperature", json!("hot"), "expected an object with title"),
    );
    all
}

/// A list of one name that lives as long as the tests.
fn leaked(name: &'static str) -> &'static [&'static str] {
    Box::leak(Box::new([name]))
}

/// A bad body: what is wrong, the headers beside the token, the body, the status, and a part of the error.
struct BadBody {
    name: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
    message: &'static str,
}

fn bad(name: &str, body: impl Into<Vec<u8>>, status: u16, message: &'static str) -> BadBody {
    let headers = vec![("content-type", "application/json")];
    BadBody { name: name.to_owned(), headers, body: body.into(), status, message }
}

/// Bodies that are bad at every endpoint that takes a JSON object.
fn bad_json(endpoint: &JsonEndpoint) -> Vec<BadBody> {
    let good = endpoint.good.to_string();
    let mut all = vec![
        bad("a cut object", good.as_bytes()[..good.len() - 1].to_vec(), 400, ""),
        bad("a list", format!("[{good}]"), 400, "expected a"),
        bad("a list of texts", r#"["x"]"#, 400, "expected a"),
        bad("a number", "7", 400, "expected a"),
        bad("a text", "\"x\"", 400, "expected a"),
        bad("no JSON", "model=m&input=x", 400, "expected a"),
        bad("two objects", format!("{good}{good}"), 400, ""),
        bad("bytes that are not UTF-8", b"\xff\xfe{\x00}\x00".to_vec(), 400, ""),
        bad(
            "a body that is too large",
            format!("{{\"x\":\"{}\"}}", "x".repeat(2 * MAX_BYTES)),
            413,
            "larger than 10000 bytes",
        ),
    ];
    // A conversation needs no members, and so no body.
    if endpoint.path != "/api/conversations" {
        all.push(bad("an empty body", "", 400, "expected a"));
        all.push(bad("a null", "null", 400, "expected a"));
    }
    for (name, headers, status, message) in [
        ("no content type", vec![], 415, "application/json"),
        ("a text", vec![("content-type", "text/plain")], 415, "application/json"),
        ("a form", vec![("content-type", "multipart/form-data; boundary=b")], 415, "application/json"),
        ("a type that is none", vec![("content-type", "json")], 415, "application/json"),
        (
            "an unknown encoding",
            vec![("content-type", "application/json"), ("content-encoding", "rot13")],
            415,
            "rot13",
        ),
        ("a wrong encoding", vec![("content-type", "application/json"), ("content-encoding", "gzip")], 400, ""),
    ] {
        all.push(BadBody { headers, ..bad(name, good.as_bytes(), status, message) });
    }
    for (member, value, message) in &endpoint.wrong {
        let mut body = endpoint.good.clone();
        body[*member] = value.clone();
        all.push(bad(&format!("{member}: {value}"), body.to_string(), 400, message));
    }
    for member in endpoint.required {
        for value in [None, Some(Value::Null)] {
            let mut body = endpoint.good.clone();
            let Some(members) = body.as_object_mut() else { continue };
            members.shift_remove(*member);
            if let Some(null) = value {
                members.insert((*member).to_owned(), null);
            }
            all.push(bad(&format!("without {member}"), body.to_string(), 400, member));
        }
    }
    all
}

/// Checks that a good body without a token is refused as the clients of the endpoint expect.
async fn check_without_token(stack: &Stack, endpoint: &JsonEndpoint) -> anyhow::Result<()> {
    let response = stack.post(endpoint.path).json(&endpoint.good).send().await?;
    let (status, answer) = (response.status().as_u16(), response.json::<Value>().await?);
    let word = match endpoint.shape {
        Shape::Openai | Shape::Anthropic => answer["error"]["type"] == "authentication_error",
        Shape::Google => answer["error"]["status"] == "UNAUTHENTICATED",
    };
    ensure!(status == 401 && word, "{} without a token: {status} {answer}", endpoint.path);
    Ok(())
}

/// Sends a bad body, and checks the error.
async fn check(stack: &Stack, user: &User, path: &str, shape: Shape, bad: BadBody) -> anyhow::Result<()> {
    check_request(stack.post(path).bearer_auth(&user.token), path, shape, bad).await
}

/// Sends a bad body with this request, and checks the error.
async fn check_request(mut request: RequestBuilder, path: &str, shape: Shape, bad: BadBody) -> anyhow::Result<()> {
    let what = format!("{path}, {}", bad.name);
    for (name, value) in bad.headers {
        request = request.header(name, value);
    }
    let response = request.body(bad.body).send().await.with_context(|| what.clone())?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    ensure!(status == bad.status, "{what}: expected {}, got {status} {text}", bad.status);
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("{what}: {text}"))?;
    let error = &answer["error"];
    let message = error["message"].as_str().unwrap_or_default();
    ensure!(message.len() > 9 && message.contains(bad.message), "{what}: expected {:?}, got {text}", bad.message);
    let has_shape = match shape {
        Shape::Openai => {
            error["type"] == "invalid_request_error" && error.get("param").is_some() && error.get("code").is_some()
        }
        Shape::Anthropic => answer["type"] == "error" && error["type"].is_string() && error.get("param").is_none(),
        Shape::Google => error["code"] == status && error["status"] == "INVALID_ARGUMENT",
    };
    ensure!(has_shape, "{what}: {text}");
    Ok(())
}

/// Checks that nothing that was sent is on the record or at the upstream, and that the gateway goes on.
async fn check_nothing_happened(stack: &Stack, user: &User) -> anyhow::Result<()> {
    assert_eq!((stack.events().await?, stack.upstream.chats().len()), (0, 0));
    stack.finished_chat(user, "still serving").await?;
    assert_eq!(stack.settled().await?.tables.chats.len(), 1);
    Ok(())
}

async fn stack() -> anyhow::Result<Stack> {
    Stack::with_gateway(&[("GATEWAY_MAX_BODY_BYTES", "10000")]).await
}

#[tokio::test]
async fn bad_json_is_refused_at_every_endpoint() -> anyhow::Result<()> {
    let stack = stack().await?;
    let ann = stack.user("ann").await?;
    let mut failed = Vec::new();
    for endpoint in json_endpoints() {
        if let Err(error) = check_without_token(&stack, &endpoint).await {
            failed.push(format!("{error:#}"));
        }
        for bad in bad_json(&endpoint) {
            if let Err(error) = check(&stack, &ann, endpoint.path, endpoint.shape, bad).await {
                failed.push(format!("{error:#}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    check_nothing_happened(&stack, &ann).await
}

#[tokio::test]
async fn bad_changes_of_a_conversation_are_refused() -> anyhow::Result<()> {
    let stack = stack().await?;
    let ann = stack.user("ann").await?;
    let made = stack.post("/api/conversations").bearer_auth(&ann.token).json(&json!({"title": "t"})).send().await?;
    let id = made.error_for_status()?.json::<Value>().await?["id"].as_str().context("no id")?.to_owned();
    let path: &'static str = Box::leak(format!("/api/conversations/{id}").into_boxed_str());
    let patch = || stack.request(Method::PATCH, path);
    let long = "x".repeat(201);
    let endpoint = json_endpoint(path, Shape::Openai, json!({"title": "new", "archived": true}))
        .wrong("title", json!(7), "expected an object with title")
        .wrong("title", json!(["new"]), "expected an object with title")
        .wrong("title", json!(" \u{7}"), "title: expected 1 to 200 characters")
        .wrong("title", json!(long), "title: expected 1 to 200 characters")
        .wrong("archived", json!("yes"), "expected an object with title");
    let mut bodies = bad_json(&endpoint);
    bodies.push(bad("an empty object", "{}", 400, "expected title, archived, or both"));
    bodies.push(bad("unknown members alone", r#"{"name":"x"}"#, 400, "expected title, archived, or both"));
    bodies.push(bad("a list of the members' values", r#"["new",true]"#, 400, "expected an object with title"));
    let mut failed = Vec::new();
    for bad in bodies {
        if let Err(error) = check_request(patch().bearer_auth(&ann.token), path, endpoint.shape, bad).await {
            failed.push(format!("{error:#}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(patch().json(&endpoint.good).send().await?.status(), 401);
    assert_eq!(stack.events().await?, 1);
    let tables = stack.settled().await?.tables;
    assert_eq!(tables.conversations.len(), 1);
    assert!(tables.conversations.values().all(|known| known.archive.is_none()));
    Ok(())
}

/// Bodies that end before their announced length: the client has gone, and gets no answer or one that names the body.
#[tokio::test]
async fn bodies_that_are_cut_off_leave_nothing() -> anyhow::Result<()> {
    let stack = stack().await?;
    let ann = stack.user("ann").await?;
    let forms = ["/v1/audio/transcriptions", "/v1/images/edits"].map(|path| (path, "multipart/form-data; boundary=b"));
    let endpoints = json_endpoints();
    let json = endpoints.iter().map(|endpoint| (endpoint.path, "application/json"));
    for (path, media_type) in json.chain(forms) {
        let (address, token) = (stack.gateway.url("").trim_start_matches("http://").to_owned(), ann.token.clone());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: {media_type}\r\n\
             content-length: 999\r\n\r\n{{\"model\":"
        );
        let answer = tokio::task::spawn_blocking(move || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.write_all(head.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.await?.with_context(|| path.to_owned())?;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    check_nothing_happened(&stack, &ann).await
}

/// Endpoints that need no body read none, whatever it is.
#[tokio::test]
async fn endpoints_without_a_body_ignore_one() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[("GATEWAY_MAX_BODY_BYTES", "10000")], &[]).await?;
    let ann = stack.user("ann").await?;
    let chat = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (path, status) in [
        (format!("/api/chats/{chat}/stop"), 404),
        ("/api/chats/none/stop".to_owned(), 404),
        ("/v1/responses/resp_none/cancel".to_owned(), 404),
        ("/v1/files".to_owned(), 403),
        ("/v1/batches/none/cancel".to_owned(), 403),
        ("/v1/nothing".to_owned(), 404),
        ("/v1beta/models/m:unknownMethod".to_owned(), 404),
    ] {
        for body in [Vec::new(), b"{".to_vec(), b"\xff".to_vec(), vec![b'x'; 2 * MAX_BYTES]] {
            let request = stack.post(&path).bearer_auth(&ann.token).header("content-type", "application/json");
            let response = request.body(body.clone()).send().await?;
            assert_eq!(response.status(), status, "{path}, {} bytes", body.len());
            let error: Value = response.json().await?;
            assert!(error["error"]["message"].is_string(), "{path}: {error}");
        }
    }
    check_nothing_happened(&stack, &ann).await
}
