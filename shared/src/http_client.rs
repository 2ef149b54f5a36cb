//! Asking other services over HTTP: the client, and fetching a small document.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

/// How long connecting may take, and how long an answer may be silent: live streams say something every 15 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// The largest document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS as configured is not to be had.
    #[error("TLS is not to be had: {0}")]
    Tls(#[from] rustls::Error),
    /// The client could not be made.
    #[error("{0}")]
    Client(#[from] reqwest::Error),
}

/// Why a document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It could not be asked for, or the answer was an error.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// It is larger than any that is wanted.
    #[error("expected at most {MAX_DOCUMENT_BYTES} bytes, got more")]
    TooLarge,
    /// It is not text.
    #[error("expected UTF-8 text")]
    NotUtf8,
}

/// A client for plain HTTP, or HTTPS where the URL says so; no proxies, no redirects.
pub fn client() -> Result<reqwest::Client, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_max_idle_per_host(64)
        .tcp_nodelay(true)
        .build();
    Ok(client?)
}

/// A document of at most a mebibyte.
pub async fn fetch(client: &reqwest::Client, url: &str) -> Result<String, FetchError> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if document.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(FetchError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    String::from_utf8(document).map_err(|_| FetchError::NotUtf8)
}
