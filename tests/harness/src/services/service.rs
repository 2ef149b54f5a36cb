//! A running service: the common part of the gateway and the recorder.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::http::wait_until_ok;
use crate::process::{Process, START_TIMEOUT, StartOptions};

/// A service process and the address of the service.
#[derive(Debug)]
pub struct Service {
    process: Process,
    address: SocketAddr,
    health: SocketAddr,
}

impl Service {
    /// Starts a service, and waits until the service logs `listening`. The service may not be ready yet.
    pub async fn start(name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        let listening = r#""message":"listening""#;
        let process = Process::start(StartOptions { name, command, log, ready: listening, stop: Signal::TERM })?;
        let line = process.ready(START_TIMEOUT).await?;
        let line: serde_json::Value = serde_json::from_str(&line)?;
        let address = line["address"].as_str().with_context(|| format!("{name} logged no address"))?.parse()?;
        // `recorder consume` has one listener, which is for health checks and metrics.
        let health = line["health"].as_str().map_or(Ok(address), str::parse)?;
        Ok(Self { process, address, health })
    }

    /// Waits until `/health/ready` succeeds. Fails if the process ends first.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let url = self.health_url("/health/ready");
        tokio::select! {
            result = wait_until_ok(&url, START_TIMEOUT) => result.with_context(|| self.process.last_lines()),
            status = self.process.exited() => anyhow::bail!("it ended ({status})\n{}", self.process.last_lines()),
        }
    }

    /// Returns the address on which the service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of a path on the service.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// URL of a path on the service's listener for health checks and metrics.
    pub fn health_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.health)
    }

    /// The process of the service.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops the service with SIGTERM and returns the exit status. After `within` the service is killed, and the result is an
    /// error.
    pub async fn terminate(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.process.stop(within).await
    }

    /// Kills the service with SIGKILL.
    pub async fn kill9(&self) {
        self.process.kill9().await;
    }
}
