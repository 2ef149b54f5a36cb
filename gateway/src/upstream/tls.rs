//! Opening connections: TCP without delay, and TLS where the URL says https.

use std::sync::Arc;

use anyhow::Context as _;
use http::Uri;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::UpstreamError;
use super::connection::Connection;

/// Opens connections to one host.
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Connector {
    /// For the host of this URL.
    pub(super) fn new(url: &Uri) -> anyhow::Result<Self> {
        // A literal IPv6 address stands in brackets in a URL, and nowhere else.
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = is_tls.then(|| Self::tls(&host)).transpose()?;
        Ok(Self { host, port, tls })
    }

    fn tls(host: &str) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        anyhow::ensure!(
            !roots.is_empty(),
            "no root certificates found on this machine: install the ca-certificates package"
        );
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).context("an upstream's URL has no valid host name")?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, UpstreamError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(UpstreamError::Connect)?;
        tcp.set_nodelay(true).map_err(UpstreamError::Connect)?;
        let transport = match &self.tls {
            None => Either::Left(tcp),
            Some((tls, name)) => {
                let session = tls.connect(name.clone(), tcp).await.map_err(UpstreamError::Tls)?;
                Either::Right(Box::new(session))
            }
        };
        Connection::new(transport).await.map_err(UpstreamError::Http)
    }
}
