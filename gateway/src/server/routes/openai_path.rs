//! The paths of OpenAI's API as Azure's clients write them: `/openai/v1` or `/openai` in place of `/v1`, and `api-version` in
//! the query.

use http::Uri;

/// The beginnings of paths of OpenAI's API that name a version, as OpenAI's clients and Azure's write them.
pub(super) const VERSIONED: [&str; 2] = ["/v1", "/openai/v1"];

/// All beginnings of paths of OpenAI's API. Azure's clients for dated versions write none, and send `api-version`.
pub(super) const ALL: [&str; 3] = ["/v1", "/openai/v1", "/openai"];

/// Returns path and query as OpenAI's clients write them: the path begins with `/v1`, and the query has no `api-version`, which
/// is for the routes to decide.
pub(super) fn as_openai(uri: &Uri) -> Uri {
    let Some(azure) = uri.path().strip_prefix("/openai") else { return uri.clone() };
    let path = azure.strip_prefix("/v1/").unwrap_or(azure.trim_start_matches('/'));
    let query = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty() && !is_version(pair));
    let query: Vec<_> = query.collect();
    let mark = if query.is_empty() { "" } else { "?" };
    // Parts of a URI that has been parsed can be parsed again.
    format!("/v1/{path}{mark}{}", query.join("&")).parse().unwrap_or_else(|_| uri.clone())
}

fn is_version(pair: &str) -> bool {
    pair.split('=').next() == Some("api-version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn azures_paths_become_openais() {
        let cases = [
            ("/v1/responses/r1?include=a&api-version=1", "/v1/responses/r1?include=a&api-version=1"),
            ("/openai/v1/responses/r1?api-version=preview", "/v1/responses/r1"),
            (
                "/openai/responses/r1/input_items?api-version=2025-03-01&limit=2&",
                "/v1/responses/r1/input_items?limit=2",
            ),
            ("/openai/v1/files", "/v1/files"),
            ("/openai/files/v1/x", "/v1/files/v1/x"),
        ];
        for (path, expected) in cases {
            assert_eq!(as_openai(&path.parse().unwrap()).to_string(), expected, "{path}");
        }
    }
}
