//! Why there is no answer.

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    /// A connection, but no TLS session.
    #[error("could not agree on TLS: {0}")]
    Tls(std::io::Error),
    /// No connection in time.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// No response head in time.
    #[error("no response in time")]
    HeadTimeout,
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke: {0}")]
    Http(hyper::Error),
}

impl UpstreamError {
    /// In one word, for events and for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_unreachable",
            Self::Tls(_) => "upstream_tls",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::HeadTimeout => "upstream_head_timeout",
            Self::Http(_) => "upstream_broken",
        }
    }

    /// In words for callers, whom the deployment's addresses are none of the business.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Tls(_) => "the upstream could not be reached",
            Self::ConnectTimeout => "connecting to the upstream took too long",
            Self::HeadTimeout => "the upstream did not answer in time",
            Self::Http(_) => "the upstream broke the connection before it answered",
        }
    }
}
