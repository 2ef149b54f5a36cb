//! The web pages: static files compiled into the program, so that a gateway is a single program to install.
//!
//! Every page path responds with the same HTML shell; the page's script reads the path and calls the API. Scripts and
//! styles are served below a prefix that is a hash of all files together. Browsers may therefore cache the files for ever,
//! and files of two program versions never mix. The shell names the files by relative paths, so that the pages also work below
//! a path of a reverse proxy. Pages need no other host, and the security headers forbid access to other hosts.

mod files;
mod static_file;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;
use static_file::StaticFile;

/// The paths of the pages. The parts after `/c/` and `/calls/` are interpreted by the page's script.
const PAGE_PATHS: [&str; 9] = [
    "/",
    "/login",
    "/register",
    "/c/{conversation}",
    "/calls/{call}",
    "/settings",
    "/settings/{section}",
    "/admin",
    "/admin/{section}",
];

/// The cache policy of files whose path changes whenever a file changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The cache policy of all other responses: cached, but revalidated before each use.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// The pages of this program, built once for all routers of the process.
static PAGES: LazyLock<Arc<Pages>> = LazyLock::new(|| Arc::new(Pages::new()));

/// The HTML shell and all files, ready to be served.
#[derive(Debug)]
struct Pages {
    version: String,
    /// The shells for pages in the root directory, one directory below it, and so on: they differ in the path to the files.
    shells: Vec<StaticFile>,
    files: HashMap<&'static str, StaticFile>,
}

/// The number of directories in the path of a page for which a shell is prepared. Deeper unknown paths get a shell of their own.
const SHELL_DEPTHS: usize = 4;

/// Builds the routes of the pages and files. `S` is the state of the router that the routes are merged into.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new().route("/assets/{version}/{*path}", get(file));
    for path in PAGE_PATHS {
        router = router.route(path, get(shell));
    }
    router.with_state(Arc::clone(&PAGES))
}

/// Returns true if a request without a route comes from a browser's address bar or a link, and so gets a page. Programs do not
/// ask for HTML.
pub fn is_for_page(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let is_api = ["/api/", "/v1", "/openai/"].iter().any(|prefix| uri.path().starts_with(prefix));
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    matches!(*method, Method::GET | Method::HEAD) && !is_api && accepted.any(|value| value.contains("text/html"))
}

/// Responds to a page request without a route: the shell, whose script says that there is no such page.
pub fn unknown_page(uri: &Uri, headers: &HeaderMap) -> Response {
    let mut response = PAGES.shell(uri.path(), &HeaderMap::new(), headers);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

async fn shell(State(pages): State<Arc<Pages>>, uri: Uri, headers: HeaderMap) -> Response {
    pages.shell(uri.path(), &headers, &headers)
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
        let styles = files::STYLES.concat();
        let shells =
            (0..SHELL_DEPTHS).map(|depth| StaticFile::new("index.html", shell_html(&version, depth))).collect();
        let served = files::FILES.iter().map(|(path, content)| (*path, Bytes::from_static(content)));
        let served = served.chain([(files::ALL_STYLES, Bytes::from(styles))]);
        let files = served.map(|(path, content)| (path, StaticFile::new(path, content))).collect();
        Self { version, shells, files }
    }

    /// Returns the response with the shell for a page's path. `conditions` are the headers with `If-None-Match`.
    fn shell(&self, path: &str, conditions: &HeaderMap, headers: &HeaderMap) -> Response {
        let depth = path.bytes().skip(1).filter(|byte| *byte == b'/').count();
        match self.shells.get(depth) {
            Some(shell) => shell.respond(conditions, headers, REVALIDATE),
            None => {
                StaticFile::new("index.html", shell_html(&self.version, depth)).respond(conditions, headers, REVALIDATE)
            }
        }
    }

    /// Returns the response with a file. A path with another version gets the file too, so that a page from another gateway
    /// works during a rolling upgrade, but the response must not be cached as immutable.
    fn file(&self, version: &str, path: &str, headers: &HeaderMap) -> Option<Response> {
        let caching = if version == self.version { IMMUTABLE } else { REVALIDATE };
        Some(self.files.get(path)?.respond(headers, headers, caching))
    }
}

/// Returns the HTML shell for pages whose path has so many directories.
fn shell_html(version: &str, depth: usize) -> Bytes {
    let root = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
    Bytes::from(files::SHELL.replace("{{assets}}", &format!("{root}assets/{version}")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_shell_of_each_depth_leads_to_existing_files() {
        let pages = Pages::new();
        for (path, root) in [("/", "./"), ("/settings", "./"), ("/c/1", "../"), ("/a/b/c/d/e/f", "../../../../../")] {
            let depth = path.bytes().skip(1).filter(|byte| *byte == b'/').count();
            let html = shell_html(&pages.version, depth);
            let html = std::str::from_utf8(&html).unwrap();
            let prefix = format!("\"{root}assets/{}/", pages.version);
            let named: Vec<_> = html.split(&prefix).skip(1).filter_map(|rest| rest.split('"').next()).collect();
            assert!(named.len() > 3, "{path}: {html}");
            for file in named {
                assert!(pages.files.contains_key(file), "{file}");
            }
            assert!(!html.contains("{{"));
            assert_eq!(pages.shell(path, &HeaderMap::new(), &HeaderMap::new()).status(), 200);
        }
    }

    #[test]
    fn the_shell_preloads_the_modules_of_a_chat() {
        let main = "js/main.js";
        let mut needed = std::collections::BTreeSet::new();
        let mut open = vec![main.to_owned(), "js/pages/chat.js".to_owned()];
        while let Some(path) = open.pop() {
            let (_, content) = files::FILES.iter().find(|(name, _)| *name == path).unwrap();
            let content = std::str::from_utf8(content).unwrap();
            let directory = std::path::Path::new(&path).parent().unwrap().to_owned();
            let statements = content.lines().filter(|line| line.starts_with("import ") && !path.starts_with("vendor/"));
            for name in statements.filter_map(|line| line.rsplit('"').nth(1)) {
                let mut whole = directory.clone();
                for part in name.split('/') {
                    match part {
                        "." => {}
                        ".." => assert!(whole.pop(), "{path}: {name}"),
                        part => whole.push(part),
                    }
                }
                open.push(whole.to_str().unwrap().to_owned());
            }
            if !needed.insert(path) {
                open.retain(|path| !needed.contains(path));
            }
        }
        needed.remove(main);
        let preloaded = files::SHELL.split("modulepreload\" href=\"{{assets}}/").skip(1);
        let preloaded: std::collections::BTreeSet<_> =
            preloaded.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
        assert_eq!(preloaded, needed);
    }

    #[test]
    fn the_shell_has_no_inline_scripts_or_styles() {
        assert!(!files::SHELL.contains("<style") && !files::SHELL.contains(" style=") && !files::SHELL.contains(" on"));
        for tag in files::SHELL.split("<script").skip(1) {
            assert!(tag.contains(" src=") && tag.contains("></script>"), "{tag}");
        }
    }

    #[test]
    fn browsers_alone_get_a_page_for_an_unknown_path() {
        let html = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("text/html,*/*;q=0.8"))]);
        let any = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("*/*"))]);
        let is_page = |method: Method, path: &'static str, headers: &HeaderMap| {
            is_for_page(&method, &Uri::from_static(path), headers)
        };
        assert!(is_page(Method::GET, "/nowhere", &html));
        for (method, path, headers) in [
            (Method::POST, "/nowhere", &html),
            (Method::GET, "/nowhere", &any),
            (Method::GET, "/v1/x", &html),
            (Method::GET, "/api/x", &html),
        ] {
            assert!(!is_page(method, path, headers), "{path}");
        }
    }
}
