//! Keeps the public keys up to date: from a file and, if configured, from a URL. Chats never wait for a refresh, and a
//! failed fetch refuses no caller whose key is known.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::Uri;
use shared::issuer::Issuer;
use shared::token::Verifier;
use tokio::time::{Instant, sleep, timeout};

use crate::auth::Authenticator;

/// The interval between two reads of the file, and between two fetches from the URL.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(2);
const FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// The time limit for one fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The places from which public keys are read.
#[derive(Clone, Debug)]
pub struct TokenKeySource {
    /// The file with the keys, read at the start and whenever the file changes. From `TOKEN_KEYS_FILE`.
    pub file: PathBuf,
    /// The URL of a JSON Web Key Set that is fetched regularly, if configured. From `TOKEN_KEYS_URL`.
    pub url: Option<Uri>,
}

/// Reads the keys from a file with a JSON Web Key Set.
pub fn read_keys(path: &Path) -> anyhow::Result<Verifier> {
    let keys =
        std::fs::read_to_string(path).with_context(|| format!("TOKEN_KEYS_FILE: cannot read {}", path.display()))?;
    Verifier::from_jwks(&keys)
        .with_context(|| format!("TOKEN_KEYS_FILE: {} is malformed, expected a JSON Web Key Set", path.display()))
}

/// Reads a file on a thread that may block: a disk that hangs stops nothing but this file's reader.
async fn read_file(path: &Path) -> std::io::Result<String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await?
}

/// Follows the keys forever. The keys in use come from the file or from the URL, depending on the latest change.
/// Invalid keys change nothing.
pub async fn follow_keys(source: TokenKeySource, client: reqwest::Client, authenticator: Arc<Authenticator>) {
    let mut text = read_file(&source.file).await.unwrap_or_default();
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
                    Err(error) => {
                        tracing::error!(
                            %url, %error,
                            "the fetched public keys are invalid; the previous keys stay in use"
                        );
                    }
                },
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%url, %error, "the public keys could not be fetched; the previous keys stay in use");
                }
                Err(_) => tracing::warn!(%url, "fetching the public keys timed out; the previous keys stay in use"),
            }
        }
        sleep(FILE_CHECK_INTERVAL).await;
        let Ok(now) = read_file(&source.file).await else { continue };
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
                tracing::error!(
                    file = %source.file.display(), %error,
                    "the file with the public keys has changed and is invalid; the previous keys stay in use"
                );
            }
            Err(_) => {}
        }
    }
}

/// Follows the keys of the external identity provider forever. Never resolves, even without a provider.
pub async fn follow_issuer(issuer: Option<Arc<Issuer>>, client: reqwest::Client, authenticator: Arc<Authenticator>) {
    match issuer {
        Some(issuer) => issuer.refresh_keys(&client, || authenticator.clear_verified_tokens()).await,
        None => std::future::pending().await,
    }
}
