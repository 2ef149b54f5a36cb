//! The recorder's settings, all from the environment. `deploy/recorder.env` has each of them with its meaning.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use shared::client_address::TrustedProxies;
use shared::config::{ConfigError, Environment, malformed};
use shared::issuer::IssuerConfig;
use shared::telemetry::LogConfig;

use crate::pipeline::orphans::OrphanPolicy;
use crate::policy::batch::BatchLimits;

/// All settings. What a command needs and is not set, it asks for by the methods.
#[derive(Debug)]
pub struct Config {
    database_url: Option<SecretString>,
    nats_url: Option<String>,
    signing_key_file: Option<PathBuf>,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
    /// What `serve` needs.
    pub serve: ServeConfig,
    /// The public keys of session tokens, where they are not beside the private one.
    pub token_keys_file: Option<PathBuf>,
    /// The limits of a batch.
    pub batch: BatchLimits,
    /// When a chat has no gateway any more.
    pub orphans: OrphanPolicy,
    /// What to log.
    pub log: LogConfig,
}

/// What `recorder serve` needs.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where the API is served.
    pub listen: SocketAddr,
    /// How many connections to the database it may have.
    pub connections: u32,
    /// How long an access token is good: also how long a disabled user can still chat.
    pub token_ttl: time::Duration,
    /// How long a session can be refreshed.
    pub session_ttl: time::Duration,
    /// Whose word is taken for where a request came from: the gateways.
    pub trusted: TrustedProxies,
    /// An identity provider outside, if its users may read their record too.
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
            connections: match env.optional_or("RECORDER_SERVE_CONNECTIONS", 16_u32, "a number from 1 to 1000")? {
                number @ 1..=1000 => number,
                number => return Err(malformed("RECORDER_SERVE_CONNECTIONS", "a number from 1 to 1000", &number)),
            },
            token_ttl: duration_up_to(env, "RECORDER_TOKEN_TTL", 15 * 60, 24 * 3600)?,
            session_ttl: duration_up_to(env, "RECORDER_SESSION_TTL", 30 * 86_400, 366 * 86_400)?,
            trusted: env.optional_or("RECORDER_TRUSTED_PROXIES", loopback, networks)?,
            issuer: IssuerConfig::read(env)?,
        })
    }
}

/// A duration of whole seconds, up to a bound.
fn duration_up_to(env: &Environment, name: &str, default: u64, most: u64) -> Result<time::Duration, ConfigError> {
    match env.duration(name, Duration::from_secs(default))?.as_secs() {
        seconds if (1..=most).contains(&seconds) => Ok(time::Duration::seconds(i64::try_from(seconds).unwrap_or(1))),
        _ => Err(malformed(name, "a duration of at least a second", &format!("at most {most}s"))),
    }
}

impl Config {
    /// Reads them all, and refuses what is malformed, or of our prefix and unknown.
    pub fn read(env: &Environment) -> Result<Self, ConfigError> {
        let defaults = BatchLimits::default();
        let config = Self {
            database_url: env.secret("DATABASE_URL"),
            nats_url: env.text("NATS_URL").map(str::to_owned),
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
        };
        // Where clients find the recorder: not ours to read, but in the same files.
        env.text("RECORDER_URL");
        env.refuse_unknown(&["RECORDER_"])?;
        if config.batch.linger > Duration::from_secs(5) {
            return Err(malformed("RECORDER_BATCH_LINGER", "at most 5s", &"it is longer"));
        }
        if config.orphans.grace < Duration::from_secs(1) {
            return Err(malformed("RECORDER_GATEWAY_GRACE", "at least 1s", &"it is shorter"));
        }
        if config.orphans.longest_chat < Duration::from_secs(60) {
            return Err(malformed("RECORDER_LONGEST_CHAT", "at least 1m", &"it is shorter"));
        }
        Ok(config)
    }

    /// The database's URL, with its password.
    pub fn database_url(&self) -> Result<&SecretString, ConfigError> {
        self.database_url.as_ref().ok_or_else(|| missing("DATABASE_URL", "postgres://user:password@host:5432/database"))
    }

    /// The broker's URL, or several with commas between them.
    pub fn nats_url(&self) -> Result<&str, ConfigError> {
        self.nats_url.as_deref().ok_or_else(|| missing("NATS_URL", "nats://host:4222"))
    }

    /// The file with the private key that signs session tokens.
    pub fn signing_key_file(&self) -> Result<&PathBuf, ConfigError> {
        let expected = "the path of a private key made by `recorder keys create`";
        self.signing_key_file.as_ref().ok_or_else(|| missing("RECORDER_SIGNING_KEY_FILE", expected))
    }
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

    /// The sample's assignments, the ones that are commented out included.
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
            "NATS_URL",
            "RECORDER_SIGNING_KEY_FILE",
            "TOKEN_KEYS_FILE",
            "TOKEN_ISSUER",
            "TOKEN_ISSUER_AUDIENCE",
            "TOKEN_ISSUER_KEYS_URL",
            "RECORDER_LISTEN",
            "RECORDER_SERVE_LISTEN",
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
        ];
        assert_eq!(names, expected);
        let mut sample = Config::read(&Environment::from_pairs(assignments())).unwrap();
        let defaults = Config::read(&Environment::from_pairs::<&str, &str>([])).unwrap();
        assert_eq!((sample.batch, sample.listen), (defaults.batch, defaults.listen));
        assert_eq!(sample.orphans, defaults.orphans);
        assert!(sample.serve.issuer.take().is_some(), "there is none unless it is set");
        assert_eq!(format!("{:?}", sample.serve), format!("{:?}", defaults.serve));
        assert!(sample.database_url().is_ok() && sample.nats_url().is_ok() && sample.signing_key_file().is_ok());
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
