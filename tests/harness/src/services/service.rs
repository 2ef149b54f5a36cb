//! A running service, and what both have in common.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::http::wait_until_ok;
use crate::process::{Process, START_TIMEOUT, StartOptions};

/// A running service.
#[derive(Debug)]
pub struct Service {
    process: Process,
    address: SocketAddr,
}

impl Service {
    /// Starts it, and waits until it listens; whether it is ready is another question.
    pub async fn start(name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        let listening = r#""message":"listening""#;
        let process = Process::start(StartOptions { name, command, log, ready: listening, stop: Signal::TERM })?;
        let line = process.ready(START_TIMEOUT).await?;
        let line: serde_json::Value = serde_json::from_str(&line)?;
        let address = line["address"].as_str().with_context(|| format!("{name} logged no address"))?.parse()?;
        Ok(Self { process, address })
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let url = self.url("/health/ready");
        tokio::select! {
            result = wait_until_ok(&url, START_TIMEOUT) => result.with_context(|| self.process.last_lines()),
            status = self.process.exited() => anyhow::bail!("it ended ({status})\n{}", self.process.last_lines()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to stop and returns how it ended; by force and as an error if it takes longer than `within`.
    pub async fn terminate(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.process.stop(within).await
    }

    /// Kills it.
    pub async fn kill9(&self) {
        self.process.kill9().await;
    }
}
