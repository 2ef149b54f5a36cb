//! The web pages: static files compiled into the program, so that a gateway is a single program to install.
//!
//! Every page path responds with the same HTML shell; the page's script reads the path and calls the API. Scripts and
//! styles are served below a prefix that is a hash of all files together. Browsers may therefore cache the files for ever,
//! and files of two program versions never mix. Pages need no other host, and the security headers forbid access to other
//! hosts.

mod files;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;

/// The paths of the pages. The part after `/c/` is interpreted by the page's script.
const PAGE_PATHS: [&str; 7] =
    ["/", "/login", "/register", "/c/{conversation}", "/settings", "/admin", "/admin/{section}"];

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

/// The cache policy of files whose path changes whenever a file changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The cache policy of all other responses: cached, but revalidated before each use.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// The HTML shell and all files, ready to be served.
#[derive(Debug)]
struct Pages {
    version: String,
    shell: StaticFile,
    files: HashMap<&'static str, StaticFile>,
}

/// A file with content type and entity tag.
#[derive(Debug)]
struct StaticFile {
    content_type: &'static str,
    etag: HeaderValue,
    content: Bytes,
}

/// Builds the routes of the pages and files. `S` is the state of the router that the routes are merged into.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new().route("/assets/{version}/{*path}", get(file));
    for path in PAGE_PATHS {
        router = router.route(path, get(shell));
    }
    router.with_state(Arc::new(Pages::new()))
}

async fn shell(State(pages): State<Arc<Pages>>, headers: HeaderMap) -> Response {
    pages.shell.respond(&headers, REVALIDATE)
}

async fn file(
    State(pages): State<Arc<Pages>>,
    Path((version, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    pages.file(&version, &path, &headers).ok_or_else(ApiError::no_such_route)
}

impl Pages {
    fn new() -> Self {
        let mut hash = Sha256::new();
        for (path, content) in files::FILES {
            hash.update(path);
            hash.update(content);
        }
        let version = URL_SAFE_NO_PAD.encode(&hash.finalize()[..9]);
        let shell = files::SHELL.replace("{{assets}}", &format!("/assets/{version}"));
        let served =
            files::FILES.iter().map(|(path, content)| (*path, StaticFile::new(path, Bytes::from_static(content))));
        Self { shell: StaticFile::new("index.html", Bytes::from(shell)), files: served.collect(), version }
    }

    /// Returns the response with a file. A path with another version gets the file too, so that a page from another gateway
    /// works during a rolling upgrade, but the response must not be cached as immutable.
    fn file(&self, version: &str, path: &str, headers: &HeaderMap) -> Option<Response> {
        let caching = if version == self.version { IMMUTABLE } else { REVALIDATE };
        Some(self.files.get(path)?.respond(headers, caching))
    }
}

impl StaticFile {
    fn new(path: &str, content: Bytes) -> Self {
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(&content)[..15]));
        let etag = HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { content_type: files::content_type(path), etag, content }
    }

    fn respond(&self, request_headers: &HeaderMap, caching: HeaderValue) -> Response {
        let mut response = if self.is_cached_by_client(request_headers) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.content_type)], self.content.clone()).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::CACHE_CONTROL, caching);
        for (name, value) in SECURITY_HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// Returns true if `If-None-Match` of the request contains the entity tag of the file.
    fn is_cached_by_client(&self, request_headers: &HeaderMap) -> bool {
        let tags = request_headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','));
        let mut tags = tags.map(<[u8]>::trim_ascii).map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag));
        tags.any(|tag| tag == b"*" || tag == self.etag.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_headers(etag: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_str(etag).unwrap())])
    }

    #[test]
    fn a_file_that_the_client_has_is_not_sent_again() {
        let pages = Pages::new();
        let first = pages.shell.respond(&HeaderMap::new(), REVALIDATE);
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers()["content-type"], "text/html; charset=utf-8");
        let etag = first.headers()["etag"].to_str().unwrap();
        for known in [etag.to_owned(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            let again = pages.shell.respond(&request_headers(&known), REVALIDATE);
            assert_eq!((again.status().as_u16(), &again.headers()["etag"]), (304, &first.headers()["etag"]), "{known}");
            assert!(again.headers().contains_key("content-security-policy"));
        }
        assert_eq!(pages.shell.respond(&request_headers("\"x\""), REVALIDATE).status(), 200);
    }

    #[test]
    fn files_are_immutable_under_their_own_version_alone() {
        let pages = Pages::new();
        let caching = |version: &str| {
            let response = pages.file(version, "js/main.js", &HeaderMap::new()).unwrap();
            response.headers()["cache-control"].to_str().unwrap().to_owned()
        };
        assert!(caching(&pages.version).contains("immutable"));
        assert_eq!(caching("another"), "no-cache");
        assert!(pages.file(&pages.version, "js/none.js", &HeaderMap::new()).is_none());
        assert!(pages.file(&pages.version, "../Cargo.toml", &HeaderMap::new()).is_none());
    }

    #[test]
    fn the_shell_names_existing_files_alone() {
        let pages = Pages::new();
        let shell = std::str::from_utf8(&pages.shell.content).unwrap();
        let prefix = format!("\"/assets/{}/", pages.version);
        let request_headers: Vec<_> = shell.split(&prefix).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(request_headers.len() > 3, "{shell}");
        for path in request_headers {
            assert!(pages.files.contains_key(path), "{path}");
        }
        assert!(!shell.contains("{{"));
    }

    #[test]
    fn the_shell_has_no_inline_scripts_or_styles() {
        assert!(!files::SHELL.contains("<style") && !files::SHELL.contains(" style=") && !files::SHELL.contains(" on"));
        for tag in files::SHELL.split("<script").skip(1) {
            assert!(tag.contains(" src=") && tag.contains("></script>"), "{tag}");
        }
        assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"));
    }
}
