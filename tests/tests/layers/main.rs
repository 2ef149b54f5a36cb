//! Who may name whom. A rule that nothing checks is a wish.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::path::{Path, PathBuf};

fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// No file of `modules` (each a file, with the directory of the same name) in `krate` names any of `words` as a path.
fn never(krate: &str, modules: &[&str], words: &[&str]) {
    let source = tests::program::checkout().join(krate).join("src");
    let files = sources(&source);
    assert!(!files.is_empty());
    let mut seen = 0;
    for (path, text) in files {
        let inner = path.strip_prefix(&source).unwrap().with_extension("");
        let first = inner.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        if !modules.is_empty() && !modules.contains(&first.as_str()) {
            continue;
        }
        seen += 1;
        // Its tests are nobody's layer.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in words {
                let names = line.contains(&format!("{word}::")) || line.contains(&format!("use {word};"));
                assert!(!names, "{}:{}: must not name {word}", path.display(), number + 1);
            }
        }
    }
    assert!(seen >= modules.len().max(1), "some of {modules:?} is not there");
}

#[test]
fn the_gateway_has_no_database_and_knows_no_recorder() {
    never("gateway", &[], &["sqlx", "recorder"]);
    let manifest = std::fs::read_to_string(tests::program::checkout().join("gateway/Cargo.toml")).unwrap();
    assert!(!manifest.contains("sqlx") && !manifest.contains("recorder"));
}

#[test]
fn the_recorder_knows_no_gateway() {
    never("recorder", &[], &["gateway"]);
}

#[test]
fn pure_modules_stay_pure() {
    let io = ["tokio", "axum", "hyper", "async_nats", "sqlx", "std::net", "std::fs", "std::time", "tracing"];
    let gateway = [
        "request",
        "conversation_id",
        "thread",
        "kept",
        "sse",
        "loose",
        "transcript",
        "decode",
        "dialect",
        "tap",
        "estimate",
    ];
    never("gateway", &gateway, &io);
    // These are told the time: they may hold it, but not ask for it.
    let io =
        ["tokio", "axum", "hyper", "async_nats", "sqlx", "std::net", "std::fs", "Instant", "SystemTime", "tracing"];
    never(
        "gateway",
        &["routing", "retry", "breaker", "rewrite", "caller_metadata", "usage_refusal", "ui_message", "ui_stream"],
        &io,
    );
    let io = ["tokio", "axum", "async_nats", "sqlx", "std::net", "std::fs", "std::time::SystemTime", "tracing"];
    never("recorder", &["projection", "vigil", "calendar", "cursor"], &io);
}

#[test]
fn the_recorders_pipeline_never_names_axum() {
    never(
        "recorder",
        &[
            "projection",
            "batch",
            "disposition",
            "source",
            "store",
            "record",
            "consume",
            "vigil",
            "watchdog",
            "orphans",
            "reproject",
            "rebuild",
            "verify",
            "accounts",
            "reads",
        ],
        &["axum"],
    );
}

#[test]
fn the_api_knows_no_broker() {
    never("recorder", &["api"], &["async_nats"]);
}

#[test]
fn shared_does_no_io_of_a_service() {
    never("shared", &[], &["axum", "hyper", "async_nats", "sqlx"]);
    // What both do over HTTP alike is following an identity provider's keys, and no more.
    let pure = ["id", "event", "usage", "body", "envelope", "lease", "stream", "subject", "address", "token", "config"];
    never("shared", &pure, &["reqwest", "tokio"]);
}

#[test]
fn pages_are_files_and_know_nothing_of_chats() {
    let ours =
        ["auth", "chat", "journal", "relay", "upstream", "answer", "open_chat"].map(|name| format!("crate::{name}"));
    let mut words: Vec<&str> = ours.iter().map(String::as_str).collect();
    words.extend(["async_nats", "hyper", "reqwest", "tokio"]);
    never("gateway", &["pages"], &words);
}
