//! A private nats-server with JetStream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, START_TIMEOUT, StartOptions};
use crate::servers::temporary_directory::TemporaryDirectory;
use crate::{port, program};

/// The server's log line that says that clients can connect.
pub const READY: &str = "Server is ready";

/// Where JetStream keeps its streams, below the server's directory.
const STORE: &str = "jetstream";

/// A nats-server and its data.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
    // Last, so that the server is gone before its data is.
    directory: TemporaryDirectory,
}

impl Nats {
    /// A new one in a directory that goes with it.
    pub async fn new() -> anyhow::Result<Self> {
        Self::of(program::nats_server()?).await
    }

    /// A new one of this program.
    pub async fn of(program: PathBuf) -> anyhow::Result<Self> {
        let directory = TemporaryDirectory::new("nats")?;
        Self::open(directory, program, port::reserve()?, port::reserve()?, "").await
    }

    /// The nodes of a cluster, which has elected its leaders when the first stream can be made.
    pub async fn cluster(nodes: usize) -> anyhow::Result<Vec<Self>> {
        let peers: Vec<u16> = (0..nodes).map(|_| port::reserve()).collect::<Result<_, _>>()?;
        let routes: Vec<_> = peers.iter().map(|peer| format!("nats://127.0.0.1:{peer}")).collect();
        let mut cluster = Vec::new();
        for (number, peer) in peers.iter().enumerate() {
            let directory = TemporaryDirectory::new("nats")?;
            let more = format!(
                "server_name: node-{number}\ncluster {{ name: tests, listen: \"127.0.0.1:{peer}\", routes: [{}] }}\n",
                routes.join(", ")
            );
            cluster
                .push(Self::open(directory, program::nats_server()?, port::reserve()?, port::reserve()?, &more).await?);
        }
        Ok(cluster)
    }

    async fn open(
        directory: TemporaryDirectory,
        program: PathBuf,
        port: u16,
        monitor: u16,
        more: &str,
    ) -> anyhow::Result<Self> {
        let log = directory.path().join("nats.log");
        let config = directory.path().join("nats.conf");
        let settings = configuration(&directory.path().join(STORE), port, Some(monitor));
        std::fs::write(&config, format!("{settings}{more}"))?;
        let process = run(&program, &config, &log).await?;
        Ok(Self { process, program, config, log, port, directory })
    }

    /// Goes back in time: what is stored now is what is there after it was killed so long from now and started again. So
    /// a power cut takes what had not been synced.
    pub async fn forget(&mut self, after: Duration) -> anyhow::Result<()> {
        let (store, kept) = (self.directory.path().join(STORE), self.directory.path().join("kept"));
        let _ = std::fs::remove_dir_all(&kept);
        // A file may go while it is copied: then the copy is as incomplete as a disk after a power cut.
        let mut copy = Command::new("cp");
        copy.arg("-a").args([&store, &kept]);
        tokio::task::spawn_blocking(move || copy.output()).await??;
        tokio::time::sleep(after).await;
        self.kill9().await;
        std::fs::remove_dir_all(&store)?;
        std::fs::rename(&kept, &store)?;
        self.start().await
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The address behind [`Self::url`], for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where it keeps the messages of a stream. To be changed only while it does not run.
    pub fn messages_of(&self, stream: &str) -> PathBuf {
        self.directory.path().join(STORE).join("jetstream/$G/streams").join(stream).join("msgs")
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it in good order.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.process.stop(START_TIMEOUT).await.map(drop)
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
    let process = Process::start(StartOptions { name: "nats-server", command, log, ready: READY, stop: Signal::INT })?;
    process.ready(START_TIMEOUT).await?;
    Ok(process)
}

/// The configuration file of a server on this port of the loopback address, with JetStream's streams in `store`, and the
/// monitoring endpoint on a port of its own if one is given. `sync_interval` of one second costs nothing measurable and bounds
/// the loss from a power cut.
pub fn configuration(store: &Path, port: u16, monitor: Option<u16>) -> String {
    let store = store.display();
    let monitor = monitor.map(|monitor| format!("http: 127.0.0.1:{monitor}\n")).unwrap_or_default();
    format!(
        "listen: 127.0.0.1:{port}\n{monitor}max_payload: 8MB\n\
         jetstream {{ store_dir: \"{store}\", sync_interval: 1s }}\n"
    )
}
