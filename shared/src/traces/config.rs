//! The settings of traces: the variables that every program with OpenTelemetry has.

use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{ConfigError, Environment, http_url, malformed};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SHARE: &str = "OTEL_TRACES_SAMPLER_ARG";

/// The settings of the export of traces.
#[derive(Debug)]
pub struct TraceConfig {
    /// The base URL of the collector.
    endpoint: String,
    /// Headers with credentials for the collector.
    headers: Option<SecretString>,
    /// The share of the traces beginning here that are kept.
    share: f64,
}

impl TraceConfig {
    /// Reads `OTEL_EXPORTER_OTLP_ENDPOINT` (off if not set), `OTEL_EXPORTER_OTLP_HEADERS` (`name=value,…`) and `OTEL_TRACES_SAMPLER_ARG` (a
    /// share from 0 to 1; by default 1).
    pub fn read(env: &Environment) -> Result<Option<Self>, ConfigError> {
        let headers = env.secret(HEADERS)?;
        parse_headers(headers.as_ref())?;
        let share = env.optional_or(SHARE, 1.0, "a share from 0 to 1, such as 0.01")?;
        if !(0.0..=1.0).contains(&share) {
            return Err(malformed(SHARE, "a share from 0 to 1, such as 0.01", &"out of range"));
        }
        let Some(endpoint) = env.text(ENDPOINT) else { return Ok(None) };
        http_url(ENDPOINT, endpoint)?;
        Ok(Some(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), headers, share }))
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    pub(super) fn kept_below(&self) -> u128 {
        kept_below(self.share)
    }

    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        parse_headers(self.headers.as_ref()).unwrap_or_default()
    }
}

/// Returns the number below which this share of all 64-bit numbers lies.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2⁶⁴")]
pub(super) fn kept_below(share: f64) -> u128 {
    (share * 18_446_744_073_709_551_616.0) as u128
}

fn parse_headers(headers: Option<&SecretString>) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
    let Some(headers) = headers else { return Ok(Vec::new()) };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let mut value = HeaderValue::try_from(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name.trim()).ok()?, value))
    };
    let pairs = headers.expose_secret().split(',').filter(|text| !text.trim().is_empty());
    pairs.map(pair).collect::<Option<Vec<_>>>().ok_or_else(|| ConfigError::Malformed {
        name: HEADERS.to_owned(),
        expected: "headers such as authorization=Bearer abc,x-tenant=1",
        detail: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_mistakes_are_named() {
        assert!(TraceConfig::read(&Environment::from_pairs([(SHARE, "0.5")])).unwrap().is_none());
        let good =
            [(ENDPOINT, "http://127.0.0.1:4318/"), (HEADERS, "Authorization=Bearer a=b, x-tenant=1"), (SHARE, "0.01")];
        let config = TraceConfig::read(&Environment::from_pairs(good)).unwrap().unwrap();
        assert_eq!(config.endpoint(), "http://127.0.0.1:4318");
        let headers = config.headers();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[0].1, "Bearer a=b");
        assert!(!format!("{config:?}").contains("a=b"), "credentials are not printed");
        for (name, value) in [
            (ENDPOINT, "127.0.0.1:4318"),
            (ENDPOINT, "grpc://127.0.0.1:4317"),
            (SHARE, "1.5"),
            (SHARE, "-0.1"),
            (SHARE, "NaN"),
            (SHARE, "half"),
            (HEADERS, "authorization"),
            (HEADERS, "a b=c"),
        ] {
            let error = TraceConfig::read(&Environment::from_pairs([(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn the_bound_of_a_share() {
        assert_eq!(kept_below(0.0), 0);
        assert_eq!(kept_below(1.0), 1 << 64);
        assert_eq!(kept_below(0.5), 1 << 63);
    }
}
