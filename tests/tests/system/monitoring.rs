//! Metrics and readiness tell within seconds that nothing is recorded, and go quiet when events are recorded again.

use std::time::Duration;

use anyhow::Context as _;
use harness::services::Service;
use shared::large_body::BUCKET;
use tests::stack::Stack;
use tokio::time::{Instant, sleep};

use crate::large_bodies::{publish_reference, put_body};

/// The limit of every wait. Each condition holds within seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The metrics of a service at one moment.
struct Scrape(String);

impl Scrape {
    async fn of(url: &str) -> anyhow::Result<Self> {
        Ok(Self(harness::http::client().get(url).send().await?.error_for_status()?.text().await?))
    }

    async fn recorder(service: &Service) -> anyhow::Result<Self> {
        Self::of(&service.health_url("/metrics")).await
    }

    /// The value of a metric of the recorder without labels, by the name without the prefix.
    fn value(&self, name: &str) -> anyhow::Result<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix("stenograph_recorder_")?.strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse().ok());
        value.with_context(|| format!("no metric {name} in\n{}", self.0))
    }
}

async fn readiness(service: &Service) -> anyhow::Result<(u16, String)> {
    let response = harness::http::client().get(service.health_url("/health/ready")).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// Waits until the metrics satisfy the condition, and the readiness is as given.
async fn wait_until(
    service: &Service,
    is_ready: bool,
    met: impl Fn(&Scrape) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (scrape, (status, reason)) = (Scrape::recorder(service).await?, readiness(service).await?);
        if met(&scrape)? && (status == 200) == is_ready && (scrape.value("ready")? == 1.0) == is_ready {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "readiness {status} {reason} and\n{}", scrape.0);
        sleep(Duration::from_millis(100)).await;
    }
}

/// The state of a recorder with nothing to do.
fn is_quiet(scrape: &Scrape) -> anyhow::Result<bool> {
    let is_idle = scrape.value("unrecorded_events")? == 0.0 && scrape.value("oldest_event_age_seconds")? == 0.0;
    let is_connected = scrape.value("broker_up")? == 1.0 && scrape.value("database_up")? == 1.0;
    Ok(is_idle && is_connected && scrape.value("batch_wait_seconds")? == 0.0 && scrape.value("awaited_bodies")? == 0.0)
}

#[tokio::test]
async fn tells_that_the_database_is_down_with_events_waiting() -> anyhow::Result<()> {
    let mut stack = Stack::with_own_postgres().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "before").await?;
    wait_until(&stack.recorders[0], true, |scrape| {
        Ok(is_quiet(scrape)? && scrape.value("last_commit_timestamp_seconds")? > 1e9)
    })
    .await?;
    stack.postgres.as_mut().unwrap().stop().await?;
    for number in 0..5 {
        stack.finished_chat(&ann, &format!("{number}")).await?;
    }
    // The age grows from scrape to scrape, although nothing is recorded.
    for age in [1.0, 3.0] {
        wait_until(&stack.recorders[0], false, |scrape| {
            let is_told = scrape.value("unrecorded_events")? == 10.0 && scrape.value("database_up")? == 0.0;
            Ok(is_told
                && scrape.value("oldest_event_age_seconds")? >= age
                && scrape.value("verify_differences")?.is_nan())
        })
        .await?;
    }
    stack.postgres.as_mut().unwrap().start().await?;
    wait_until(&stack.recorders[0], true, is_quiet).await?;
    stack.settled().await.map(drop)
}

#[tokio::test]
async fn tells_that_a_large_body_cannot_be_fetched() -> anyhow::Result<()> {
    let events = {
        let from = Stack::start().await?;
        let ann = from.user("ann").await?;
        from.finished_chat(&ann, "large").await?;
        from.settled().await?.events
    };
    let stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "before").await?;
    stack.settled().await?;
    let jetstream = stack.jetstream().await?;
    jetstream.delete_object_store(BUCKET).await?;
    for event in &events {
        publish_reference(&jetstream, event).await?;
    }
    // Events of others are recorded meanwhile: only the two large events remain.
    stack.finished_chat(&ann, "small").await?;
    wait_until(&stack.recorders[0], false, |scrape| {
        let is_told = scrape.value("unrecorded_events")? == 2.0 && scrape.value("awaited_bodies")? == 2.0;
        Ok(is_told
            && scrape.value("oldest_event_age_seconds")? > 1.0
            && scrape.value("body_fetch_failures_total")? >= 2.0)
    })
    .await?;
    let (_, reason) = readiness(&stack.recorders[0]).await?;
    assert!(reason.contains("2 events wait for large bodies"), "{reason}");
    stack.recorder.run(&["stream", "create"]).await?;
    for event in &events {
        put_body(&jetstream, event).await?;
    }
    wait_until(&stack.recorders[0], true, is_quiet).await?;
    stack.settled().await.map(drop)
}

#[tokio::test]
async fn tells_that_the_broker_is_down() -> anyhow::Result<()> {
    let mut stack = Stack::start().await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "before").await?;
    stack.settled().await?;
    stack.nats.stop().await?;
    wait_until(&stack.recorders[0], false, |scrape| {
        let is_unknown =
            scrape.value("unrecorded_events")?.is_nan() && scrape.value("oldest_event_age_seconds")?.is_nan();
        Ok(is_unknown && scrape.value("broker_up")? == 0.0)
    })
    .await?;
    stack.nats.start().await?;
    wait_until(&stack.recorders[0], true, is_quiet).await?;
    stack.settled().await.map(drop)
}

/// The metrics have the names and the form that Prometheus's linter wants.
#[tokio::test]
async fn has_metrics_that_promtool_accepts_and_the_old_names() -> anyhow::Result<()> {
    let stack = Stack::with_api(&[], &[]).await?;
    let ann = stack.user("ann").await?;
    stack.finished_chat(&ann, "hello").await?;
    stack.settled().await?;
    stack.read(&ann, "/api/chats").await?;
    let recorder = Scrape::recorder(&stack.recorders[0]).await?.0;
    let api = Scrape::of(&stack.api.as_ref().unwrap().health_url("/metrics")).await?.0;
    let gateway = Scrape::of(&stack.gateway.health_url("/metrics")).await?.0;
    assert!(
        recorder.contains("\nrecorder_batches_total ") && recorder.contains("\nrecorder_lag_seconds 0"),
        "{recorder}"
    );
    assert!(api.contains("stenograph_recorder_api_requests_total{route=\"/api/chats\",status=\"200\"} 1"), "{api}");
    for (service, text) in [("recorder consume", &recorder), ("recorder serve", &api), ("gateway", &gateway)] {
        assert!(text.contains(&format!("stenograph_build_info{{service=\"{service}\",version=")), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        let Some(said) = promtool(&["check", "metrics"], text)? else { return Ok(()) };
        assert!(said.is_empty(), "promtool says of {service}: {said}");
    }
    Ok(())
}

/// Runs Prometheus's tool with this input, and returns the output. None, with a message, where the tool is missing.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn promtool(arguments: &[&str], input: &str) -> anyhow::Result<Option<String>> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let program = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("SKIPPED: no promtool (Debian's package prometheus)");
        return Ok(None);
    };
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(Some(String::from_utf8(output.stdout)? + std::str::from_utf8(&output.stderr)?))
}

/// The files that Prometheus and Grafana read, by path.
fn deployed() -> anyhow::Result<Vec<(std::path::PathBuf, String)>> {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut files = Vec::new();
    for directory in ["prometheus", "grafana"] {
        for file in std::fs::read_dir(deploy.join(directory))? {
            let path = file?.path();
            files.push((path.clone(), std::fs::read_to_string(path)?));
        }
    }
    Ok(files)
}

/// The page with all metrics is compared with the services' own lists in the tests of the services.
#[test]
fn has_rules_and_dashboards_that_name_existing_metrics() -> anyhow::Result<()> {
    let page = include_str!("../../../docs/OPERATIONS.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let metrics: Vec<_> = rows.filter(|name| name.starts_with("stenograph_")).collect();
    assert!(metrics.len() > 50, "{metrics:?}");
    let exists = |name: &str| {
        name == "stenograph_build_info"
            || ["", "_total", "_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|family| metrics.contains(&family)))
    };
    let mut named = 0;
    for (path, text) in deployed()? {
        let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
        for name in words.filter(|word| word.starts_with("stenograph_")) {
            assert!(exists(name), "{} names {name}, which is no metric", path.display());
            named += 1;
        }
    }
    assert!(named > 60, "the files name {named} metrics");
    Ok(())
}

#[test]
fn has_rules_that_fire_and_go_quiet() -> anyhow::Result<()> {
    for (path, text) in deployed()? {
        let path_text = path.to_str().context("a path that is not UTF-8")?;
        if path_text.ends_with(".test.yml") {
            let Some(said) = promtool(&["test", "rules", path_text], "")? else { return Ok(()) };
            assert!(said.contains("SUCCESS") && !said.contains("FAILED"), "{said}");
        } else if path_text.ends_with(".rules.yml") {
            let Some(said) = promtool(&["check", "rules", path_text], "")? else { return Ok(()) };
            assert!(said.contains("SUCCESS") && !said.contains("FAILED"), "{said}");
            let tests = std::fs::read_to_string(path_text.replace(".rules.yml", ".rules.test.yml"))?;
            for alert in text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
                assert!(tests.contains(&format!("- name: {alert}\n")), "the alert {alert} has no test");
            }
        }
    }
    Ok(())
}
