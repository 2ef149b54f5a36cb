//! Waiting until a service is ready, as long as its process runs.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use crate::directory::Directory;
use crate::process;
use crate::service::Service;

/// Time limit for a service to become ready.
const WITHIN: Duration = Duration::from_secs(60);

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Time limit for the response to a health check.
const ANSWER: Duration = Duration::from_secs(5);

/// Number of lines of a log in a message about a failure.
const LAST_LINES: usize = 20;

/// Waits until the log of a service contains this text.
pub(crate) async fn until_logged(directory: &Directory, service: Service, text: &str) -> anyhow::Result<()> {
    let log = directory.log(service);
    until(directory, service, async || std::fs::read_to_string(&log).is_ok_and(|logged| logged.contains(text))).await
}

/// Waits until the service on this port reports that the service is ready.
pub(crate) async fn until_healthy(directory: &Directory, service: Service, port: u16) -> anyhow::Result<()> {
    let client = harness::http::client();
    until(directory, service, async || is_healthy(&client, port).await).await
}

/// Returns true if the service on this port reports that the service is ready.
pub(crate) async fn is_healthy(client: &reqwest::Client, port: u16) -> bool {
    let answer = client.get(format!("http://127.0.0.1:{port}/health/ready")).timeout(ANSWER).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

async fn until(directory: &Directory, service: Service, mut is_ready: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + WITHIN;
    while !is_ready().await {
        if !process::is_running(directory, service) {
            bail!("{service} has ended; {}", last_lines(&directory.log(service)));
        }
        if Instant::now() >= deadline {
            bail!("{service} was not ready within {WITHIN:?}; {}", last_lines(&directory.log(service)));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The end of a log, as the second half of a message.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("the end of {}:\n{}", log.display(), last.join("\n"))
}
