//! An HTTP client for requests to other services, and a bounded download of small documents.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::config::{ConfigError, malformed};

/// The maximum time for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum time between two reads of a response. Live streams send a message every 15 seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(45);
/// The maximum time of a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum length of the reason in a health check's answer, in bytes.
const MAX_REASON_BYTES: usize = 1000;

/// The maximum size of a document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// An error while the HTTP client is built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS configuration was rejected.
    #[error("cannot configure TLS for the HTTP client: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP library could not build the client.
    #[error("cannot build the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// An unsuccessful health check.
#[derive(Debug, thiserror::Error)]
pub enum HealthCheckError {
    /// The client could not be built.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The process gave no answer within 5 seconds.
    #[error("no answer from {address}")]
    NoAnswer {
        /// The address that was asked.
        address: SocketAddr,
        /// The failure of the request.
        source: reqwest::Error,
    },
    /// The process answered that it is not ready.
    #[error("{address} answers {status}: {reason}")]
    NotReady {
        /// The address that was asked.
        address: SocketAddr,
        /// The status of the answer.
        status: u16,
        /// The text of the answer, at most 1000 bytes.
        reason: String,
    },
}

/// An error while a document is downloaded.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request failed, or the response had an error status. The message has the URL.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// The document is larger than the limit.
    #[error("the document is larger than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    /// The document is not UTF-8.
    #[error("the document is not UTF-8 text")]
    NotUtf8,
}

/// Returns a client for HTTP and HTTPS. The client trusts the certificates of the operating system, uses no proxy and
/// follows no redirect.
pub fn client() -> Result<reqwest::Client, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    client_with(roots)
}

/// Reads the certificate authorities in a PEM file, which the variable `setting` names.
pub fn authorities(setting: &str, file: &Path) -> Result<RootCertStore, ConfigError> {
    let wrong = |detail: &dyn std::fmt::Display| {
        let expected = "the path of a readable file with certificates of authorities in PEM";
        malformed(setting, expected, &format!("{}: {detail}", file.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"no certificate in the file")) } else { Ok(roots) }
}

/// Returns a client like [`client`] that trusts only these certificate authorities.
pub fn client_with(roots: RootCertStore) -> Result<reqwest::Client, ClientError> {
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

/// Downloads a UTF-8 document of at most 1 MiB. A response with an error status is an error.
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

/// Asks the process that listens for health checks at `listen` whether it is ready. An unspecified address, such as 0.0.0.0,
/// stands for the loopback address.
pub async fn check_readiness(listen: SocketAddr) -> Result<(), HealthCheckError> {
    let address = match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        address => address,
    };
    let no_answer = |source| HealthCheckError::NoAnswer { address, source };
    let request = client()?.get(format!("http://{address}/health/ready")).timeout(HEALTH_TIMEOUT);
    let mut response = request.send().await.map_err(no_answer)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let reason = response.chunk().await.map_err(no_answer)?.unwrap_or_default();
    let reason = String::from_utf8_lossy(reason.get(..MAX_REASON_BYTES).unwrap_or(&reason)).trim().to_owned();
    Err(HealthCheckError::NotReady { address, status: status.as_u16(), reason })
}
