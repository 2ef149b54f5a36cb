//! The recorder's settings, all read from the environment. `deploy/recorder.env` lists each setting with its meaning
//! and default.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use shared::access::LONGEST_SESSION_TOKEN;
use shared::client_address::TrustedProxies;
use shared::config::{ConfigError, Environment, malformed};
use shared::http_server::tls::CertificateFiles;
use shared::issuer::IssuerConfig;
use shared::nats::BrokerConfig;
use shared::telemetry::LogConfig;
use shared::traces::TraceConfig;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::pipeline::orphans::OrphanPolicy;
use crate::policy::batch::BatchLimits;

/// All settings of all commands. A setting without a default is optional here; the accessor methods return an error if
/// a command needs an unset one.
#[derive(Debug)]
pub struct Config {
    database_url: Option<SecretString>,
    plaintext_database: PlaintextDatabase,
    broker: Option<BrokerConfig>,
    signing_key_file: Option<PathBuf>,
    /// The address of the health and metrics endpoints of `recorder consume` (`RECORDER_LISTEN`).
    pub listen: SocketAddr,
    /// The settings of `recorder serve`.
    pub serve: ServeConfig,
    /// The file with the public keys of session tokens (`TOKEN_KEYS_FILE`). Default: `jwks.json` beside the private
    /// key.
    pub token_keys_file: Option<PathBuf>,
    /// The limits of a batch (`RECORDER_BATCH_EVENTS`, `RECORDER_BATCH_BYTES`, `RECORDER_BATCH_LINGER`).
    pub batch: BatchLimits,
    /// The rules for ending the chats of lost gateways (`RECORDER_GATEWAY_GRACE`, `RECORDER_LONGEST_CHAT`).
    pub orphans: OrphanPolicy,
    /// The log filter and format (`LOG`, `LOG_FORMAT`).
    pub log: LogConfig,
    /// The collector of traces: `OTEL_EXPORTER_OTLP_ENDPOINT` and others. `None`: no traces.
    pub traces: Option<TraceConfig>,
}

/// The answer to a `DATABASE_URL` that leads to another host without requiring TLS (`RECORDER_ALLOW_PLAINTEXT_DATABASE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaintextDatabase {
    Refused,
    Allowed,
}

/// The settings of `recorder serve`.
#[derive(Debug)]
pub struct ServeConfig {
    /// The address of the HTTP API (`RECORDER_SERVE_LISTEN`).
    pub listen: SocketAddr,
    /// The files of the API's certificate (`RECORDER_SERVE_CERTIFICATE_FILE`, `RECORDER_SERVE_CERTIFICATE_KEY_FILE`); `None`: no
    /// TLS.
    pub certificate: Option<CertificateFiles>,
    /// The address of the API's health endpoints (`RECORDER_SERVE_HEALTH_LISTEN`).
    pub health_listen: SocketAddr,
    /// The maximum number of connections to the database, from 1 to 1000 (`RECORDER_SERVE_CONNECTIONS`).
    pub connections: u32,
    /// The lifetime of an access token (`RECORDER_TOKEN_TTL`).
    pub token_ttl: time::Duration,
    /// The lifetime of a session, counted from the login (`RECORDER_SESSION_TTL`): afterwards a refresh is refused.
    pub session_ttl: time::Duration,
    /// The proxies (the gateways) whose forwarded client address is trusted (`RECORDER_TRUSTED_PROXIES`).
    pub trusted: TrustedProxies,
    /// An external identity provider whose users may read their own record through the API; `None` if not set.
    pub issuer: Option<IssuerConfig>,
}

impl ServeConfig {
    fn read(env: &Environment) -> Result<Self, ConfigError> {
        let networks = "addresses or networks with commas between them, such as 127.0.0.1,10.0.0.0/8";
        let loopback = "127.0.0.1,::1".parse().unwrap_or_default();
        Ok(Self {
            listen: env.optional_or(
                "RECORDER_SERVE_LISTEN",
                ([127, 0, 0, 1], 8082).into(),
                "an address such as 127.0.0.1:8082",
            )?,
            certificate: CertificateFiles::read(
                env,
                "RECORDER_SERVE_CERTIFICATE_FILE",
                "RECORDER_SERVE_CERTIFICATE_KEY_FILE",
            )?,
            health_listen: env.optional_or(
                "RECORDER_SERVE_HEALTH_LISTEN",
                ([127, 0, 0, 1], 8083).into(),
                "an address such as 127.0.0.1:8083",
            )?,
            connections: match env.optional_or("RECORDER_SERVE_CONNECTIONS", 16_u32, "a number from 1 to 1000")? {
                number @ 1..=1000 => number,
                number => return Err(malformed("RECORDER_SERVE_CONNECTIONS", "a number from 1 to 1000", &number)),
            },
            token_ttl: duration_up_to(
                env,
                "RECORDER_TOKEN_TTL",
                15 * 60,
                LONGEST_SESSION_TOKEN.whole_seconds().unsigned_abs(),
            )?,
            session_ttl: duration_up_to(env, "RECORDER_SESSION_TTL", 30 * 86_400, 366 * 86_400)?,
            trusted: env.optional_or("RECORDER_TRUSTED_PROXIES", loopback, networks)?,
            issuer: IssuerConfig::read(env)?,
        })
    }
}

/// Reads a duration in whole seconds, from 1 second to `most` seconds.
fn duration_up_to(env: &Environment, name: &str, default: u64, most: u64) -> Result<time::Duration, ConfigError> {
    match env.duration(name, Duration::from_secs(default))?.as_secs() {
        seconds if (1..=most).contains(&seconds) => Ok(time::Duration::seconds(i64::try_from(seconds).unwrap_or(1))),
        _ => Err(malformed(name, "a duration of at least a second", &format!("at most {most}s"))),
    }
}

impl Config {
    /// Reads all settings. A malformed value is an error, and so is an unknown variable that begins with `RECORDER_`.
    pub fn read(env: &Environment) -> Result<Self, ConfigError> {
        let defaults = BatchLimits::default();
        let config = Self {
            database_url: env.secret("DATABASE_URL")?,
            plaintext_database: match env.text("RECORDER_ALLOW_PLAINTEXT_DATABASE") {
                None | Some("off") => PlaintextDatabase::Refused,
                Some("on") => PlaintextDatabase::Allowed,
                Some(other) => return Err(malformed("RECORDER_ALLOW_PLAINTEXT_DATABASE", "on or off", &other)),
            },
            broker: BrokerConfig::read(env)?,
            signing_key_file: env.text("RECORDER_SIGNING_KEY_FILE").map(PathBuf::from),
            listen: env.optional_or(
                "RECORDER_LISTEN",
                ([127, 0, 0, 1], 8081).into(),
                "an address such as 127.0.0.1:8081",
            )?,
            serve: ServeConfig::read(env)?,
            token_keys_file: env.text("TOKEN_KEYS_FILE").map(PathBuf::from),
            batch: BatchLimits {
                events: within(env, "RECORDER_BATCH_EVENTS", defaults.events, 10_000, "a number from 1 to 10000")?,
                bytes: within(env, "RECORDER_BATCH_BYTES", defaults.bytes, 1 << 28, "a number from 1 to 268435456")?,
                linger: env.duration("RECORDER_BATCH_LINGER", defaults.linger)?,
            },
            orphans: OrphanPolicy {
                grace: env.duration("RECORDER_GATEWAY_GRACE", Duration::from_secs(60))?,
                longest_chat: env.duration("RECORDER_LONGEST_CHAT", Duration::from_secs(24 * 3600))?,
            },
            log: LogConfig::read(env)?,
            traces: TraceConfig::read(env)?,
        };
        // `RECORDER_URL` is the address clients use, and `RECORDER_CA_FILE` has the authorities that clients trust. The recorder
        // accepts both but does not use the values: one environment file serves all programs.
        env.text("RECORDER_URL");
        env.text("RECORDER_CA_FILE");
        env.refuse_unknown(&["RECORDER_"])?;
        if config.batch.linger > Duration::from_secs(5) {
            return Err(malformed("RECORDER_BATCH_LINGER", "at most 5s", &"the value is longer"));
        }
        if config.orphans.grace < Duration::from_secs(1) {
            return Err(malformed("RECORDER_GATEWAY_GRACE", "at least 1s", &"the value is shorter"));
        }
        if config.orphans.longest_chat < Duration::from_secs(60) {
            return Err(malformed("RECORDER_LONGEST_CHAT", "at least 1m", &"the value is shorter"));
        }
        Ok(config)
    }

    /// Returns `DATABASE_URL`, a secret because the URL holds the password; an error if not set, or if the URL leads to another
    /// host without requiring TLS and that is not allowed.
    pub fn database_url(&self) -> Result<&SecretString, ConfigError> {
        let expected = "postgres://user:password@host:5432/database";
        let url = self.database_url.as_ref().ok_or_else(|| missing("DATABASE_URL", expected))?;
        if self.plaintext_database == PlaintextDatabase::Refused && may_be_plaintext(url.expose_secret()) {
            let expected = "a URL with sslmode=verify-full (and sslrootcert=/path/ca.pem for a private certificate authority), \
                            because the database is on another host; RECORDER_ALLOW_PLAINTEXT_DATABASE=on allows a \
                            connection that is not encrypted";
            return Err(malformed("DATABASE_URL", expected, &"TLS is not required"));
        }
        Ok(url)
    }

    /// Returns the broker's servers and credentials; an error if `NATS_URL` is not set.
    pub fn broker(&self) -> Result<&BrokerConfig, ConfigError> {
        self.broker.as_ref().ok_or_else(|| missing("NATS_URL", "nats://host:4222"))
    }

    /// Returns `RECORDER_SIGNING_KEY_FILE`, the file with the private key for signing session tokens; an error if not
    /// set.
    pub fn signing_key_file(&self) -> Result<&PathBuf, ConfigError> {
        let expected = "the path of a private key made by `recorder keys create`";
        self.signing_key_file.as_ref().ok_or_else(|| missing("RECORDER_SIGNING_KEY_FILE", expected))
    }
}

/// Returns true if a connection to the database may leave this host without TLS: the host is neither a loopback address nor
/// the directory of a Unix socket, and `sslmode` is absent, `disable`, `allow` or `prefer`. False for a malformed URL, which is
/// reported when it is used.
fn may_be_plaintext(url: &str) -> bool {
    let Ok(options) = url.parse::<PgConnectOptions>() else { return false };
    if matches!(options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull) {
        return false;
    }
    let host = options.get_host().trim_matches(['[', ']']);
    let is_socket = options.get_socket().is_some() || host.starts_with('/');
    let is_loopback = host.parse().map_or(host == "localhost", |address: IpAddr| address.is_loopback());
    !is_socket && !is_loopback
}

fn within(
    env: &Environment,
    name: &str,
    default: usize,
    most: usize,
    expected: &'static str,
) -> Result<usize, ConfigError> {
    match env.optional_or(name, default, expected)? {
        value if (1..=most).contains(&value) => Ok(value),
        value => Err(malformed(name, expected, &value)),
    }
}

fn missing(name: &str, expected: &'static str) -> ConfigError {
    ConfigError::Missing { name: name.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../deploy/recorder.env");

    /// The assignments in the sample file, including the commented-out lines.
    fn assignments() -> Vec<(&'static str, &'static str)> {
        let lines = SAMPLE.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
        let assignment = |line: &'static str| {
            let (name, value) = line.split_once('=')?;
            name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_').then_some((name, value))
        };
        lines.filter_map(assignment).collect()
    }

    #[test]
    fn the_sample_has_every_setting_and_its_defaults() {
        let names: Vec<_> = assignments().into_iter().map(|(name, _)| name).collect();
        let expected = [
            "DATABASE_URL",
            "RECORDER_ALLOW_PLAINTEXT_DATABASE",
            "NATS_URL",
            "NATS_USER",
            "NATS_PASSWORD",
            "NATS_CA_FILE",
            "NATS_CERTIFICATE_FILE",
            "NATS_CERTIFICATE_KEY_FILE",
            "RECORDER_SIGNING_KEY_FILE",
            "TOKEN_KEYS_FILE",
            "TOKEN_ISSUER",
            "TOKEN_ISSUER_AUDIENCE",
            "TOKEN_ISSUER_KEYS_URL",
            "TOKEN_ISSUER_SCOPE",
            "TOKEN_ISSUER_MAX_LIFETIME",
            "RECORDER_LISTEN",
            "RECORDER_SERVE_LISTEN",
            "RECORDER_SERVE_CERTIFICATE_FILE",
            "RECORDER_SERVE_CERTIFICATE_KEY_FILE",
            "RECORDER_SERVE_HEALTH_LISTEN",
            "RECORDER_SERVE_CONNECTIONS",
            "RECORDER_TOKEN_TTL",
            "RECORDER_SESSION_TTL",
            "RECORDER_TRUSTED_PROXIES",
            "RECORDER_BATCH_EVENTS",
            "RECORDER_BATCH_BYTES",
            "RECORDER_BATCH_LINGER",
            "RECORDER_GATEWAY_GRACE",
            "RECORDER_LONGEST_CHAT",
            "LOG",
            "LOG_FORMAT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_TRACES_SAMPLER_ARG",
        ];
        assert_eq!(names, expected);
        let mut sample = Config::read(&Environment::from_pairs(assignments())).unwrap();
        let defaults = Config::read(&Environment::from_pairs::<&str, &str>([])).unwrap();
        assert_eq!((sample.batch, sample.listen), (defaults.batch, defaults.listen));
        assert_eq!(sample.orphans, defaults.orphans);
        assert!(sample.serve.issuer.take().is_some(), "the issuer is set in the sample only: the default is no issuer");
        assert!(sample.serve.certificate.take().is_some(), "the default is no TLS");
        assert_eq!(format!("{:?}", sample.serve), format!("{:?}", defaults.serve));
        assert!(sample.database_url().is_ok() && sample.broker().is_ok() && sample.signing_key_file().is_ok());
    }

    #[test]
    fn a_database_on_another_host_needs_tls() {
        let refusal = |url: &str, allow: &str| {
            let pairs = [("DATABASE_URL", url), ("RECORDER_ALLOW_PLAINTEXT_DATABASE", allow)];
            let config = Config::read(&Environment::from_pairs(pairs)).unwrap();
            config.database_url().err().map(|error| error.to_string())
        };
        let local = [
            "postgres://u:secret@127.0.0.1:5432/d",
            "postgres://u:secret@127.1.2.3/d?sslmode=disable",
            "postgres://u:secret@[::1]/d",
            "postgres://u:secret@localhost/d?sslmode=prefer",
            "postgres://u:secret@%2Fvar%2Frun%2Fpostgresql/d",
            "postgres://u:secret@/d?host=/var/run/postgresql",
        ];
        let encrypted = ["require", "verify-ca", "verify-full"].map(|mode| format!("postgres://u@db/d?sslmode={mode}"));
        for url in local.into_iter().chain(encrypted.iter().map(String::as_str)) {
            assert_eq!(refusal(url, ""), None, "{url}");
        }
        let remote = [
            "postgres://u:secret@db.example.org/d",
            "postgres://u:secret@10.0.0.7/d?sslmode=prefer",
            "postgres://u:secret@[2001:db8::1]/d?sslmode=allow",
            "postgres://u:secret@localhost.example.org/d?sslmode=disable",
            "postgres://u:secret@127.0.0.1/d?host=10.0.0.7",
        ];
        for url in remote {
            let error = refusal(url, "off").unwrap_or_default();
            assert!(
                error.starts_with("DATABASE_URL is malformed: expected a URL with sslmode=verify-full"),
                "{url}: {error}"
            );
            assert!(
                error.contains("RECORDER_ALLOW_PLAINTEXT_DATABASE=on") && !error.contains("secret"),
                "{url}: {error}"
            );
            assert_eq!(refusal(url, "on"), None, "{url}");
        }
    }

    #[test]
    fn an_error_names_the_setting() {
        let error = |name: &str, value: &str| {
            Config::read(&Environment::from_pairs([(name, value)])).map(drop).unwrap_err().to_string()
        };
        assert!(
            error("RECORDER_BATCH_EVENTS", "0").starts_with("RECORDER_BATCH_EVENTS is malformed: expected a number")
        );
        assert!(error("RECORDER_BATCH_LINGER", "1h").starts_with("RECORDER_BATCH_LINGER is malformed"));
        assert_eq!(error("RECORDER_TYPO", "1"), "RECORDER_TYPO is not a setting of this program");
        let config = Config::read(&Environment::from_pairs([("RECORDER_URL", "http://127.0.0.1:8081")])).unwrap();
        let missing = config.database_url().unwrap_err().to_string();
        assert!(missing.starts_with("DATABASE_URL is not set: expected postgres://"));
    }
}
