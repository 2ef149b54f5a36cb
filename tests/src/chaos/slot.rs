//! A gateway or a recorder of a round, with the settings to start the process again.

use std::path::PathBuf;
use std::time::Duration;

use harness::fake_clock::FakeClock;
use harness::process::START_TIMEOUT;
use harness::services::gateway::GatewaySettings;
use harness::services::recorder::RecorderProgram;
use harness::services::{Gateway, Recorder};
use tokio::time::{Instant, sleep};

#[derive(Debug)]
pub(super) struct GatewaySlot {
    pub(super) program: PathBuf,
    pub(super) settings: GatewaySettings,
    pub(super) log: PathBuf,
    /// The clock of the gateway, on a machine with the library for it.
    pub(super) clock: Option<FakeClock>,
    pub(super) running: Option<Gateway>,
}

#[derive(Debug)]
pub(super) struct RecorderSlot {
    pub(super) program: RecorderProgram,
    pub(super) listen: String,
    pub(super) log: PathBuf,
    /// The clock of the recorder, on a machine with the library for it.
    pub(super) clock: Option<FakeClock>,
    pub(super) running: Option<Recorder>,
}

impl GatewaySlot {
    /// Starts the gateway, unless the gateway runs. A gateway whose name is taken refuses to start until the other gateway
    /// is gone; further attempts follow, as from an operator's supervisor.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.running.as_ref().is_some_and(|gateway| gateway.process().is_running()) {
            match Gateway::start(&self.program, &self.settings, &self.log).await {
                Ok(gateway) => self.running = Some(gateway),
                Err(error) if Instant::now() >= deadline || !format!("{error:#}").contains("GATEWAY_INSTANCE") => {
                    return Err(error);
                }
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
        Ok(())
    }
}

impl RecorderSlot {
    /// Starts the recorder, unless the recorder runs. While the broker or the database is down, a recorder may refuse to start;
    /// further attempts follow, as from an operator's supervisor.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.running.as_ref().is_some_and(|recorder| recorder.process().is_running()) {
            match self.program.consume(&self.listen, &self.log).await {
                Ok(recorder) => self.running = Some(recorder),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
        Ok(())
    }
}
