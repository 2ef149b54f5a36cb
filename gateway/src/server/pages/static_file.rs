//! A file that is served to browsers: with an entity tag, compressed for clients that accept it, and with the security headers.

use std::io::Write as _;
use std::sync::OnceLock;

use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::files;

/// The content security policy of the pages. Scripts, styles, images and requests are limited to the gateway's own origin,
/// and scripts can turn text into HTML only through DOMPurify.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types dompurify";

/// The security headers of every response with a page or a file.
const SECURITY_HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()",
    ),
];

/// Smaller files are not compressed: a packet holds them anyway.
const MIN_COMPRESSED_BYTES: usize = 1024;

/// A file with content type and entity tag.
#[derive(Debug)]
pub(super) struct StaticFile {
    content_type: &'static str,
    etag: HeaderValue,
    /// The entity tag of the compressed content.
    gzip_etag: HeaderValue,
    content: Bytes,
    /// The compressed content, made for the first client that accepts it. `None` if compression saves nothing.
    gzip: OnceLock<Option<Bytes>>,
}

impl StaticFile {
    /// Creates the file; the ending of `path` decides the content type.
    pub(super) fn new(path: &str, content: Bytes) -> Self {
        let digest = URL_SAFE_NO_PAD.encode(&Sha256::digest(&content)[..15]);
        let tag = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""));
        let (etag, gzip_etag) = (tag(format!("\"{digest}\"")), tag(format!("\"{digest}-gzip\"")));
        Self { content_type: files::content_type(path), etag, gzip_etag, content, gzip: OnceLock::new() }
    }

    /// Responds to a request. `conditions` are the headers that may have `If-None-Match`.
    pub(super) fn respond(
        &self,
        conditions: &HeaderMap,
        request_headers: &HeaderMap,
        caching: HeaderValue,
    ) -> Response {
        let gzip = accepts_gzip(request_headers).then(|| self.gzip()).flatten();
        let mut response = if self.is_cached_by_client(conditions) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let content = gzip.unwrap_or(&self.content).clone();
            let encoding = gzip.map(|_| [(header::CONTENT_ENCODING, "gzip")]);
            ([(header::CONTENT_TYPE, self.content_type)], encoding, content).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, if gzip.is_some() { self.gzip_etag.clone() } else { self.etag.clone() });
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::CACHE_CONTROL, caching);
        for (name, value) in SECURITY_HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn gzip(&self) -> Option<&Bytes> {
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&self.content).ok()?;
            let compressed = encoder.finish().ok()?;
            (compressed.len() < self.content.len()).then(|| Bytes::from(compressed))
        };
        self.gzip.get_or_init(|| if self.content.len() < MIN_COMPRESSED_BYTES { None } else { compress() }).as_ref()
    }

    /// Returns true if `If-None-Match` of the request contains an entity tag of the file.
    fn is_cached_by_client(&self, request_headers: &HeaderMap) -> bool {
        let tags = request_headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','));
        let mut tags = tags.map(<[u8]>::trim_ascii).map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag));
        tags.any(|tag| tag == b"*" || tag == self.etag.as_bytes() || tag == self.gzip_etag.as_bytes())
    }
}

/// Returns true if `Accept-Encoding` names gzip, or `*`, with a weight above zero.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let codings = values.flat_map(|value| value.split(',')).filter_map(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
        Some((name.trim().to_ascii_lowercase(), weight? > 0.0))
    });
    let mut any = false;
    for (name, is_accepted) in codings {
        match name.as_str() {
            "gzip" | "x-gzip" => return is_accepted,
            "*" => any = is_accepted,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const CACHING: HeaderValue = HeaderValue::from_static("no-cache");

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn file() -> StaticFile {
        StaticFile::new("index.html", Bytes::from("all the same ".repeat(1000)))
    }

    #[test]
    fn a_file_that_the_client_has_is_not_sent_again() {
        let file = file();
        for request in [HeaderMap::new(), headers(header::ACCEPT_ENCODING, "gzip")] {
            let first = file.respond(&request, &request, CACHING);
            assert_eq!(first.status(), 200);
            assert_eq!(first.headers()["content-type"], "text/html; charset=utf-8");
            let etag = first.headers()["etag"].to_str().unwrap();
            for known in [etag.to_owned(), format!("\"x\", W/{etag}"), "*".to_owned()] {
                let again = file.respond(&headers(header::IF_NONE_MATCH, &known), &request, CACHING);
                assert_eq!(
                    (again.status().as_u16(), &again.headers()["etag"]),
                    (304, &first.headers()["etag"]),
                    "{known}"
                );
                assert!(again.headers().contains_key("content-security-policy"));
                assert!(!again.headers().contains_key("content-encoding"));
            }
            assert_eq!(file.respond(&headers(header::IF_NONE_MATCH, "\"x\""), &request, CACHING).status(), 200);
        }
    }

    #[tokio::test]
    async fn files_are_compressed_for_clients_that_accept_it() {
        let file = file();
        for (accepted, expected) in [
            ("gzip, deflate, br", true),
            ("br;q=1, gzip;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
            ("*, gzip;q=0", false),
            ("gzip;q=x", false),
        ] {
            let response = file.respond(&HeaderMap::new(), &headers(header::ACCEPT_ENCODING, accepted), CACHING);
            assert_eq!(response.headers().contains_key("content-encoding"), expected, "{accepted}");
            assert_eq!(response.headers()["vary"], "accept-encoding");
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            if expected {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
                assert_eq!(plain, file.content);
                assert!(body.len() < file.content.len() / 10);
            } else {
                assert_eq!(body, file.content);
            }
        }
        let small = StaticFile::new("js/x.js", Bytes::from("a".repeat(100)));
        let response = small.respond(&HeaderMap::new(), &headers(header::ACCEPT_ENCODING, "gzip"), CACHING);
        assert!(!response.headers().contains_key("content-encoding"));
    }

    #[test]
    fn the_policy_allows_nothing_unsafe() {
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
    }
}
