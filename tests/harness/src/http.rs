//! The HTTP client of the harness, and waiting for a service to be ready.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, sleep};

/// Pause between two requests to a service that is not ready.
const BETWEEN: Duration = Duration::from_millis(20);

/// Returns a client for plain HTTP with a connection pool of its own, without proxies, redirects or a time limit.
pub fn client() -> reqwest::Client {
    // With a TLS configuration the client does not load the machine's root certificates, which may be missing.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::DEFAULT_VERSIONS);
    let tls = tls.map(|tls| tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    let client = tls.map(|tls| reqwest::Client::builder().tls_backend_preconfigured(tls));
    let client = client.map(|client| client.no_proxy().redirect(reqwest::redirect::Policy::none()).build());
    client.expect("ring speaks the default versions of TLS").expect("a client with a TLS configuration can be built")
}

/// Requests `url` until the status is a success. Fails after `within`, with the last response or error.
pub async fn wait_until_ok(url: &str, within: Duration) -> anyhow::Result<()> {
    let client = client();
    let deadline = Instant::now() + within;
    loop {
        let answer = client.get(url).timeout(within).send().await;
        let said = match answer {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => format!("{} {}", answer.status(), answer.text().await.unwrap_or_default()),
            Err(error) => format!("{error:?}"),
        };
        if Instant::now() >= deadline {
            bail!("{url} did not succeed within {within:?}; the last answer: {said}");
        }
        sleep(BETWEEN).await;
    }
}
