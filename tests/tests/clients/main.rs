//! Third-party clients, each driven by a script in tests/clients that prints the client's observations. The observations have
//! to equal the record. Run by tests/clients/run.sh, which installs the clients.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod api;
mod calls;
mod upstream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use harness::upstream::MODEL;
use serde::Deserialize;
use serde_json::{Value, json};
use tests::oracle::Oracle;
use tests::stack::{Stack, User};
use upstream::{TEXT, Upstream};

/// Observations of a client in one case.
#[derive(Debug, Deserialize)]
struct ClientReport {
    client: String,
    case: String,
    text: String,
    tools: Vec<Value>,
    failed: bool,
    status: Option<u16>,
    /// The client's own words about the failure, for the output of the test.
    #[expect(dead_code, reason = "shown where a check fails")]
    error: Option<String>,
}

/// Expected results of a case: the states of the recorded chats, whether the client observes a failure, and the status.
fn expected(case: &str) -> (&'static [&'static str], bool, Option<u16>) {
    match case {
        "unauthorized" => (&[], true, Some(401)),
        "limited" => (&["failed"], true, Some(429)),
        "retried" => (&["failed", "completed"], false, None),
        "error-in-stream" | "cut" => (&["failed"], true, None),
        "models" | "count" => (&[], false, None),
        _ => (&["completed"], false, None),
    }
}

const EVERYONE: [&str; 10] = [
    "stream",
    "whole",
    "tools-stream",
    "tools",
    "unauthorized",
    "limited",
    "retried",
    "error-in-stream",
    "cut",
    "abort",
];

/// A client.
struct Client {
    name: &'static str,
    script: &'static str,
    /// The cases beyond the common cases.
    more: &'static [&'static str],
    /// The common cases that the client cannot try.
    without: &'static [&'static str],
}

const fn client(name: &'static str, script: &'static str, more: &'static [&'static str]) -> Client {
    Client { name, script, more, without: &[] }
}

/// The cases of OpenAI's own clients beyond the common cases.
const OPENAI: &[&str] = &[
    "responses-stream",
    "responses",
    "background",
    "models",
    "embeddings",
    "images",
    "image-edit",
    "speech",
    "transcription",
];

const CLIENTS: [Client; 11] = [
    client("openai-python", "openai_sdk.py", OPENAI),
    client("azure-python", "azure_sdk.py", &["models", "embeddings"]),
    client("openai-node", "openai-sdk.mjs", OPENAI),
    client("anthropic-python", "anthropic_sdk.py", &["count"]),
    client("google-python", "google_sdk.py", &["count", "embeddings"]),
    client("langchain-python", "langchain_sdk.py", &["embeddings"]),
    client("pydantic-ai-python", "pydantic_ai_sdk.py", &[]),
    // The number of tries cannot be set.
    Client { without: &["limited"], ..client("llm-python", "llm_models.py", &[]) },
    client("ai-sdk-4", "ai-sdk-4.mjs", &["embeddings"]),
    client("ai-sdk-7", "ai-sdk-7.mjs", &["embeddings"]),
    client("curl", "curl.sh", &[]),
];

/// Paths of the installed clients, and names of the clients to skip.
struct Installed {
    scripts: PathBuf,
    python: PathBuf,
    modules: PathBuf,
    skipped: Vec<String>,
}

impl Installed {
    fn read() -> anyhow::Result<Self> {
        let directory = std::env::var("CLIENTS_DIR").context("expected CLIENTS_DIR: run tests/clients/run.sh")?;
        let directory = Path::new(&directory);
        let skipped = std::env::var("CLIENTS_SKIPPED").unwrap_or_default();
        Ok(Self {
            scripts: harness::program::checkout().join("tests/clients"),
            python: directory.join("python/bin/python"),
            modules: directory.join("node/node_modules"),
            skipped: skipped.split_whitespace().map(str::to_owned).collect(),
        })
    }

    fn command(&self, script: &str) -> Command {
        let program = match Path::new(script).extension().and_then(std::ffi::OsStr::to_str) {
            Some("py") => self.python.clone(),
            Some("mjs") => self.modules.join(".bin/node"),
            _ => PathBuf::from("bash"),
        };
        // `timeout` ends a client that hangs for 300 seconds.
        let mut command = Command::new("timeout");
        command.arg("300").arg(program);
        command.arg(self.scripts.join(script)).env("MODULES", &self.modules).env("AI_SDK", &self.modules);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

async fn run(mut command: Command, stack: &Stack, user: &User) -> anyhow::Result<String> {
    command.env("GATEWAY_URL", stack.gateway.url("")).env("TOKEN", &user.token);
    command.env("DEMO_TOKEN", &user.token).env("DEMO_MODEL", "stream");
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

#[tokio::test]
#[ignore = "needs the clients: tests/clients/run.sh installs them and runs this"]
async fn what_clients_saw_is_what_the_record_says() -> anyhow::Result<()> {
    let installed = Installed::read()?;
    let stack = Stack::with_gateway(&[]).await?;
    let ann = stack.user("ann").await?;
    let upstream = Arc::new(Upstream::default());
    stack.upstream.respond_with(move |request| upstream.answer(request));
    let (mut saw, mut ran) = (Vec::new(), Vec::new());
    for Client { name: client, script, more, without } in CLIENTS {
        if installed.skipped.iter().any(|skipped| skipped == client) {
            println!("{client}: SKIPPED, it could not be installed");
            continue;
        }
        let before = stack.upstream.chats().len();
        let said = run(installed.command(script), &stack, &ann).await.with_context(|| script.to_owned())?;
        let lines: Vec<ClientReport> =
            said.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(said.clone())?;
        let mut cases: Vec<&str> = lines.iter().map(|saw| saw.case.as_str()).collect();
        let mut wanted: Vec<&str> =
            EVERYONE.iter().filter(|case| !without.contains(case)).chain(more).copied().collect();
        cases.sort_unstable();
        wanted.sort_unstable();
        ensure!(cases == wanted, "{client} tried the cases {cases:?}, expected {wanted:?}");
        for chat in &stack.upstream.chats()[before..] {
            ensure!(upstream::came_through(&chat.headers, client), "{client}: {:?}", chat.headers);
            ensure!(!chat.headers.contains_key("x-stenograph-tags"), "the gateway must not forward x-stenograph-tags");
        }
        ran.push(client);
        saw.extend(lines);
    }
    let oracle = stack.settled().await?;
    for client in ran {
        let mine: Vec<_> = saw.iter().filter(|saw| saw.client == client).collect();
        for one in &mine {
            check(one, &oracle).with_context(|| format!("{one:?}"))?;
        }
        println!("{client}: {} cases, and the record says the same", mine.len());
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the clients: tests/clients/run.sh installs them and runs this"]
async fn use_chat_is_served_as_it_is() -> anyhow::Result<()> {
    let installed = Installed::read()?;
    if installed.skipped.iter().any(|skipped| skipped == "use-chat") {
        println!("use-chat: SKIPPED, it could not be installed");
        return Ok(());
    }
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    let upstream = Arc::new(Upstream::default());
    stack.upstream.respond_with(move |request| upstream.answer(request));
    print!("{}", run(installed.command("use-chat.mjs"), &stack, &ann).await?);
    let oracle = stack.settled().await?;
    assert_eq!(oracle.tables.conversations.len(), 1, "one thread must be one conversation");
    let answers: Vec<_> = oracle.tables.messages.values().filter(|message| message.role == "assistant").collect();
    assert_eq!(answers.len(), 3, "expected three answers: two turns, and one answer regenerated");
    assert!(answers.iter().all(|message| message.content == TEXT));
    Ok(())
}

#[tokio::test]
#[ignore = "needs the clients: tests/clients/run.sh installs them and runs this"]
async fn an_answer_is_resumed_by_the_ai_sdk_as_it_is() -> anyhow::Result<()> {
    let installed = Installed::read()?;
    if installed.skipped.iter().any(|skipped| skipped == "use-chat") {
        println!("resume-chat: SKIPPED, it could not be installed");
        return Ok(());
    }
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    let upstream = Arc::new(Upstream::default());
    stack.upstream.respond_with(move |request| upstream.answer(request));
    let output = run(installed.command("resume-chat.mjs"), &stack, &ann).await?;
    print!("{output}");
    let answer = output.lines().find_map(|line| line.strip_prefix("ANSWER ")).unwrap_or_default();
    assert_eq!(serde_json::from_str::<String>(answer)?, TEXT, "the client must end with the recorded answer");
    let oracle = stack.settled().await?;
    let answers: Vec<_> = oracle.tables.messages.values().filter(|message| message.role == "assistant").collect();
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].content.as_str(), answers[0].finish_reason.as_deref()), (TEXT, Some("stop")));
    Ok(())
}

/// Compares a client's observations with the record.
fn check(saw: &ClientReport, oracle: &Oracle) -> anyhow::Result<()> {
    let (states, fails, status) = expected(&saw.case);
    // Of an error within a stream, Google's client says the error's own code, and others a code of their own.
    let status = match (saw.client.as_str(), saw.case.as_str()) {
        ("google-python", "error-in-stream") => Some(503),
        ("pydantic-ai-python" | "ai-sdk-7", "error-in-stream") => Some(500),
        _ => status,
    };
    ensure!((saw.failed, saw.status) == (fails, status), "expected failure {fails} with status {status:?}");
    match saw.case.as_str() {
        "models" => ensure!(saw.text == MODEL),
        // The upstream's answers to the methods that count tokens.
        "count" if saw.client == "google-python" => ensure!(saw.text == "7"),
        "count" => ensure!(saw.text == "14"),
        "stream" | "whole" | "retried" | "responses" | "responses-stream" | "background" => {
            ensure!(saw.text == TEXT);
        }
        "error-in-stream" | "cut" => ensure!(saw.text == "half"),
        "abort" => ensure!(saw.text == "heard"),
        _ => {}
    }
    let tag = format!("{}:{}", saw.client, saw.case);
    let mut chats: BTreeMap<_, _> = BTreeMap::new();
    for chat in oracle.tables.chats.values() {
        let said = chat.request.as_ref().and_then(|request| request.caller_metadata.as_ref());
        let said: Value = said.map_or(Value::Null, |said| serde_json::from_str(said.as_str()).unwrap());
        if said["tags"] == json!([tag]) {
            chats.insert(chat.started_at, chat);
        }
    }
    let recorded: Vec<_> = chats.values().map(|chat| chat.status()).collect();
    ensure!(recorded == states, "the record says {recorded:?}");
    let Some(last) = chats.values().last() else { return Ok(()) };
    if let Some(operation) = calls::operation(&saw.case) {
        return calls::check(&saw.text, operation, last, &oracle.events);
    }
    let message = oracle.tables.messages.get(&last.chat_id.assistant_message());
    let text = message.map_or("", |message| message.content.as_str());
    ensure!(text == saw.text, "the record says {text:?}");
    let calls: Vec<Value> = match message.and_then(|message| message.tool_calls.as_ref()) {
        Some(calls) => serde_json::from_str(calls.as_str())?,
        None => Vec::new(),
    };
    let recorded: Vec<Value> = calls
        .iter()
        .map(|call| {
            let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap_or_default()).unwrap();
            json!({"id": call["id"], "name": call["name"], "arguments": arguments})
        })
        .collect();
    ensure!(recorded == saw.tools, "the record says {recorded:?}");
    if saw.case.starts_with("tools") {
        ensure!(
            saw.tools.len() == 1 && saw.tools[0]["arguments"] == serde_json::from_str::<Value>(upstream::ARGUMENTS)?
        );
    }
    if saw.case == "abort" {
        ensure!(message.and_then(|message| message.finish_reason.as_deref()) == Some("client_gone"));
    }
    Ok(())
}
