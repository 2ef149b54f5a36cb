//! Proxies on the way to upstreams: the proxy of an upstream, by the upstream's settings or by the environment.
//!
//! Pure: the environment variables are passed in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};

/// The form of a proxy's URL, for error messages.
pub const EXPECTED_PROXY: &str = "the http URL of a proxy, such as http://proxy.example:3128";

/// A proxy that opens tunnels with CONNECT (RFC 9110, 9.3.6).
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The host of the proxy, without the brackets of an IPv6 address.
    pub host: String,
    /// The port of the proxy, by default 80.
    pub port: u16,
    /// The value of `proxy-authorization`, if the proxy asks for credentials.
    pub authorization: Option<SecretString>,
}

impl Proxy {
    /// Parses `http://host:port` or `http://user:password@host:port`; the scheme may be missing. User and password may be
    /// percent-encoded. `None` if the text is no such URL.
    pub fn parse(text: &str) -> Option<Self> {
        let url: Uri = if text.contains("://") { text.parse() } else { format!("http://{text}").parse() }.ok()?;
        let credentials = url.authority()?.as_str().rsplit_once('@').map(|(credentials, _)| credentials);
        let host = url.host().filter(|host| !host.is_empty())?.trim_matches(['[', ']']).to_owned();
        let is_plain = url.scheme_str() == Some("http") && matches!(url.path(), "" | "/") && url.query().is_none();
        let proxy = Self { host, port: url.port_u16().unwrap_or(80), authorization: None };
        is_plain.then(|| match credentials {
            Some(credentials) => proxy.with_credentials(&percent_decode_str(credentials).decode_utf8_lossy()),
            None => proxy,
        })
    }

    /// Adds credentials in the form `user:password`.
    #[must_use]
    pub fn with_credentials(self, credentials: &str) -> Self {
        let authorization = SecretString::from(format!("Basic {}", STANDARD.encode(credentials)));
        Self { authorization: Some(authorization), ..self }
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        let secret = |proxy: &Self| proxy.authorization.as_ref().map(|secret| secret.expose_secret().to_owned());
        (&self.host, self.port, secret(self)) == (&other.host, other.port, secret(other))
    }
}

/// The way to an upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ProxySetting {
    /// By the environment: see [`EnvironmentProxies`].
    #[default]
    FromEnvironment,
    /// Without a proxy.
    Direct,
    /// Through this proxy.
    Through(Proxy),
}

impl ProxySetting {
    /// Returns the proxy, if there is one.
    pub fn proxy(&self) -> Option<&Proxy> {
        match self {
            Self::Through(proxy) => Some(proxy),
            Self::FromEnvironment | Self::Direct => None,
        }
    }
}

/// The proxies that the environment names, and the hosts that are reached without a proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvironmentProxies {
    /// The proxy for https URLs: `HTTPS_PROXY`.
    pub https: Option<Proxy>,
    /// The proxy for http URLs: `HTTP_PROXY`.
    pub http: Option<Proxy>,
    /// The entries of `NO_PROXY`: `*`, host names (which include their subdomains) and addresses, each with or without a
    /// port.
    pub exceptions: Vec<String>,
}

impl EnvironmentProxies {
    /// Reads the comma-separated entries of `NO_PROXY`.
    pub fn exceptions(text: &str) -> Vec<String> {
        let entries = text.split(',').map(|entry| entry.trim().to_ascii_lowercase());
        entries.filter(|entry| !entry.is_empty()).collect()
    }

    /// Returns the way to a URL. The machine itself (`localhost` and loopback addresses) is reached directly.
    pub fn way_to(&self, url: &Uri) -> ProxySetting {
        let is_https = url.scheme_str() == Some("https");
        let proxy = if is_https { &self.https } else { &self.http };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let with_port = format!("{host}:{}", url.port_u16().unwrap_or(if is_https { 443 } else { 80 }));
        let is_exception = |entry: &String| {
            let entry = entry.trim_start_matches("*.").trim_start_matches('.');
            let names = |host: &str| {
                host == entry.trim_matches(['[', ']'])
                    || host.strip_suffix(entry).is_some_and(|before| before.ends_with('.'))
            };
            entry == "*" || names(&host) || names(&with_port)
        };
        let is_loopback =
            host == "localhost" || host.parse().is_ok_and(|address: core::net::IpAddr| address.is_loopback());
        match proxy {
            Some(proxy) if !is_loopback && !self.exceptions.iter().any(is_exception) => {
                ProxySetting::Through(proxy.clone())
            }
            Some(_) | None => ProxySetting::Direct,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_parsed_with_its_credentials() {
        let proxy = Proxy::parse("http://user:p%40ss@[::1]:3128").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 3128));
        assert_eq!(proxy.authorization.as_ref().unwrap().expose_secret(), "Basic dXNlcjpwQHNz");
        assert!(!format!("{proxy:?}").contains("dXNl"));
        assert_eq!(Proxy::parse("proxy.example"), Proxy::parse("http://proxy.example:80/"));
        for text in ["", "https://p:1", "socks5://p:1", "http://", "http://p/x", "http://p?x"] {
            assert_eq!(Proxy::parse(text), None, "{text}");
        }
    }

    #[test]
    fn exceptions_name_hosts_their_subdomains_and_ports() {
        let proxies = |exceptions: &str| EnvironmentProxies {
            https: Proxy::parse("http://p:1"),
            http: Proxy::parse("http://p:2"),
            exceptions: EnvironmentProxies::exceptions(exceptions),
        };
        let port = |exceptions: &str, url: &str| {
            proxies(exceptions).way_to(&url.parse().unwrap()).proxy().map(|proxy| proxy.port)
        };
        let exceptions = " corp.example, .dot.example,10.0.0.1 , ported.example:8443,*.star.example,[2001:db8::1]";
        let cases = [
            ("https://api.example/v1", Some(1)),
            ("http://api.example/v1", Some(2)),
            ("https://corp.example", None),
            ("https://llm.CORP.example", None),
            ("https://notcorp.example", Some(1)),
            ("https://a.dot.example", None),
            ("https://a.star.example", None),
            ("https://10.0.0.1", None),
            ("https://[2001:db8::1]", None),
            ("https://ported.example:8443", None),
            ("https://ported.example", Some(1)),
            ("http://localhost:8000/v1", None),
            ("http://127.0.0.1:8000/v1", None),
            ("http://[::1]:8000/v1", None),
        ];
        for (url, expected) in cases {
            assert_eq!(port(exceptions, url), expected, "{url}");
        }
        assert_eq!(port("*", "https://api.example"), None);
        let none = EnvironmentProxies::default().way_to(&"https://api.example".parse().unwrap());
        assert_eq!(none, ProxySetting::Direct);
    }
}
