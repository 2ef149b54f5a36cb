//! The background task that fetches the provider's keys at startup and refreshes the keys every minute. Requests never
//! wait for the provider.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::Issuer;
use crate::http_client::FetchError;

/// The time between two refreshes after a success.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The time until the next try after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The maximum time for one refresh, OpenID discovery included.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// An error while the provider's keys are refreshed.
#[derive(Debug, thiserror::Error)]
enum KeyFetchError {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("expected an OpenID configuration with issuer and jwks_uri: {0}")]
    InvalidConfiguration(serde_json::Error),
    #[error("the OpenID configuration is of another issuer, {0:?}")]
    OtherIssuer(String),
    #[error("expected a JSON Web Key Set: {0}")]
    InvalidKeySet(serde_json::Error),
    #[error("the key set holds no key that can verify a signature")]
    NoUsableKey,
    #[error("no complete answer within {FETCH_TIMEOUT:?}")]
    Timeout,
}

/// The used members of the OpenID Connect Discovery document.
#[derive(Deserialize)]
struct ProviderConfiguration {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    /// Refreshes the keys for ever: every minute after a success, every 5 seconds after a failure. Calls `changed`
    /// after each key set that differs from the previous key set.
    ///
    /// A failure leaves the previous keys in use. The first failure after a success is logged; repeated failures are
    /// not.
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
                        tracing::info!(issuer, keys, "identity provider keys updated");
                        Ok(())
                    }
                    Err(error) => Err(KeyFetchError::InvalidKeySet(error)),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = &outcome
                && is_healthy
            {
                tracing::error!(
                    issuer, %error,
                    "cannot refresh the identity provider's keys: previous keys stay in use, next try in 5 seconds"
                );
            }
            is_healthy = outcome.is_ok();
            sleep(if is_healthy { REFRESH_INTERVAL } else { RETRY_DELAY }).await;
        }
    }

    /// Downloads the key set from the configured URL, or from the URL in the discovery document.
    async fn fetch_keys(&self, client: &reqwest::Client) -> Result<String, KeyFetchError> {
        let url = match &self.config.keys_url {
            Some(url) => url.clone(),
            None => self.discover_keys_url(client).await?,
        };
        Ok(crate::http_client::fetch(client, &url).await?)
    }

    /// Reads the URL of the key set from the provider's OpenID configuration.
    async fn discover_keys_url(&self, client: &reqwest::Client) -> Result<String, KeyFetchError> {
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let text = crate::http_client::fetch(client, &url).await?;
        let configuration: ProviderConfiguration =
            serde_json::from_str(&text).map_err(KeyFetchError::InvalidConfiguration)?;
        // A discovery document of another issuer would make the keys of that issuer valid for tokens of this issuer.
        if configuration.issuer == self.config.issuer {
            Ok(configuration.jwks_uri)
        } else {
            Err(KeyFetchError::OtherIssuer(configuration.issuer))
        }
    }
}
