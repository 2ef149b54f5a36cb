//! The gateway.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::http;
use crate::services::command::command;
use crate::services::service::Service;

/// What a gateway is told. The keys are shared by all instances, the data directory by none.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// The broker.
    pub nats_url: String,
    /// The provider, up to and including `/v1`.
    pub llm_base_url: String,
    /// The provider's key.
    pub llm_api_key: Option<String>,
    /// The public keys that tokens are verified with.
    pub token_keys_file: PathBuf,
    /// The keys that conversation ids are made with.
    pub conversation_keys: String,
    /// A directory of this instance's own.
    pub data_dir: PathBuf,
    /// Its name, in events.
    pub instance: String,
    /// Any other of its settings.
    pub more: Vec<(String, String)>,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway(Service);

impl Gateway {
    /// Starts one with the program given, logging to the file given, and waits until it listens.
    pub async fn start(program: &Path, settings: &GatewaySettings, log: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.data_dir)?;
        let mut variables = vec![
            ("GATEWAY_LISTEN", settings.listen.clone()),
            ("NATS_URL", settings.nats_url.clone()),
            ("LLM_BASE_URL", settings.llm_base_url.clone()),
            ("TOKEN_KEYS_FILE", settings.token_keys_file.display().to_string()),
            ("CONVERSATION_KEYS", settings.conversation_keys.clone()),
            ("GATEWAY_DATA_DIR", settings.data_dir.display().to_string()),
            ("GATEWAY_INSTANCE", settings.instance.clone()),
        ];
        variables.extend(settings.llm_api_key.clone().map(|key| ("LLM_API_KEY", key)));
        variables.extend(settings.more.iter().map(|(name, value)| (name.as_str(), value.clone())));
        Ok(Self(Service::start("gateway", command(program, variables), log).await?))
    }

    /// The value of one of its metrics.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = http::client().get(self.url("/metrics")).send().await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("no metric {name} in\n{text}"))
    }

    /// Waits until the broker has everything that is in the journal.
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
