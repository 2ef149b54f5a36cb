//! A private PostgreSQL cluster.
//!
//! Tests share one cluster per process and have a database each; a test that stops the server has a cluster of its own,
//! copied from a template, because `initdb` takes longer than the copy.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::process::{Process, START_TIMEOUT, StartOptions};
use crate::servers::cluster::{Cluster, Lifetime, READY};
use crate::servers::postgres_user::PostgresUser;
use crate::servers::temporary_directory::TemporaryDirectory;
use crate::{port, program};

/// Settings of a test's server. A test's data need not survive a power cut, and a server that does not wait for the disk is
/// much faster.
const SETTINGS: [&str; 5] =
    ["shared_buffers=128MB", "log_checkpoints=off", "fsync=off", "full_page_writes=off", "max_connections=400"];

/// A PostgreSQL server with a data directory. Both go when the value is dropped.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    cluster: Cluster,
    log: PathBuf,
    port: u16,
    // Last, so that the server is gone before its data is.
    _place: TemporaryDirectory,
}

impl Postgres {
    /// Returns the server that all tests of this process share. A test makes a database of its own there, and never stops the
    /// server.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::new).await
    }

    /// Starts a server with an empty cluster of its own.
    pub async fn new() -> anyhow::Result<Self> {
        static TEMPLATE: OnceCell<(TemporaryDirectory, Cluster)> = OnceCell::const_new();
        let (_, template) = TEMPLATE
            .get_or_try_init(|| async {
                let directory = TemporaryDirectory::new("template")?;
                let data = directory.path().join("data");
                let (bin, owner, password) = (program::postgres(None)?, PostgresUser::choose()?, "template".to_owned());
                let cluster = Cluster { bin, data, owner, password };
                let initialised = cluster.clone();
                tokio::task::spawn_blocking(move || initialised.initialise(Lifetime::Disposable)).await??;
                anyhow::Ok((directory, cluster))
            })
            .await?;
        let directory = TemporaryDirectory::new("postgres")?;
        let cluster = template.copy(directory.path().join("data"))?;
        let log = directory.path().join("postgres.log");
        Self::open(directory, cluster, log, port::reserve()?).await
    }

    async fn open(directory: TemporaryDirectory, cluster: Cluster, log: PathBuf, port: u16) -> anyhow::Result<Self> {
        let process = run(&cluster, &log, port).await?;
        Ok(Self { process, cluster, log, port, _place: directory })
    }

    /// Creates an empty database and returns the URL.
    pub async fn database(&self) -> anyhow::Result<String> {
        let name = format!("test_{:016x}", rand::random::<u64>());
        self.cluster.create_database(self.port, &name).await
    }

    /// URL of a database on the server.
    pub fn url(&self, database: &str) -> String {
        self.cluster.url(self.port, database)
    }

    /// Address of the server, for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The process of the server.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops the server in good order: connections are closed, and committed data stays.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.process.stop(START_TIMEOUT).await.map(drop)
    }

    /// Kills the server and the server's sessions with SIGKILL.
    pub async fn kill9(&self) -> anyhow::Result<()> {
        let sessions = self.process.children();
        self.process.signal(Signal::KILL);
        sessions.iter().for_each(|session| session.signal(Signal::KILL));
        self.process.exited().await;
        // A new server refuses to start while a session of the old one lives.
        let gone =
            tokio::task::spawn_blocking(move || sessions.iter().all(|session| session.gone(START_TIMEOUT))).await?;
        ensure!(gone, "a session of PostgreSQL did not end after SIGKILL");
        Ok(())
    }

    /// Starts the server again on the same data and port, after a stop or a kill.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.process = run(&self.cluster, &self.log, self.port).await?;
        Ok(())
    }

    /// Suspends the server and the server's sessions: connections stay open and queries get no response.
    pub fn pause(&self) {
        self.process.pause();
        self.process.children().iter().for_each(|session| session.signal(Signal::STOP));
    }

    /// Resumes the server and the server's sessions.
    pub fn resume(&self) {
        self.process.children().iter().for_each(|session| session.signal(Signal::CONT));
        self.process.resume();
    }
}

async fn run(cluster: &Cluster, log: &Path, port: u16) -> anyhow::Result<Process> {
    let command = cluster.server(port, &SETTINGS);
    // SIGINT is PostgreSQL's fast shutdown; at SIGTERM PostgreSQL would wait until the clients have left.
    let process = Process::start(StartOptions { name: "PostgreSQL", command, log, ready: READY, stop: Signal::INT })?;
    process.ready(START_TIMEOUT).await?;
    Ok(process)
}
