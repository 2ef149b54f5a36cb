//! A private nats-server with JetStream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, START_TIMEOUT, StartOptions};
use crate::servers::temporary_directory::TemporaryDirectory;
use crate::{port, program};

/// Text of the server's log line after which clients can connect.
pub const READY: &str = "Server is ready";

/// Directory of JetStream's streams, below the server's directory.
const STORE: &str = "jetstream";

/// A nats-server with a data directory. Both go when the value is dropped.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
    /// The user and the password of [`Nats::url`], if the server asks for credentials.
    user_info: Option<String>,
    // The last field, so that the server ends before the drop deletes its data.
    directory: TemporaryDirectory,
}

impl Nats {
    /// Starts a server with an empty data directory.
    pub async fn new() -> anyhow::Result<Self> {
        Self::of(program::nats_server()?).await
    }

    /// Starts a server of this program with an empty data directory.
    pub async fn of(program: PathBuf) -> anyhow::Result<Self> {
        let directory = TemporaryDirectory::new("nats")?;
        Self::open(directory, program, port::reserve()?, port::reserve()?, "").await
    }

    /// Starts a server with these further lines in its configuration. `user_info` is the `user:password` of a user without
    /// restrictions, which [`Nats::url`] then contains.
    pub async fn with_settings(more: &str, user_info: &str) -> anyhow::Result<Self> {
        let directory = TemporaryDirectory::new("nats")?;
        let server = Self::open(directory, program::nats_server()?, port::reserve()?, port::reserve()?, more).await?;
        Ok(Self { user_info: Some(user_info.to_owned()), ..server })
    }

    /// Starts a cluster of so many nodes. The first stream can be made once the cluster has elected a leader.
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
        Ok(Self { process, program, config, log, port, user_info: None, directory })
    }

    /// Loses recent writes: copies the streams now, kills the server after this time and starts a server on the copy, as if a
    /// power cut had taken writes that were not synced.
    pub async fn forget(&mut self, after: Duration) -> anyhow::Result<()> {
        let (store, kept) = (self.directory.path().join(STORE), self.directory.path().join("kept"));
        let _ = std::fs::remove_dir_all(&kept);
        // A file may disappear during the copy: the copy is then incomplete, like a disk after a power cut.
        let mut copy = Command::new("cp");
        copy.arg("-a").args([&store, &kept]);
        tokio::task::spawn_blocking(move || copy.output()).await??;
        tokio::time::sleep(after).await;
        self.kill9().await;
        std::fs::remove_dir_all(&store)?;
        std::fs::rename(&kept, &store)?;
        self.start().await
    }

    /// Returns the URL for clients, on 127.0.0.1.
    pub fn url(&self) -> String {
        let user_info = self.user_info.as_ref().map(|user_info| format!("{user_info}@")).unwrap_or_default();
        format!("nats://{user_info}127.0.0.1:{}", self.port)
    }

    /// Returns the URL for clients without credentials.
    pub fn bare_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The address behind [`Self::url`], for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Directory of the messages of a stream. To be changed only while the server is stopped.
    pub fn messages_of(&self, stream: &str) -> PathBuf {
        self.directory.path().join(STORE).join("jetstream/$G/streams").join(stream).join("msgs")
    }

    /// The process of the server.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops the server in good order.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.process.stop(START_TIMEOUT).await.map(drop)
    }

    /// Kills the server with SIGKILL.
    pub async fn kill9(&self) {
        self.process.kill9().await;
    }

    /// Starts the server again on the same data and port, after a stop or a kill.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.process = run(&self.program, &self.config, &self.log).await?;
        Ok(())
    }

    /// Suspends the server: connections stay open and requests get no response.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Resumes a suspended server.
    pub fn resume(&self) {
        self.process.resume();
    }
}

async fn run(program: &Path, config: &Path, log: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    // SIGINT stops nats-server at once; at SIGTERM nats-server would first wait for clients in lame duck mode.
    let process = Process::start(StartOptions { name: "nats-server", command, log, ready: READY, stop: Signal::INT })?;
    process.ready(START_TIMEOUT).await?;
    Ok(process)
}

/// Configuration file of a server on this port of the loopback address, with JetStream's streams in `store`, and with a
/// monitoring endpoint if a port is given. `sync_interval` of one second costs nothing measurable and bounds the loss from a
/// power cut.
pub fn configuration(store: &Path, port: u16, monitor: Option<u16>) -> String {
    let store = store.display();
    let monitor = monitor.map(|monitor| format!("http: 127.0.0.1:{monitor}\n")).unwrap_or_default();
    format!(
        "listen: 127.0.0.1:{port}\n{monitor}max_payload: 8MB\n\
         jetstream {{ store_dir: \"{store}\", sync_interval: 1s }}\n"
    )
}
