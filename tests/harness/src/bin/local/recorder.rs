//! The recorder's commands: tables, stream, keys, accounts and invites of a deployment.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::directory::Directory;
use crate::environment::{self, PassedOn};
use crate::{readiness, secrets};

/// Validity of an invite code, and the age at which a new code replaces the code.
const INVITE: &str = "14d";
const INVITE_REPLACED: Duration = Duration::from_secs(13 * 24 * 60 * 60);

/// The recorder's program, with the addresses for the commands of the program.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// Directory of the deployment.
    pub(crate) directory: Directory,
    /// Path of the program.
    pub(crate) program: PathBuf,
    /// URL of the database.
    pub(crate) database_url: String,
    /// URL of the broker.
    pub(crate) nats_url: String,
}

impl Recorder {
    /// File of the private key that signs tokens.
    pub(crate) fn signing_key(&self) -> PathBuf {
        self.directory.keys().join("signing-key.pem")
    }

    /// File of the public keys that verify tokens.
    pub(crate) fn public_keys(&self) -> PathBuf {
        self.directory.keys().join("jwks.json")
    }

    /// Migrates the database and creates the stream and the keys, where they are missing.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        self.run(&["migrate"]).await?;
        self.run(&["stream", "create"]).await?;
        if !self.signing_key().exists() || !self.public_keys().exists() {
            for file in [self.signing_key(), self.public_keys()] {
                let _ = std::fs::remove_file(file);
            }
            let keys = self.directory.keys();
            self.run(&["keys", "create", "--dir", keys.to_str().context("a path that is not UTF-8")?]).await?;
        }
        make_private(&self.signing_key())
    }

    /// Creates the user `name` unless there is one, and sets a random password the first time. Returns the user's id.
    pub(crate) async fn user(&self, name: &str, options: &[&str]) -> anyhow::Result<String> {
        let id = self.run(&[&["users", "create", "--name", name], options, &["--if-missing"]].concat()).await?;
        let file = self.password_file(name);
        if secrets::read(&file).is_none() {
            let password = secrets::random(12);
            self.run_with_input(&["users", "reset-password", name, "--password-stdin"], password.clone()).await?;
            secrets::write(&file, &password)?;
        }
        Ok(id)
    }

    /// The password that a user was given at first.
    pub(crate) fn password(&self, name: &str) -> anyhow::Result<String> {
        secrets::read(&self.password_file(name)).with_context(|| format!("no password for {name}"))
    }

    /// A token for a user, valid for a year.
    pub(crate) async fn token(&self, name: &str) -> anyhow::Result<String> {
        self.run(&["token", "--user", name, "--ttl", "365d"]).await
    }

    /// A code to register with. The code of an earlier start is used as long as it is valid for another day.
    pub(crate) async fn invite_code(&self) -> anyhow::Result<String> {
        let file = self.directory.keys().join("invite-code");
        let is_old = |age: Duration| age >= INVITE_REPLACED;
        let written = file.metadata().and_then(|metadata| metadata.modified());
        if written.is_ok_and(|written| !written.elapsed().is_ok_and(is_old))
            && let Some(code) = secrets::read(&file)
        {
            return Ok(code);
        }
        let code =
            self.run(&["invites", "create", "--max-uses", "100", "--expires", INVITE, "--note", "local"]).await?;
        secrets::write(&file, &code)?;
        Ok(code)
    }

    fn password_file(&self, name: &str) -> PathBuf {
        self.directory.keys().join(format!("{name}-password"))
    }

    async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_with_input(arguments, String::new()).await
    }

    /// Runs a command with this input, and returns the output. A failure includes the end of the command's log.
    async fn run_with_input(&self, arguments: &[&str], input: String) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        environment::clean(&mut command, PassedOn { prefix: Some("RECORDER_"), names: &[] });
        command.env("DATABASE_URL", &self.database_url).env("NATS_URL", &self.nats_url);
        command.env("RECORDER_SIGNING_KEY_FILE", self.signing_key()).args(arguments);
        let log = self.directory.logs().join("recorder-commands.log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                // A command that reads no input may have closed it.
                let _ = pipe.write_all(input.as_bytes());
            }
            child.wait_with_output()
        });
        let output = output.await?.with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() {
            let command = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            bail!("recorder {command} failed ({}); {}", output.status, readiness::last_lines(&log));
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }
}

fn make_private(file: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", file.display()))
}
