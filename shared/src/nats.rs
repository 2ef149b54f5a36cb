//! Connections to the broker: servers, credentials and TLS, read from the environment in the same way by both services.
//! Every connection of both services is made by [`BrokerConfig::connect`] or [`BrokerConfig::connect_now`].

mod connection_log;
mod secrets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use crate::config::{ConfigError, Environment, malformed};

pub use connection_log::ConnectionLog;
use secrets::Credentials;

/// The time for which a command waits for a broker that cannot be reached.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause between two tries of a command to reach the broker.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The interval of pings to the broker. A half-open connection is noticed after two missing answers.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The servers of the broker, and the credentials and certificates for connecting.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The servers, without credentials.
    servers: Vec<ServerAddr>,
    credentials: Arc<Credentials>,
    /// The certificate authorities that sign the servers' certificates. `None`: those of the operating system.
    authorities: Option<PathBuf>,
    /// The client's certificate chain and private key.
    client_certificate: Option<(PathBuf, PathBuf)>,
}

/// The role of a program on the broker. Each role gets its responses below a subject of its own, so that the broker's
/// permissions can keep one role from reading another role's responses (deploy/nats/permissions.conf).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerRole {
    /// A gateway: publishes events, renews its lease, and shares idempotency keys.
    Gateway,
    /// A consuming recorder.
    Recorder,
    /// The API: publishes events about API keys, and keeps the bucket `ACCESS`.
    Serve,
    /// A command that creates the stream, or compares or rebuilds the tables.
    Operator,
    /// A command that reads the stream and changes nothing.
    Analyst,
}

impl BrokerRole {
    /// Returns the prefix of the subjects for responses.
    fn inbox_prefix(self) -> &'static str {
        match self {
            Self::Gateway => "_INBOX.gateway",
            Self::Recorder => "_INBOX.recorder",
            Self::Serve => "_INBOX.serve",
            Self::Operator => "_INBOX.operator",
            Self::Analyst => "_INBOX.analyst",
        }
    }
}

/// Errors of [`BrokerConfig::connect_now`].
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker refuses the credentials. Trying again does not help.
    #[error("the broker refuses the credentials ({settings}): {error}")]
    Refused {
        /// The settings with the credentials, for the message.
        settings: &'static str,
        /// The broker's word.
        error: ConnectError,
    },
    /// The broker could not be reached in time.
    #[error("NATS_URL: cannot connect to {servers} within {COMMAND_TIMEOUT:?}: {error}")]
    Unreachable {
        /// The servers, without credentials.
        servers: String,
        /// The error of the last try.
        error: ConnectError,
    },
}

impl BrokerConfig {
    /// Reads `NATS_URL` and the settings of credentials and certificates. Returns `None` if `NATS_URL` is not set.
    pub fn read(env: &Environment) -> Result<Option<Self>, ConfigError> {
        env.secret("NATS_URL")?.map(|url| Self::with_url(&url, env)).transpose()
    }

    /// Reads the settings like [`Self::read`], with a default for `NATS_URL`.
    pub fn read_or(env: &Environment, default_url: &str) -> Result<Self, ConfigError> {
        Self::with_url(&env.secret("NATS_URL")?.unwrap_or_else(|| default_url.into()), env)
    }

    fn with_url(url: &SecretString, env: &Environment) -> Result<Self, ConfigError> {
        let authorities = env.text("NATS_CA_FILE").map(PathBuf::from);
        Self::from_parts(url, Credentials::read(env)?, authorities, client_certificate(env)?)
    }

    fn from_parts(
        url: &SecretString,
        mut credentials: Credentials,
        authorities: Option<PathBuf>,
        client_certificate: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self, ConfigError> {
        let (servers, in_url) = secrets::split_url(url)?;
        if let Some(in_url) = in_url {
            if !matches!(credentials, Credentials::None) {
                let expected = "a URL without user and password beside the setting of other credentials";
                return Err(malformed("NATS_URL", expected, &"two kinds of credentials"));
            }
            credentials = in_url;
        }
        Ok(Self { servers, credentials: Arc::new(credentials), authorities, client_certificate })
    }

    /// Returns the configuration of the broker at `url`, with no credentials but those in the URL: for tools and tests.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::from_parts(&url.into(), Credentials::None, None, None)
    }

    /// Returns the servers, separated by commas, for messages. Has no credentials.
    pub fn servers(&self) -> String {
        self.servers.iter().map(ServerAddr::as_url_str).collect::<Vec<_>>().join(",")
    }

    /// Returns a client that connects, and reconnects after a loss, in the background; the broker may be away. Each
    /// event of the connection is logged, once while it lasts, and then passed to `on_event`. Files with secrets are read
    /// again for each connection, so a replaced file is in force from the next connection on.
    pub async fn connect(
        &self,
        role: BrokerRole,
        name: &str,
        on_event: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<Client, ConnectError> {
        let log = Arc::new(ConnectionLog::new(name, self.credentials.settings()));
        let on_event = Arc::new(on_event);
        let options = self.options(role, name).retry_on_initial_connect().event_callback(move |event| {
            let (log, on_event) = (Arc::clone(&log), Arc::clone(&on_event));
            async move {
                log.observe(&event);
                on_event(&event);
            }
        });
        options.connect(&self.servers[..]).await
    }

    /// Returns a client that is connected, for a command. Waits up to 30 s for a broker that cannot be reached; refused
    /// credentials are an error at once.
    pub async fn connect_now(&self, role: BrokerRole, name: &str) -> Result<Client, BrokerError> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let log = Arc::new(ConnectionLog::new(name, self.credentials.settings()));
        loop {
            let log = Arc::clone(&log);
            let options = self.options(role, name).event_callback(move |event| {
                log.observe(&event);
                std::future::ready(())
            });
            match options.connect(&self.servers[..]).await {
                Ok(client) => return Ok(client),
                Err(error) if is_refusal(&error) => {
                    return Err(BrokerError::Refused { settings: self.credentials.settings(), error });
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(BrokerError::Unreachable { servers: self.servers(), error });
                }
                Err(error) => {
                    tracing::debug!(%error, "the broker cannot be reached yet");
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    fn options(&self, role: BrokerRole, name: &str) -> ConnectOptions {
        let credentials = Arc::clone(&self.credentials);
        let mut options = match *credentials {
            Credentials::None => ConnectOptions::new(),
            _ => ConnectOptions::with_auth_callback(move |nonce| {
                let auth = credentials.auth(&nonce);
                async move { auth.map_err(async_nats::AuthError::new) }
            }),
        };
        options = options.name(name).custom_inbox_prefix(role.inbox_prefix()).ping_interval(PING_INTERVAL);
        if let Some(authorities) = &self.authorities {
            options = options.add_root_certificates(authorities.clone());
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        // Certificates without TLS would be a mistake that nobody notices.
        options.require_tls(self.authorities.is_some() || self.client_certificate.is_some())
    }
}

/// Returns true if the broker has refused the credentials, or if the credentials cannot be used.
fn is_refusal(error: &ConnectError) -> bool {
    matches!(error.kind(), ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication)
}

/// Reads the client's certificate and its key, which are set together or not at all.
fn client_certificate(env: &Environment) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let (certificate, key) = ("NATS_CERTIFICATE_FILE", "NATS_CERTIFICATE_KEY_FILE");
    match (env.text(certificate), env.text(key)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
        (Some(_), None) => {
            Err(ConfigError::Missing { name: key.into(), expected: "the private key of NATS_CERTIFICATE_FILE" })
        }
        (None, Some(_)) => {
            Err(ConfigError::Missing { name: certificate.into(), expected: "the certificate of the private key" })
        }
    }
}

#[cfg(test)]
mod tests;
