//! The connector: opens TCP connections without Nagle's delay, adds TLS if the URL says https, and negotiates the HTTP
//! version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use http::Uri;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use crate::routing::proxy::Proxy;
use crate::upstream::error::UpstreamError;
use crate::upstream::http1::{Http1Connection, Transport};
use crate::upstream::tunnel;

/// The name of HTTP/2 in the TLS handshake (ALPN).
const ALPN_HTTP2: &[u8] = b"h2";

/// Opens connections to a single host, directly or through a proxy.
pub(super) struct Connector {
    host: String,
    port: u16,
    /// The proxy through which the connections are opened, if there is one.
    proxy: Option<Proxy>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// HTTP/2 is ruled out: the connection is plain TCP, or the host chose HTTP/1.1 although HTTP/2 was offered.
    is_http1_only: AtomicBool,
}

/// A new connection, by the HTTP version that the host chose.
pub(super) enum NegotiatedConnection {
    /// An HTTP/1.1 connection, ready for requests.
    Http1(Box<Http1Connection>),
    /// A transport for HTTP/2, before the HTTP/2 handshake.
    Http2(Transport),
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Connector {
    /// Creates a connector for the host of `url`. For https, fails if the machine has no root certificates or the host name
    /// is invalid.
    pub(super) fn new(url: &Uri, proxy: Option<Proxy>) -> anyhow::Result<Self> {
        // A literal IPv6 address has brackets in a URL, but not in name resolution and TLS.
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = is_tls.then(|| Self::tls(&host)).transpose()?;
        let is_http1_only = AtomicBool::new(!is_tls);
        Ok(Self { host, port, proxy, tls, is_http1_only })
    }

    fn tls(host: &str) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        anyhow::ensure!(
            !roots.is_empty(),
            "no root certificates found on this machine: install the ca-certificates package"
        );
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from(host.to_owned()).context("an upstream's URL has no valid host name")?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }

    /// Returns true if the host may choose HTTP/2 for the next connection.
    pub(super) fn may_be_http2(&self) -> bool {
        !self.is_http1_only.load(Ordering::Relaxed)
    }

    /// Opens a new connection and performs the TLS handshake if the URL says https.
    pub(super) async fn connect(&self) -> Result<NegotiatedConnection, UpstreamError> {
        let tcp = match &self.proxy {
            None => TcpStream::connect((self.host.as_str(), self.port)).await.map_err(UpstreamError::Connect)?,
            Some(proxy) => tunnel::open(proxy, &self.host, self.port).await.map_err(UpstreamError::Tunnel)?,
        };
        tcp.set_nodelay(true).map_err(UpstreamError::Connect)?;
        let transport = match &self.tls {
            None => Either::Left(tcp),
            Some((tls, name)) => {
                let session = tls.connect(name.clone(), tcp).await.map_err(UpstreamError::Tls)?;
                if session.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2) {
                    return Ok(NegotiatedConnection::Http2(Either::Right(Box::new(session))));
                }
                self.is_http1_only.store(true, Ordering::Relaxed);
                Either::Right(Box::new(session))
            }
        };
        Http1Connection::new(transport)
            .await
            .map(|connection| NegotiatedConnection::Http1(Box::new(connection)))
            .map_err(UpstreamError::Http)
    }
}
