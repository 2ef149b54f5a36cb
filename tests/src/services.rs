//! The two services as child processes, exactly as an operator runs them: a binary, its environment, signals.

pub mod gateway;
pub mod recorder;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

pub use gateway::Gateway;
pub use recorder::Recorder;

use crate::http::until_ok;
use crate::process::{Process, Start};
use crate::servers::PATIENCE;

/// What every program of ours may see of this process's environment: never settings that were meant for something else.
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "LANG", "TMPDIR", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR", "LLVM_PROFILE_FILE"];

/// A running service.
#[derive(Debug)]
pub struct Service {
    process: Process,
    address: SocketAddr,
}

impl Service {
    /// Starts it, and waits until it listens; whether it is ready is another question.
    pub(crate) async fn start(name: &str, command: Command, log: &Path) -> anyhow::Result<Self> {
        let listening = r#""message":"listening""#;
        let process = Process::start(Start { name, command, log, ready: listening, stop: Signal::TERM })?;
        let line = process.ready(PATIENCE).await?;
        let line: serde_json::Value = serde_json::from_str(&line)?;
        let address = line["address"].as_str().with_context(|| format!("{name} logged no address"))?.parse()?;
        Ok(Self { process, address })
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let url = self.url("/health/ready");
        tokio::select! {
            result = until_ok(&url, PATIENCE) => result.with_context(|| self.process.last_lines()),
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

/// A command with this environment and nothing of ours but what any program needs.
pub(crate) fn command<'a>(program: &Path, variables: impl IntoIterator<Item = (&'a str, String)>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(variables);
    command
}
