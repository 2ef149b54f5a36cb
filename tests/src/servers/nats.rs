//! A private nats-server with JetStream.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::{PATIENCE, Place};
use crate::process::{Process, Start};
use crate::{port, program};

/// A nats-server and its data.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
    // Last, so that the server is gone before its data is.
    _place: Place,
}

impl Nats {
    /// A new one in a directory that goes with it.
    pub async fn new() -> anyhow::Result<Self> {
        let place = Place::temporary("nats")?;
        let log = place.path().join("nats.log");
        Self::open(place, log, port::reserve()?, port::reserve()?).await
    }

    async fn open(place: Place, log: PathBuf, port: u16, monitor: u16) -> anyhow::Result<Self> {
        let config = place.path().join("nats.conf");
        std::fs::write(&config, configuration(&place.path().join("jetstream"), port, monitor))?;
        let program = program::nats_server()?;
        let process = run(&program, &config, &log).await?;
        Ok(Self { process, program, config, log, port, _place: place })
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The address behind [`Self::url`], for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it in good order.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.process.stop(PATIENCE).await.map(drop)
    }

    /// Kills it.
    pub async fn kill9(&self) {
        self.process.kill9().await;
    }

    /// Starts it again on the same data and port, after it was stopped or killed.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.process = run(&self.program, &self.config, &self.log).await?;
        Ok(())
    }

    /// Suspends it: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.resume();
    }
}

async fn run(program: &Path, config: &Path, log: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    // An interrupt stops it at once; at SIGTERM it would first wait for its clients in lame duck mode.
    let process =
        Process::start(Start { name: "nats-server", command, log, ready: "Server is ready", stop: Signal::INT })?;
    process.ready(PATIENCE).await?;
    Ok(process)
}

/// `sync_interval` of one second costs nothing measurable and bounds what a power cut can take.
fn configuration(store: &Path, port: u16, monitor: u16) -> String {
    let store = store.display();
    format!(
        "listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor}\nmax_payload: 8MB\n\
         jetstream {{ store_dir: \"{store}\", sync_interval: 1s }}\n"
    )
}
