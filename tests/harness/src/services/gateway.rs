//! A gateway process, its settings and its metrics.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::http;
use crate::services::command::{command, with_open_files};
use crate::services::service::Service;

/// Settings of a gateway. All instances share the keys; each instance has a data directory of its own.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Listening address, `host:port`. Port 0 takes a free port.
    pub listen: String,
    /// URL of the broker.
    pub nats_url: String,
    /// URL of the provider, up to and including `/v1`.
    pub llm_base_url: String,
    /// The provider's key, if the provider asks for one.
    pub llm_api_key: Option<String>,
    /// File with the public keys that verify tokens.
    pub token_keys_file: PathBuf,
    /// Keys of conversation ids.
    pub conversation_keys: String,
    /// Data directory of the instance.
    pub data_dir: PathBuf,
    /// Name of the instance in events.
    pub instance: String,
    /// The limits of open files, soft and hard. `None`: those of this process.
    pub open_files: Option<(u64, u64)>,
    /// Further settings, as environment variables.
    pub more: Vec<(String, String)>,
}

/// A gateway process. Killed when dropped.
#[derive(Debug)]
pub struct Gateway(Service);

impl Gateway {
    /// Starts a gateway of this program, appends the output to `log`, and waits until the gateway listens.
    pub async fn start(program: &Path, settings: &GatewaySettings, log: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.data_dir)?;
        let mut variables = vec![
            ("GATEWAY_LISTEN", settings.listen.clone()),
            ("GATEWAY_HEALTH_LISTEN", "127.0.0.1:0".to_owned()),
            ("NATS_URL", settings.nats_url.clone()),
            ("LLM_BASE_URL", settings.llm_base_url.clone()),
            ("TOKEN_KEYS_FILE", settings.token_keys_file.display().to_string()),
            ("CONVERSATION_KEYS", settings.conversation_keys.clone()),
            ("GATEWAY_DATA_DIR", settings.data_dir.display().to_string()),
            ("GATEWAY_INSTANCE", settings.instance.clone()),
        ];
        variables.extend(settings.llm_api_key.clone().map(|key| ("LLM_API_KEY", key)));
        variables.extend(settings.more.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let command = command(program, variables);
        let command = match settings.open_files {
            Some(limits) => with_open_files(&command, limits),
            None => command,
        };
        Ok(Self(Service::start("gateway", command, log).await?))
    }

    /// Reads the value of a metric.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = http::client().get(self.health_url("/metrics")).send().await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("no metric {name} in\n{text}"))
    }

    /// Waits until the broker has every event of the journal. Fails after `within`.
    pub async fn drained(&self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let waiting = self.metric("stenograph_gateway_journal_waiting").await?;
            if waiting == 0.0 {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{waiting} events still wait in the journal after {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Deref for Gateway {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}
