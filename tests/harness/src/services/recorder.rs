//! The recorder: the consuming service, and the commands that an operator runs once.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::services::command::command;
use crate::services::service::Service;

/// The recorder's program and what all of its commands are told.
#[derive(Clone, Debug)]
pub struct RecorderProgram {
    /// The program.
    pub program: PathBuf,
    /// The database.
    pub database_url: String,
    /// The broker.
    pub nats_url: String,
    /// Where `keys create` puts the signing key and its public half.
    pub keys: PathBuf,
    /// Any other settings.
    pub more: Vec<(String, String)>,
}

/// A running recorder.
#[derive(Debug)]
pub struct Recorder(Service);

impl RecorderProgram {
    /// The public keys that tokens are verified with.
    pub fn token_keys_file(&self) -> PathBuf {
        self.keys.join("jwks.json")
    }

    /// Runs a command to its end and returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = command(&self.program, self.variables());
        command.args(arguments);
        let shown = arguments.join(" ");
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("cannot run the recorder")?;
        let (printed, logged) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`recorder {shown}` failed ({}): {printed}{logged}", output.status);
        Ok(printed.trim().to_owned())
    }

    /// Starts a command and leaves it alone, for a test that will kill it.
    pub fn spawn(&self, arguments: &[&str]) -> anyhow::Result<std::process::Child> {
        let mut command = command(&self.program, self.variables());
        command.args(arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().context("cannot run the recorder")
    }

    /// Creates or updates the tables, the stream and the signing key: everything that must be there before a service starts.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let keys = self.keys.to_str().context("a path that is not UTF-8")?;
        self.run(&["migrate"]).await?;
        self.run(&["stream", "create"]).await?;
        self.run(&["keys", "create", "--dir", keys]).await?;
        Ok(())
    }

    /// The id of the user of this name, who is created first if there is none.
    pub async fn user(&self, name: &str) -> anyhow::Result<String> {
        self.run(&["users", "create", "--name", name, "--if-missing"]).await
    }

    /// A token for the user of this name.
    pub async fn token(&self, name: &str, ttl: &str) -> anyhow::Result<String> {
        self.run(&["token", "--user", name, "--ttl", ttl]).await
    }

    /// Starts a recorder that listens at `listen` (port 0 takes a free one), logging to the file given.
    pub async fn consume(&self, listen: &str, log: &Path) -> anyhow::Result<Recorder> {
        let mut variables = self.variables();
        variables.push(("RECORDER_LISTEN", listen.to_owned()));
        let mut command = command(&self.program, variables);
        command.arg("consume");
        Ok(Recorder(Service::start("recorder", command, log).await?))
    }

    /// Starts the API, listening at `listen` (port 0 takes a free one), logging to the file given.
    pub async fn serve(&self, listen: &str, log: &Path) -> anyhow::Result<Recorder> {
        let mut variables = self.variables();
        variables.push(("RECORDER_SERVE_LISTEN", listen.to_owned()));
        let mut command = command(&self.program, variables);
        command.arg("serve");
        Ok(Recorder(Service::start("recorder serve", command, log).await?))
    }

    /// The code of a new invite, made with these further arguments.
    pub async fn invite(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(&[&["invites", "create"], arguments].concat()).await
    }

    fn variables(&self) -> Vec<(&str, String)> {
        let mut variables = vec![
            ("DATABASE_URL", self.database_url.clone()),
            ("NATS_URL", self.nats_url.clone()),
            ("RECORDER_SIGNING_KEY_FILE", self.keys.join("signing-key.pem").display().to_string()),
        ];
        variables.extend(self.more.iter().map(|(name, value)| (name.as_str(), value.clone())));
        variables
    }
}

impl Deref for Recorder {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}
