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

impl UpstreamError {
    /// Returns the error code for events, metrics and API clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_unreachable",
            Self::Tls(_) => "upstream_tls",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::HeadTimeout => "upstream_head_timeout",
            Self::Http(_) | Self::TwoFramings => "upstream_broken",
        }
    }

    /// Returns the error message for callers. The message contains no address of the deployment.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Tls(_) => "the upstream could not be reached",
            Self::ConnectTimeout => "connecting to the upstream took too long",
            Self::HeadTimeout => "the upstream did not answer in time",
            Self::TwoFramings => "the upstream's answer is no valid HTTP",
            Self::Http(_) => "the upstream broke the connection before it answered",
        }
    }
}
