//! The recorder: the consuming service, and the commands that an operator runs once.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::services::command::command;
use crate::services::service::Service;

/// The recorder's program, and the settings of all commands of the program.
#[derive(Clone, Debug)]
pub struct RecorderProgram {
    /// Path of the program.
    pub program: PathBuf,
    /// URL of the database.
    pub database_url: String,
    /// URL of the broker.
    pub nats_url: String,
    /// Directory of the signing key and the public keys, for `keys create`.
    pub keys: PathBuf,
    /// Further settings, as environment variables.
    pub more: Vec<(String, String)>,
}

/// A recorder process. Killed when dropped.
#[derive(Debug)]
pub struct Recorder(Service);

impl RecorderProgram {
    /// File with the public keys that verify tokens.
    pub fn token_keys_file(&self) -> PathBuf {
        self.keys.join("jwks.json")
    }

    /// Runs a command to the end and returns the output. Fails if the exit code is not 0.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = command(&self.program, self.variables());
        command.args(arguments);
        let shown = arguments.join(" ");
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("cannot run the recorder")?;
        let (printed, logged) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`recorder {shown}` failed ({}): {printed}{logged}", output.status);
        Ok(printed.trim().to_owned())
    }

    /// Starts a command without waiting for the end, for a test that kills the command.
    pub fn spawn(&self, arguments: &[&str]) -> anyhow::Result<std::process::Child> {
        let mut command = command(&self.program, self.variables());
        command.args(arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().context("cannot run the recorder")
    }

    /// Creates or migrates the tables, the stream and the signing key, as needed before a service starts.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let keys = self.keys.to_str().context("a path that is not UTF-8")?;
        self.run(&["migrate"]).await?;
        self.run(&["stream", "create"]).await?;
        self.run(&["keys", "create", "--dir", keys]).await?;
        Ok(())
    }

    /// Returns the id of the user of this name. Creates the user if there is none.
    pub async fn user(&self, name: &str) -> anyhow::Result<String> {
        self.run(&["users", "create", "--name", name, "--if-missing"]).await
    }

    /// Returns a token for the user of this name, valid for `ttl`.
    pub async fn token(&self, name: &str, ttl: &str) -> anyhow::Result<String> {
        self.run(&["token", "--user", name, "--ttl", ttl]).await
    }

    /// Starts a consuming recorder that listens at `listen` (port 0 takes a free port), with output to `log`.
    pub async fn consume(&self, listen: &str, log: &Path) -> anyhow::Result<Recorder> {
        let mut variables = self.variables();
        variables.push(("RECORDER_LISTEN", listen.to_owned()));
        let mut command = command(&self.program, variables);
        command.arg("consume");
        Ok(Recorder(Service::start("recorder", command, log).await?))
    }

    /// Starts the API, listening at `listen` (port 0 takes a free port), with output to `log`.
    pub async fn serve(&self, listen: &str, log: &Path) -> anyhow::Result<Recorder> {
        let mut variables = self.variables();
        variables.push(("RECORDER_SERVE_LISTEN", listen.to_owned()));
        variables.push(("RECORDER_SERVE_HEALTH_LISTEN", "127.0.0.1:0".to_owned()));
        let mut command = command(&self.program, variables);
        command.arg("serve");
        Ok(Recorder(Service::start("recorder serve", command, log).await?))
    }

    /// Creates an invite with these further arguments, and returns the code.
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
