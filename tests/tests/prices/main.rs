//! Compares costs with those of the Python package genai-prices, to the nano-dollar.
//!
//! The exchanges are recorded ones that lie beside the checkout (`../shared/corpus`). The gateway's fold reads the usage of each, the
//! recorder prices it, and a script prices the same exchange with the package, from the same price list. Skipped without the exchanges,
//! or where the package cannot be installed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use gateway::response::dialect::Fold;
use gateway::response::tap::{ExpectedBody, Tap, UsageChunkPolicy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::event::DialectName;
use shared::prices::{Cost, PriceBook, PricedCall, TokenCounts};
use shared::usage::UsageSource;
use time::OffsetDateTime;
use time::macros::datetime;

/// The time for which the exchanges are priced: after the latest change of prices in the embedded list.
const AT: OffsetDateTime = datetime!(2026-11-01 12:00 UTC);

/// The version of the Python package with the same price list as the recorder.
const PACKAGE: &str = "genai-prices==0.2.1";

#[derive(Deserialize)]
struct Meta {
    provider: String,
    model_requested: Option<String>,
    status: u16,
}

/// An exchange as the script reads it, and its cost.
#[derive(Serialize)]
struct Exchange {
    name: String,
    dialect: String,
    provider: String,
    answered_model: Option<String>,
    requested_model: String,
    usage: Value,
    at: String,
    nanodollars: Option<i64>,
}

/// The cost of an exchange as the package says.
#[derive(Deserialize)]
struct Answer {
    name: String,
    nanodollars: Option<i64>,
    error: Option<String>,
}

#[test]
fn costs_equal_those_of_the_python_package() {
    let checkout = harness::program::checkout();
    let corpus = checkout.join("../shared/corpus");
    if !corpus.is_dir() {
        println!("SKIPPED: no corpus of recorded exchanges beside the checkout");
        return;
    }
    let venv = Command::new(checkout.join("tests/clients/venv.sh")).args(["prices-venv", PACKAGE]).output().unwrap();
    if venv.status.code() == Some(77) {
        println!("SKIPPED: {PACKAGE} cannot be installed here");
        return;
    }
    assert!(venv.status.success(), "{}", String::from_utf8_lossy(&venv.stderr));
    let python = PathBuf::from(String::from_utf8(venv.stdout).unwrap().trim());

    let exchanges: Vec<Exchange> = [
        ("openai-chat", DialectName::OpenaiChat),
        ("openai-responses", DialectName::OpenaiResponses),
        ("anthropic-messages", DialectName::AnthropicMessages),
    ]
    .into_iter()
    .flat_map(|(folder, dialect)| read_folder(&corpus.join(folder), folder, dialect))
    .collect();
    let answers = ask(&python, &checkout, &exchanges);

    let (mut priced, mut priced_by_package, mut wrong) = (0, 0, Vec::new());
    for (exchange, answer) in exchanges.iter().zip(&answers) {
        assert_eq!(exchange.name, answer.name);
        priced += usize::from(exchange.nanodollars.is_some());
        priced_by_package += usize::from(answer.nanodollars.is_some());
        if answer.nanodollars.is_some() && answer.nanodollars != exchange.nanodollars {
            let Exchange { name, provider, answered_model, usage, nanodollars, .. } = exchange;
            wrong.push(format!(
                "{name}: {nanodollars:?}, the package says {:?} for {provider} {answered_model:?} {usage}",
                answer.nanodollars
            ));
        }
    }
    let errors = answers.iter().filter(|answer| answer.error.is_some()).count();
    println!(
        "{} exchanges with usage: {priced} priced, {priced_by_package} by the package ({errors} errors)",
        exchanges.len()
    );
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(
        priced >= priced_by_package && priced_by_package > 0,
        "{priced} priced, {priced_by_package} by the package"
    );
}

/// Runs the script over all exchanges.
fn ask(python: &Path, checkout: &Path, exchanges: &[Exchange]) -> Vec<Answer> {
    let input = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&input, exchanges).unwrap();
    let output = Command::new(python)
        .arg(checkout.join("tests/tests/prices/genai_prices_costs.py"))
        .args([checkout.join("shared/data/genai-prices/prices.json").as_path(), input.path()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Reads the exchanges of a dialect that were answered with usage, and prices them.
fn read_folder(folder: &Path, dialect_name: &str, dialect: DialectName) -> Vec<Exchange> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| read(path, dialect_name, dialect)).collect()
}

fn read(path: &Path, dialect_name: &str, dialect: DialectName) -> Option<Exchange> {
    let file = |name: &str| std::fs::read(path.join(name)).unwrap();
    let meta: Meta = serde_json::from_slice(&file("meta.json")).unwrap();
    if meta.status >= 300 {
        return None;
    }
    let mut tap = Tap::new(Fold::new(dialect), ExpectedBody::Answer, UsageChunkPolicy::Forward);
    tap.feed(Bytes::from(file("response.body")));
    tap.finish();
    tap.release();
    while tap.next_chunk().is_some() {}
    let (transcript, usage) = tap.take_transcript();
    if usage.source != UsageSource::Reported {
        return None;
    }
    let raw: Value = serde_json::from_str(usage.raw.as_ref()?.get()).ok()?;
    let parts = usage.parts;
    let requested_model = meta.model_requested.unwrap_or_default();
    let call = PricedCall {
        upstream: &meta.provider,
        answered_model: transcript.model.as_deref(),
        requested_model: &requested_model,
        started_at: AT,
        tokens: Some(TokenCounts {
            uncached_input: parts.uncached_input,
            cache_read: parts.cache_read,
            cache_write: parts.cache_write,
            output: parts.output,
            reasoning: parts.reasoning,
        }),
        raw_usage: &raw,
        input_seconds: None,
    };
    let nanodollars = Cost::of_call(&call, &PriceBook::default()).map(|cost| cost.total());
    Some(Exchange {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        dialect: dialect_name.to_owned(),
        provider: meta.provider,
        answered_model: transcript.model,
        requested_model,
        usage: raw,
        at: AT.format(&time::format_description::well_known::Rfc3339).unwrap(),
        nanodollars,
    })
}
