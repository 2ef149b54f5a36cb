//! Getting the provider's keys: at once, and again and again. Never on a request's way.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::Issuer;
use crate::http_client::FetchError;

/// How long the keys are good for before they are asked for again, and how long to wait if they could not be had.
const AGAIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(5);
/// How long getting them may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum NoKeys {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("expected an OpenID configuration with issuer and jwks_uri: {0}")]
    Configuration(serde_json::Error),
    #[error("the OpenID configuration is of {0:?}")]
    OtherIssuer(String),
    #[error("expected a JSON Web Key Set: {0}")]
    Set(serde_json::Error),
    #[error("the key set holds no key that can verify a signature")]
    Empty,
    #[error("it takes too long")]
    Late,
}

/// What OpenID Connect Discovery says, as far as it concerns us.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    /// Follows the keys for ever, and calls `changed` whenever they are others than before. What cannot be had or is no good
    /// changes nothing.
    pub async fn follow(&self, client: &reqwest::Client, changed: impl Fn()) {
        let mut known = String::new();
        let mut is_well = true;
        let issuer = &self.config.issuer;
        loop {
            let published = timeout(PATIENCE, self.published(client)).await.unwrap_or(Err(NoKeys::Late));
            let taken = match published {
                Ok(text) if text == known => Ok(()),
                Ok(text) => match self.take_keys(&text) {
                    Ok(0) => Err(NoKeys::Empty),
                    Ok(keys) => {
                        known = text;
                        changed();
                        tracing::info!(issuer, keys, "the identity provider's keys are known");
                        Ok(())
                    }
                    Err(error) => Err(NoKeys::Set(error)),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = &taken
                && is_well
            {
                tracing::error!(issuer, %error, "the identity provider's keys could not be had: the old ones stay");
            }
            is_well = taken.is_ok();
            sleep(if is_well { AGAIN } else { PAUSE }).await;
        }
    }

    async fn published(&self, client: &reqwest::Client) -> Result<String, NoKeys> {
        let url = match &self.config.keys_url {
            Some(url) => url.clone(),
            None => self.discovered(client).await?,
        };
        Ok(crate::http_client::fetch(client, &url).await?)
    }

    async fn discovered(&self, client: &reqwest::Client) -> Result<String, NoKeys> {
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let text = crate::http_client::fetch(client, &url).await?;
        let found: Discovered = serde_json::from_str(&text).map_err(NoKeys::Configuration)?;
        // Whoever answers for another issuer could lend it their keys.
        if found.issuer == self.config.issuer { Ok(found.jwks_uri) } else { Err(NoKeys::OtherIssuer(found.issuer)) }
    }
}
