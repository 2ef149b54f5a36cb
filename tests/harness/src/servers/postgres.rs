//! A private PostgreSQL cluster.
//!
//! Tests share one cluster per process and have a database each; a test that stops the server has a cluster of its own,
//! copied from a template, because `initdb` takes longer than the copy.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::OnceCell;

use crate::process::{PATIENCE, Process, Start};
use crate::servers::owner::Owner;
use crate::servers::place::Place;
use crate::{port, program};

/// The superuser of the cluster, and the name of the database in which it is used locally.
pub const NAME: &str = "stenograph";

/// A PostgreSQL server and its data.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    cluster: Cluster,
    log: PathBuf,
    port: u16,
    // Last, so that the server is gone before its data is.
    _place: Place,
}

/// An initialised data directory.
#[derive(Clone, Debug)]
struct Cluster {
    bin: PathBuf,
    data: PathBuf,
    owner: Owner,
    password: String,
}

impl Postgres {
    /// The server that the tests of this process share: use it for a database, never stop it.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::new).await
    }

    /// One of its own, in a directory that goes with it.
    pub async fn new() -> anyhow::Result<Self> {
        static TEMPLATE: OnceCell<(Place, Cluster)> = OnceCell::const_new();
        let (_, template) = TEMPLATE
            .get_or_try_init(|| async {
                let place = Place::temporary("template")?;
                let cluster = Cluster::initialise(place.path().join("data"), "template".into()).await?;
                anyhow::Ok((place, cluster))
            })
            .await?;
        let place = Place::temporary("postgres")?;
        let cluster = template.copy(place.path().join("data"))?;
        let log = place.path().join("postgres.log");
        Self::open(place, cluster, log, port::reserve()?).await
    }

    async fn open(place: Place, cluster: Cluster, log: PathBuf, port: u16) -> anyhow::Result<Self> {
        let process = cluster.run(&log, port).await?;
        Ok(Self { process, cluster, log, port, _place: place })
    }

    /// Makes a new, empty database and returns its URL.
    pub async fn database(&self) -> anyhow::Result<String> {
        let name = format!("test_{:016x}", rand::random::<u64>());
        self.create_database(&name).await
    }

    /// Makes the database of this name if it is not there, and returns its URL.
    pub(crate) async fn create_database(&self, name: &str) -> anyhow::Result<String> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
        if !there {
            // An identifier cannot be a parameter; these names are our own.
            sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await?;
        }
        connection.close().await?;
        Ok(self.url(name))
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{NAME}:{}@127.0.0.1:{}/{database}", self.cluster.password, self.port)
    }

    /// The address in its URLs, for a proxy.
    pub fn address(&self) -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it in good order: connections are closed, and what is committed stays.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.process.stop(PATIENCE).await.map(drop)
    }

    /// Kills the server and all its sessions.
    pub async fn kill9(&self) -> anyhow::Result<()> {
        let sessions = self.process.children();
        self.process.signal(Signal::KILL);
        sessions.iter().for_each(|session| session.signal(Signal::KILL));
        self.process.exited().await;
        // A new server refuses to start while a session of the old one lives.
        let gone = tokio::task::spawn_blocking(move || sessions.iter().all(|session| session.gone(PATIENCE))).await?;
        ensure!(gone, "a session of PostgreSQL outlived its kill");
        Ok(())
    }

    /// Starts it again on the same data and port, after it was stopped or killed.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.process = self.cluster.run(&self.log, self.port).await?;
        Ok(())
    }

    /// Suspends the server and all its sessions: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.process.pause();
        self.process.children().iter().for_each(|session| session.signal(Signal::STOP));
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.process.children().iter().for_each(|session| session.signal(Signal::CONT));
        self.process.resume();
    }
}

impl Cluster {
    async fn initialise(data: PathBuf, password: String) -> anyhow::Result<Self> {
        let cluster = Self { bin: program::postgres(None)?, data, owner: Owner::choose()?, password };
        if let Some(parent) = cluster.data.parent() {
            std::fs::create_dir_all(parent)?;
        }
        tokio::task::spawn_blocking(move || cluster.run_initdb()).await?
    }

    fn run_initdb(self) -> anyhow::Result<Self> {
        // A run that was interrupted leaves a directory that is not whole; `PG_VERSION` is there only at the end of this.
        let building = self.data.with_extension("building");
        let _ = std::fs::remove_dir_all(&building);
        std::fs::DirBuilder::new().mode(0o700).create(&building)?;
        self.owner.own(&building)?;
        let mut password = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut password, self.password.as_bytes())?;
        self.owner.own(password.path())?;

        let mut command = self.owner.command(&self.bin.join("initdb"), &building);
        command.arg("--pgdata").arg(&building).arg("--pwfile").arg(password.path()).args(["--username", NAME]);
        command.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C"]);
        // A test's data need not survive a power cut; here and in the settings, that is much faster.
        let output = command.args(["--no-sync", "--data-checksums"]).output().context("cannot run initdb")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "initdb failed: {complaint}");
        std::fs::rename(&building, &self.data)?;
        Ok(self)
    }

    /// Copies the cluster: only while no server runs on it.
    fn copy(&self, data: PathBuf) -> anyhow::Result<Self> {
        let status = Command::new("cp").args(["-a", "--reflink=auto"]).args([&self.data, &data]).status()?;
        ensure!(status.success(), "cannot copy {}", self.data.display());
        Ok(Self { data, ..self.clone() })
    }

    async fn run(&self, log: &Path, port: u16) -> anyhow::Result<Process> {
        let mut command = self.owner.command(&self.bin.join("postgres"), &self.data);
        command.arg("-D").arg(&self.data);
        for setting in settings(port) {
            command.args(["-c", &setting]);
        }
        let ready = "database system is ready to accept connections";
        // An interrupt is its fast shutdown; at SIGTERM it would wait for its clients to leave.
        let process = Process::start(Start { name: "PostgreSQL", command, log, ready, stop: Signal::INT })?;
        process.ready(PATIENCE).await?;
        Ok(process)
    }
}

fn settings(port: u16) -> Vec<String> {
    let fixed = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "shared_buffers=128MB",
        "max_wal_size=2GB",
        "log_checkpoints=off",
        "timezone=UTC",
        "fsync=off",
        "full_page_writes=off",
        "max_connections=400",
    ];
    fixed.into_iter().map(String::from).chain([format!("port={port}")]).collect()
}
