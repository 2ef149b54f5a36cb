//! The configuration of the gateway, read once at startup from the environment. `deploy/gateway.env` lists every setting
//! for operators.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use secrecy::ExposeSecret;
use shared::config::{ConfigError, Environment, http_url, malformed};
use shared::event::RecordingMode;
use shared::http_server::tls::CertificateFiles;
use shared::issuer::IssuerConfig;
use shared::nats::BrokerConfig;
use shared::telemetry::LogConfig;
use shared::traces::TraceConfig;

use crate::auth::key_refresh::TokenKeySource;
use crate::chat::disconnect::DisconnectPolicy;
use crate::journal::{DurabilityLevel, JournalSettings};
use crate::limits::Limits;
use crate::recorder_api::RecorderApiConfig;
use crate::request::conversation_id::{ConversationKeys, EXPECTED_KEYS};
use crate::request::thread_id::ThreadSettings;
use crate::routing::proxy::{EXPECTED_PROXY, EnvironmentProxies, Proxy, ProxySetting};
use crate::routing::{AskForUsage, KeyHeader, OnDisconnect, UpstreamSettings, appended_path};
use crate::upstream::registry::TableSource;

/// The configuration of the gateway, in typed sections.
#[derive(Debug)]
pub struct Config {
    /// The address and port of the HTTP server: `GATEWAY_LISTEN`, by default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// The files of the server's certificate: `GATEWAY_CERTIFICATE_FILE` and `GATEWAY_CERTIFICATE_KEY_FILE`. `None`: no TLS.
    pub certificate: Option<CertificateFiles>,
    /// The address and port of the listener for health checks and metrics: `GATEWAY_HEALTH_LISTEN`, by default
    /// 127.0.0.1:8090.
    pub health_listen: SocketAddr,
    /// The name of this instance in events, logs and the lease. Two running instances must not share a name.
    pub instance: String,
    /// The filter and the format of log lines: `LOG` and `LOG_FORMAT`.
    pub log: LogConfig,
    /// The collector of traces: `OTEL_EXPORTER_OTLP_ENDPOINT` and others. `None`: no traces.
    pub traces: Option<TraceConfig>,
    /// The source of the public keys that verify session tokens.
    pub token_keys: TokenKeySource,
    /// The external identity provider whose tokens are accepted as well. `None` without `TOKEN_ISSUER`.
    pub token_issuer: Option<IssuerConfig>,
    /// The secret keys that make and verify conversation ids: `CONVERSATION_KEYS`.
    pub conversation_keys: ConversationKeys,
    /// The deployment's choices about thread ids: `GATEWAY_THREAD_HEADER` and `GATEWAY_THREAD_FROM_CACHE_KEY`.
    pub threads: ThreadSettings,
    /// The broker and the journal that record events.
    pub journal: JournalConfig,
    /// The source of the routing table: a routes file, or the settings of a single provider.
    pub upstreams: TableSource,
    /// The recorder's API, to which reads are forwarded. `None` without `RECORDER_URL`.
    pub recorder_api: Option<RecorderApiConfig>,
    /// The limits on size, number and duration of requests and answers.
    pub limits: Limits,
    /// The deployment's policy for answers whose clients disconnect.
    pub disconnect_policy: DisconnectPolicy,
    /// The other origins whose pages may call, with cookies: `GATEWAY_CORS_ORIGINS`. If empty, pages of every origin may
    /// call, but without cookies.
    pub cors_origins: Vec<http::HeaderValue>,
}

/// The broker that receives events, and the local journal in front of the broker.
#[derive(Debug)]
pub struct JournalConfig {
    /// The NATS servers and their credentials: `NATS_URL`, by default nats://127.0.0.1:4222.
    pub broker: BrokerConfig,
    /// The settings of the journal. `None` with `GATEWAY_RECORDING=off`, which exists only for measuring the cost of
    /// recording.
    pub journal: Option<JournalSettings>,
    /// The most that events keep of any call: `GATEWAY_RECORDING`, by default everything.
    pub mode: RecordingMode,
}

impl Config {
    /// Reads all settings. Returns an error that names the variable which is missing, malformed or unknown, and the value
    /// that was expected.
    pub fn read(env: &Environment) -> Result<Self, ConfigError> {
        let keys = env
            .secret("CONVERSATION_KEYS")?
            .ok_or_else(|| ConfigError::Missing { name: "CONVERSATION_KEYS".into(), expected: EXPECTED_KEYS })?;
        let limits = Limits::read(env)?;
        let config = Self {
            listen: env.optional_or(
                "GATEWAY_LISTEN",
                SocketAddr::from(([127, 0, 0, 1], 8080)),
                "an address and port such as 127.0.0.1:8080",
            )?,
            certificate: CertificateFiles::read(env, "GATEWAY_CERTIFICATE_FILE", "GATEWAY_CERTIFICATE_KEY_FILE")?,
            health_listen: health_listen(env)?,
            instance: instance(env)?,
            log: LogConfig::read(env)?,
            traces: TraceConfig::read(env)?,
            token_keys: TokenKeySource {
                file: env.required("TOKEN_KEYS_FILE", "the path of a JSON Web Key Set")?.into(),
                url: env.text("TOKEN_KEYS_URL").map(|url| http_url("TOKEN_KEYS_URL", url)).transpose()?,
            },
            token_issuer: IssuerConfig::read(env)?,
            conversation_keys: ConversationKeys::parse(keys.expose_secret()).ok_or_else(|| ConfigError::Malformed {
                name: "CONVERSATION_KEYS".into(),
                expected: EXPECTED_KEYS,
                detail: String::new(),
            })?,
            threads: thread_settings(env)?,
            journal: JournalConfig::read(env)?,
            upstreams: TableSource {
                provider: provider(env, &limits)?,
                file: env.text("GATEWAY_ROUTES_FILE").map(PathBuf::from),
                default_model: env.text("GATEWAY_DEFAULT_MODEL").map(str::to_owned),
                environment_proxies: environment_proxies(env)?,
            },
            recorder_api: RecorderApiConfig::read(env)?,
            limits,
            disconnect_policy: disconnect_policy(env)?,
            cors_origins: cors_origins(env)?,
        };
        // `.local/env` tells scripts the gateway's URL. The variable is not a setting, but must not be refused as unknown.
        let _ = env.text("GATEWAY_URL");
        env.refuse_unknown(&["GATEWAY_"])?;
        Ok(config)
    }
}

/// Reads the address of the listener for health checks and metrics.
pub fn health_listen(env: &Environment) -> Result<SocketAddr, ConfigError> {
    let default = SocketAddr::from(([127, 0, 0, 1], 8090));
    env.optional_or("GATEWAY_HEALTH_LISTEN", default, "an address and port such as 127.0.0.1:8090")
}

impl JournalConfig {
    fn read(env: &Environment) -> Result<Self, ConfigError> {
        let broker = BrokerConfig::read_or(env, "nats://127.0.0.1:4222")?;
        let level = match env.text("GATEWAY_DURABILITY") {
            Some("journal") => DurabilityLevel::Journal,
            Some("synced") => DurabilityLevel::Synced,
            None | Some("replicated") => DurabilityLevel::Replicated,
            Some(other) => return Err(malformed("GATEWAY_DURABILITY", "journal, synced or replicated", &other)),
        };
        let acknowledgement_timeout = env.duration("GATEWAY_JOURNAL_PATIENCE", Duration::from_millis(250))?;
        let expected = "a number of bytes, 4194304 or more";
        let max_bytes: u64 = env.optional_or("GATEWAY_JOURNAL_MAX_BYTES", 4 << 30, expected)?;
        if max_bytes < 4 << 20 {
            return Err(malformed("GATEWAY_JOURNAL_MAX_BYTES", expected, &max_bytes));
        }
        let retention = env.duration("GATEWAY_JOURNAL_KEEP", Duration::from_secs(150))?;
        let (is_recorded, mode) = match env.text("GATEWAY_RECORDING") {
            None | Some("full" | "on") => (true, RecordingMode::Full),
            Some("metadata") => (true, RecordingMode::Metadata),
            Some("none") => (true, RecordingMode::None),
            Some("off") => (false, RecordingMode::Full),
            Some(other) => return Err(malformed("GATEWAY_RECORDING", "full, metadata or none", &other)),
        };
        let directory = env.text("GATEWAY_DATA_DIR").map(PathBuf::from);
        let directory = match directory {
            Some(directory) => directory.join("journal"),
            None if !is_recorded => return Ok(Self { broker, journal: None, mode }),
            None => PathBuf::from(env.required("GATEWAY_DATA_DIR", "a directory that no other instance uses")?),
        };
        let journal = JournalSettings { directory, level, acknowledgement_timeout, max_bytes, retention };
        Ok(Self { broker, journal: Some(journal).filter(|_| is_recorded), mode })
    }
}

/// Reads the settings of the single provider of a deployment without a routes file. With a routes file, the timeouts are
/// the defaults of the file's upstreams.
fn provider(env: &Environment, limits: &Limits) -> Result<UpstreamSettings, ConfigError> {
    let expected = "an http or https URL such as https://api.openai.com/v1";
    let base_url: Uri = env.optional_or("LLM_BASE_URL", Uri::from_static("https://api.openai.com/v1"), expected)?;
    if !matches!(base_url.scheme_str(), Some("http" | "https")) || base_url.host().is_none() {
        return Err(malformed("LLM_BASE_URL", expected, &"not an absolute URL"));
    }
    if let Some(path) = appended_path(&base_url) {
        let detail = format!("it ends in {path}, which the gateway appends: leave it out");
        return Err(malformed("LLM_BASE_URL", expected, &detail));
    }
    Ok(UpstreamSettings {
        name: base_url.host().unwrap_or("upstream").to_owned(),
        base_url,
        key: env.secret("LLM_API_KEY")?,
        key_header: KeyHeader::default(),
        dialects: Vec::new(),
        operations: None,
        headers: http::HeaderMap::new(),
        connect_timeout: env.duration("GATEWAY_CONNECT_TIMEOUT", Duration::from_secs(10))?,
        head_timeout: env.duration("GATEWAY_HEAD_TIMEOUT", Duration::from_secs(660))?,
        idle_timeout: limits.idle_timeout,
        total_timeout: limits.total_timeout,
        keep_alive: env.duration("GATEWAY_UPSTREAM_KEEP_ALIVE", Duration::from_secs(30))?,
        ask_for_usage: AskForUsage::Always,
        proxy: ProxySetting::FromEnvironment,
        list_models: true,
    })
}

/// Reads the proxies of the environment: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in upper or lower case.
fn environment_proxies(env: &Environment) -> Result<EnvironmentProxies, ConfigError> {
    let proxy = |upper: &str, lower: &str| {
        let text = env.text(lower).or(env.text(upper));
        // The value may have a password, so the error does not repeat it.
        text.map(|url| Proxy::parse(url).ok_or_else(|| malformed(upper, EXPECTED_PROXY, &"another URL"))).transpose()
    };
    let exceptions = env.text("no_proxy").or(env.text("NO_PROXY")).unwrap_or_default();
    Ok(EnvironmentProxies {
        https: proxy("HTTPS_PROXY", "https_proxy")?,
        http: proxy("HTTP_PROXY", "http_proxy")?,
        exceptions: EnvironmentProxies::exceptions(exceptions),
    })
}

fn thread_settings(env: &Environment) -> Result<ThreadSettings, ConfigError> {
    let is_cache_key_a_thread = match env.text("GATEWAY_THREAD_FROM_CACHE_KEY") {
        None | Some("on") => true,
        Some("off") => false,
        Some(other) => return Err(malformed("GATEWAY_THREAD_FROM_CACHE_KEY", "on or off", &other)),
    };
    let header = env
        .text("GATEWAY_THREAD_HEADER")
        .map(|name| name.parse().map_err(|error| malformed("GATEWAY_THREAD_HEADER", "the name of a header", &error)));
    Ok(ThreadSettings { header: header.transpose()?, is_cache_key_a_thread })
}

fn disconnect_policy(env: &Environment) -> Result<DisconnectPolicy, ConfigError> {
    let standard = DisconnectPolicy::default();
    let drain_for = env.duration("GATEWAY_DRAIN_FOR", standard.drain_for)?;
    let most = env.optional_or("GATEWAY_MAX_DRAINING", standard.max_drains, "a number of chats")?;
    if most > 1_000_000 {
        return Err(malformed("GATEWAY_MAX_DRAINING", "a number of chats from 0 to 1000000", &most));
    }
    let otherwise = match env.text("GATEWAY_ON_LEAVE") {
        None | Some("cancel") => OnDisconnect::Cancel,
        Some("drain") => OnDisconnect::Drain(drain_for),
        Some(other) => return Err(malformed("GATEWAY_ON_LEAVE", "cancel or drain", &other)),
    };
    Ok(DisconnectPolicy { default: otherwise, drain_for, max_drains: most })
}

/// Returns the name of this instance: `GATEWAY_INSTANCE`, or the host name with a random suffix, so that two instances on
/// one host differ.
fn instance(env: &Environment) -> Result<String, ConfigError> {
    let expected = "a name of 1 to 64 letters, digits, '-', '_' or '.'";
    let Some(name) = env.text("GATEWAY_INSTANCE") else {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
        return Ok(format!("{host}-{:08x}", rand::random::<u32>()));
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() > 64 || !name.chars().all(is_plain) {
        return Err(malformed("GATEWAY_INSTANCE", expected, &name));
    }
    Ok(name.to_owned())
}

fn cors_origins(env: &Environment) -> Result<Vec<http::HeaderValue>, ConfigError> {
    let expected = "comma-separated origins such as https://chat.example.org";
    let names =
        env.text("GATEWAY_CORS_ORIGINS").unwrap_or("").split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| match name.parse::<Uri>() {
            Ok(uri) if uri.scheme().is_some() && uri.path() == "/" && !name.ends_with('/') => {
                name.parse().map_err(|error| malformed("GATEWAY_CORS_ORIGINS", expected, &error))
            }
            _ => Err(malformed("GATEWAY_CORS_ORIGINS", expected, &name)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [(&str, &str); 3] = [
        ("TOKEN_KEYS_FILE", "keys.json"),
        ("CONVERSATION_KEYS", "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
        ("GATEWAY_DATA_DIR", "data"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<Config, String> {
        Config::read(&Environment::from_pairs(REQUIRED.iter().chain(more).copied())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_error_names_the_setting_that_is_wrong() {
        assert!(read(&[]).is_ok());
        let cases = [
            ("GATEWAY_MAX_BODY", "1", "GATEWAY_MAX_BODY is not a setting of this program"),
            ("GATEWAY_IDLE_TIMEOUT", "soon", "GATEWAY_IDLE_TIMEOUT is malformed: expected a duration"),
            ("LLM_BASE_URL", "api.openai.com", "LLM_BASE_URL is malformed: expected an http or https URL"),
            ("GATEWAY_DURABILITY", "high", "GATEWAY_DURABILITY is malformed: expected journal, synced or replicated"),
            ("GATEWAY_RECORDING", "some", "GATEWAY_RECORDING is malformed: expected full, metadata or none"),
            ("GATEWAY_JOURNAL_MAX_BYTES", "1000", "GATEWAY_JOURNAL_MAX_BYTES is malformed: expected a number of bytes"),
            ("GATEWAY_DATA_DIR", "", "GATEWAY_DATA_DIR is not set: expected a directory"),
            ("GATEWAY_THREAD_HEADER", "x y", "GATEWAY_THREAD_HEADER is malformed: expected the name of a header"),
            (
                "GATEWAY_MAX_BODY_MEMORY",
                "1000",
                "GATEWAY_MAX_BODY_MEMORY is malformed: expected a number of bytes, at least",
            ),
            ("GATEWAY_BODY_USER_SHARE", "101", "GATEWAY_BODY_USER_SHARE is malformed"),
            ("GATEWAY_CHATS_USER_SHARE", "0", "GATEWAY_CHATS_USER_SHARE is malformed"),
            ("GATEWAY_MAX_CHATS", "0", "GATEWAY_MAX_CHATS is malformed"),
            ("GATEWAY_CORS_ORIGINS", "https://a.example/x", "GATEWAY_CORS_ORIGINS is malformed"),
            ("HTTPS_PROXY", "socks5://u:secret@proxy", "HTTPS_PROXY is malformed: expected the http URL of a proxy"),
            ("CONVERSATION_KEYS", "1:secret", "CONVERSATION_KEYS is malformed: expected comma-separated keys"),
        ];
        for (name, value, expected) in cases {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(expected), "{name}={value}: {error}");
            assert!(!error.contains("secret"), "{name}: {error}");
        }
    }

    #[test]
    fn the_sample_file_has_every_setting_and_is_valid() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/gateway.env");
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| line.trim_start_matches("# "));
        let pairs: Vec<_> =
            lines.filter_map(|line| line.split_once('=')).filter(|(name, _)| !name.contains(' ')).collect();
        let config = Config::read(&Environment::from_pairs(pairs.iter().copied()));
        assert!(config.is_ok(), "{config:?}");
        let source = [include_str!("config.rs"), include_str!("limits.rs"), include_str!("recorder_api.rs")];
        let source: String = source.iter().map(|text| text.split("mod tests").next().unwrap()).collect();
        for name in source.split('"').filter(|word| word.starts_with("GATEWAY_") && word.len() > 8) {
            let is_internal = name == "GATEWAY_URL";
            assert!(
                is_internal || pairs.iter().any(|(known, _)| *known == name),
                "{name} is not in deploy/gateway.env"
            );
        }
    }
}
