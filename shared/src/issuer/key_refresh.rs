//! Getting the provider's keys: at once, and again and again. Never on a request's way.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::Issuer;
use crate::http_client::FetchError;

/// How long the keys are good for before they are asked for again, and how long to wait if they could not be had.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// How long getting them may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum KeyFetchError {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("expected an OpenID configuration with issuer and jwks_uri: {0}")]
    InvalidConfiguration(serde_json::Error),
    #[error("the OpenID configuration is of {0:?}")]
    OtherIssuer(String),
    #[error("expected a JSON Web Key Set: {0}")]
    InvalidKeySet(serde_json::Error),
    #[error("the key set holds no key that can verify a signature")]
    NoUsableKey,
    #[error("it takes too long")]
    Timeout,
}

/// What OpenID Connect Discovery says, as far as it concerns us.
#[derive(Deserialize)]
struct ProviderConfiguration {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    /// Follows the keys for ever, and calls `changed` whenever they are others than before. What cannot be had or is no good
    /// changes nothing.
    pub async fn refresh_keys(&self, client: &reqwest::Client, changed: impl Fn()) {
        let mut current = String::new();
        let mut is_healthy = true;
        let issuer = &self.config.issuer;
        loop {
            let fetched = timeout(FETCH_TIMEOUT, self.fetch_keys(client)).await.unwrap_or(Err(KeyFetchError::Timeout));
            let outcome = match fetched {
                Ok(key_set) if key_set == current => Ok(()),
                Ok(key_set) => match self.replace_keys(&key_set) {
                    Ok(0) => Err(KeyFetchError::NoUsableKey),
                    Ok(keys) => {
                        current = key_set;
                        changed();
                        tracing::info!(issuer, keys, "the identity provider's keys are known");
                        Ok(())
                    }
                    Err(error) => Err(KeyFetchError::InvalidKeySet(error)),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = &outcome
                && is_healthy
            {
                tracing::error!(issuer, %error, "the identity provider's keys could not be had: the old ones stay");
            }
            is_healthy = outcome.is_ok();
            sleep(if is_healthy { REFRESH_INTERVAL } else { RETRY_DELAY }).await;
        }
    }

    async fn fetch_keys(&self, client: &reqwest::Client) -> Result<String, KeyFetchError> {
        let url = match &self.config.keys_url {
            Some(url) => url.clone(),
            None => self.discover_keys_url(client).await?,
        };
        Ok(crate::http_client::fetch(client, &url).await?)
    }

    async fn discover_keys_url(&self, client: &reqwest::Client) -> Result<String, KeyFetchError> {
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let text = crate::http_client::fetch(client, &url).await?;
        let configuration: ProviderConfiguration =
            serde_json::from_str(&text).map_err(KeyFetchError::InvalidConfiguration)?;
        // Whoever answers for another issuer could lend it their keys.
        if configuration.issuer == self.config.issuer {
            Ok(configuration.jwks_uri)
        } else {
            Err(KeyFetchError::OtherIssuer(configuration.issuer))
        }
    }
}
