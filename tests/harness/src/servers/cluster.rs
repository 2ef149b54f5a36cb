//! The data directory of a PostgreSQL server: initialisation, copies, and the command that runs a server on the data.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::servers::postgres_user::PostgresUser;

/// Name of the superuser of every cluster, and of the database of a private deployment.
pub const NAME: &str = "stenograph";

/// Settings of every server: loopback only, no socket files, and room for bursts of writes between two checkpoints.
const SETTINGS: [&str; 4] =
    ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_wal_size=2GB", "timezone=UTC"];

/// Text of the server's log line after which clients can connect.
pub const READY: &str = "database system is ready to accept connections";

/// The data directory of a PostgreSQL server, with the programs, the user and the password to run a server on the data.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Directory of `initdb` and `postgres`.
    pub bin: PathBuf,
    /// The data directory. Absent until [`Self::initialise`] has succeeded.
    pub data: PathBuf,
    /// System user that runs the programs.
    pub owner: PostgresUser,
    /// Password of the superuser [`NAME`].
    pub password: String,
}

/// Durability of a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// `initdb` waits until the files are on the disk.
    Lasting,
    /// `initdb` does not wait for the disk: much faster, enough for a test.
    Disposable,
}

impl Cluster {
    /// Runs `initdb`. The data directory appears at the end, whole: an interrupted run leaves a directory of another name,
    /// which the next run deletes. Blocks the thread.
    pub fn initialise(&self, lifetime: Lifetime) -> anyhow::Result<()> {
        let new = self.data.with_extension("new");
        let _ = std::fs::remove_dir_all(&new);
        std::fs::DirBuilder::new().mode(0o700).create(&new)?;
        self.owner.own(&new)?;
        let mut password = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut password, self.password.as_bytes())?;
        self.owner.own(password.path())?;

        let mut command = self.owner.command(&self.bin.join("initdb"), &new);
        command.arg("--pgdata").arg(&new).arg("--pwfile").arg(password.path()).args(["--username", NAME]);
        command.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C"]);
        command.arg("--data-checksums");
        if lifetime == Lifetime::Disposable {
            command.arg("--no-sync");
        }
        // The owner may not be allowed to enter the current directory.
        let output = command.current_dir("/").output().context("cannot run initdb")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "initdb failed ({}): {complaint}", output.status);
        std::fs::rename(&new, &self.data)?;
        Ok(())
    }

    /// Copies the cluster to this directory. Only while no server runs on the original.
    pub fn copy(&self, data: PathBuf) -> anyhow::Result<Self> {
        let status = Command::new("cp").args(["-a", "--reflink=auto"]).args([&self.data, &data]).status()?;
        ensure!(status.success(), "cannot copy {}", self.data.display());
        Ok(Self { data, ..self.clone() })
    }

    /// Command of a server on this port of the loopback address, with further settings (`name=value`).
    pub fn server(&self, port: u16, settings: &[&str]) -> Command {
        let mut command = self.owner.command(&self.bin.join("postgres"), &self.data);
        command.arg("-D").arg(&self.data).arg("-c").arg(format!("port={port}"));
        for setting in SETTINGS.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        command
    }

    /// URL of a database on the server on this port.
    pub fn url(&self, port: u16, database: &str) -> String {
        format!("postgres://{NAME}:{}@127.0.0.1:{port}/{database}", self.password)
    }

    /// Creates the database `name` on the server on this port, unless the database exists. Returns the URL.
    pub async fn create_database(&self, port: u16, name: &str) -> anyhow::Result<String> {
        let mut connection = PgConnection::connect(&self.url(port, "postgres")).await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
        if !exists {
            // An identifier cannot be a parameter; these names come from the tests and not from input.
            sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await?;
        }
        connection.close().await?;
        Ok(self.url(port, name))
    }
}

/// Major version of the data in this directory, if a cluster is there.
pub fn data_version(data: &Path) -> Option<u32> {
    std::fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}
