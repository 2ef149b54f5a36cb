//! Errors of requests to upstreams that end without a response head.

/// The reason why no response head arrived from an upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The TCP connection could not be opened.
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    /// The TLS handshake failed on an open TCP connection.
    #[error("could not agree on TLS: {0}")]
    Tls(std::io::Error),
    /// The proxy on the way to the upstream opened no tunnel.
    #[error("no tunnel through the proxy: {0}")]
    Tunnel(TunnelError),
    /// The connection, TLS included, was not open within the connect timeout.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The response head did not arrive within the head timeout.
    #[error("no response in time")]
    HeadTimeout,
    /// The connection broke, or the received bytes were not valid HTTP.
    #[error("the connection broke: {0}")]
    Http(hyper::Error),
    /// The response head frames the body in two ways, so its end is ambiguous.
    #[error("the response has two framings: expected a content-length or a transfer-encoding, and one of it")]
    TwoFramings,
}

/// The reason why a proxy opened no tunnel to an upstream.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The TCP connection to the proxy could not be opened.
    #[error("cannot connect to the proxy: {0}")]
    Unreachable(std::io::Error),
    /// The proxy refused the tunnel with this status: 407 for missing or wrong credentials.
    #[error("the proxy answered with status {0}")]
    Refused(u16),
    /// The connection to the proxy broke, or the answer of the proxy was not valid HTTP.
    #[error("the proxy's answer cannot be read: {0}")]
    Broken(std::io::Error),
}

impl UpstreamError {
    /// Returns the error code for events, metrics and API clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_unreachable",
            Self::Tls(_) => "upstream_tls",
            Self::Tunnel(_) => "upstream_proxy",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::HeadTimeout => "upstream_head_timeout",
            Self::Http(_) | Self::TwoFramings => "upstream_broken",
        }
    }

    /// Returns the error message for callers. The message contains no address of the deployment.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Tls(_) => "the upstream could not be reached",
            Self::Tunnel(_) => "the proxy opened no connection to the upstream",
            Self::ConnectTimeout => "connecting to the upstream took too long",
            Self::HeadTimeout => "the upstream did not answer in time",
            Self::TwoFramings => "the upstream's answer is no valid HTTP",
            Self::Http(_) => "the upstream broke the connection before it answered",
        }
    }
}
