//! Following the public keys: the file as it changes, and where they are published, if that is set. Never on a chat's way: a
//! key that cannot be fetched is no reason to refuse anyone whose key is known.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::Uri;
use shared::issuer::Issuer;
use shared::token::Verifier;
use tokio::time::{Instant, sleep, timeout};

use crate::auth::Authenticator;

/// How often it is looked whether the file has changed, and how often the keys are fetched.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(2);
const FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// How long fetching may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the keys are.
#[derive(Clone, Debug)]
pub struct TokenKeySource {
    /// The file that they are read from at the start, and whenever it changes.
    pub file: PathBuf,
    /// Where they are published, if they are to be fetched: a JSON Web Key Set.
    pub url: Option<Uri>,
}

/// Reads the keys in a file.
pub fn read_keys(path: &Path) -> anyhow::Result<Verifier> {
    let keys = std::fs::read_to_string(path)
        .with_context(|| format!("TOKEN_KEYS_FILE {} could not be read", path.display()))?;
    Verifier::from_jwks(&keys).with_context(|| format!("TOKEN_KEYS_FILE {} is malformed", path.display()))
}

/// Follows the keys for ever. Whichever of file and URL was the last to change is in force; what is no good changes nothing.
pub async fn follow_keys(source: TokenKeySource, client: reqwest::Client, authenticator: Arc<Authenticator>) {
    let mut text = std::fs::read_to_string(&source.file).unwrap_or_default();
    let mut fetched = text.clone();
    let mut next_fetch = Instant::now();
    let mut is_failure_reported = false;
    loop {
        if let Some(url) = source.url.as_ref().filter(|_| Instant::now() >= next_fetch) {
            next_fetch = Instant::now() + FETCH_INTERVAL;
            match timeout(FETCH_TIMEOUT, shared::http_client::fetch(&client, &url.to_string())).await {
                Ok(Ok(published)) if published != fetched => match Verifier::from_jwks(&published) {
                    Ok(verifier) => {
                        authenticator.replace_verifier(verifier);
                        fetched = published;
                        tracing::info!(%url, "the public keys have changed");
                    }
                    Err(error) => tracing::error!(%url, %error, "the published keys are no good: the old ones stay"),
                },
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%url, %error, "the public keys could not be fetched: the old ones stay");
                }
                Err(_) => tracing::warn!(%url, "fetching the public keys takes too long: the old ones stay"),
            }
        }
        sleep(FILE_CHECK_INTERVAL).await;
        let Ok(now) = std::fs::read_to_string(&source.file) else { continue };
        if now == text {
            continue;
        }
        match Verifier::from_jwks(&now) {
            Ok(verifier) => {
                authenticator.replace_verifier(verifier);
                (text, is_failure_reported) = (now, false);
                tracing::info!(file = %source.file.display(), "the public keys have changed");
            }
            Err(error) if !is_failure_reported => {
                is_failure_reported = true;
                tracing::error!(file = %source.file.display(), %error, "the keys' file has changed, and is no good: the old ones stay");
            }
            Err(_) => {}
        }
    }
}

/// Follows the keys of the identity provider outside, if there is one, for ever.
pub async fn follow_issuer(issuer: Option<Arc<Issuer>>, client: reqwest::Client, authenticator: Arc<Authenticator>) {
    match issuer {
        Some(issuer) => issuer.refresh_keys(&client, || authenticator.clear_verified_tokens()).await,
        None => std::future::pending().await,
    }
}
