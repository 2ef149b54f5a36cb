//! Authentication: finds a request's session token and checks the token with public keys alone. Without any lookup, no
//! outage of another service can refuse a caller.

pub mod key_refresh;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::header::{COOKIE, HeaderValue, ORIGIN};
use http::{HeaderMap, Method};
use shared::credentials::{bearer_token, is_own_origin, verify_cookies};
use shared::id::{KeyId, ProjectId, UserId};
use shared::issuer::Issuer;
use shared::token::{Claims, TokenError, Verifier};
use time::OffsetDateTime;

/// The headers in which clients of Anthropic and of Azure send their key.
const API_KEY_HEADERS: [&str; 2] = ["x-api-key", "api-key"];

/// The maximum number of verified tokens to cache, each until its expiry. Checking a signature takes about 50 µs, more
/// than all other work of the gateway for a chat.
const MAX_VERIFIED_TOKENS: usize = 10_000;

/// The authenticated caller of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user named in the token, or the owner of the API key.
    pub user: UserId,
    /// The API key of the request; `None` for a session token.
    pub key: Option<CallerKey>,
}

/// The API key with which a caller authenticated.
#[derive(Clone, Debug)]
pub struct CallerKey {
    /// The id of the key.
    pub id: KeyId,
    /// The project of the key.
    pub project: Option<ProjectId>,
}

impl Caller {
    /// Returns the id of the API key.
    pub fn key_id(&self) -> Option<KeyId> {
        self.key.as_ref().map(|key| key.id)
    }

    /// Returns the project of the API key.
    pub fn project_id(&self) -> Option<ProjectId> {
        self.key.as_ref().and_then(|key| key.project)
    }
}

/// A page of another origin has sent a request with the user's cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a request with cookies that changes something has to come from this origin: a proxy in front has to pass Host on, and \
     other origins have to be named in GATEWAY_CORS_ORIGINS"
)]
pub struct CrossOrigin;

/// Refuses requests that a page of another origin may have sent with the user's cookies.
///
/// A browser adds cookies to requests of any page. The SameSite attribute of the cookies prevents most such requests,
/// and `check_origin` prevents the rest: a request that changes something and has an `Origin` header and cookies, but
/// no token in a header, must come from the gateway's own origin or from an origin in `allowed`. Credentials that are not
/// Stenograph's, such as `Authorization: Basic`, are no token here, because the caller is then found by the cookie.
pub fn check_origin(method: &Method, headers: &HeaderMap, allowed: &[HeaderValue]) -> Result<(), CrossOrigin> {
    if method.is_safe() || header_token(headers).is_some() || !headers.contains_key(COOKIE) {
        return Ok(());
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    // The browser sets this header and lets no page set it. The browser knows the requested origin, whereas a proxy may
    // have changed `Host`.
    if headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin") {
        return Ok(());
    }
    if is_own_origin(origin, headers) || allowed.contains(origin) { Ok(()) } else { Err(CrossOrigin) }
}

/// Reasons for which a request has no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The request carries no token.
    #[error("no token: expected `Authorization: Bearer <token>`, `x-api-key: <token>` or `api-key: <token>`")]
    Missing,
    /// The token was not accepted.
    #[error("{0}")]
    Token(#[from] TokenError),
}

/// Checks the tokens of requests, and caches the result for valid tokens.
#[derive(Debug)]
pub struct Authenticator {
    verifier: RwLock<Arc<Verifier>>,
    /// The external identity provider whose users are accepted too, if configured.
    issuer: Option<Arc<Issuer>>,
    verified_tokens: Mutex<HashMap<String, Claims>>,
}

impl Authenticator {
    /// Creates an authenticator with Stenograph's own public keys and an optional external identity provider.
    pub fn new(verifier: Verifier, issuer: Option<Arc<Issuer>>) -> Self {
        Self { verifier: RwLock::new(Arc::new(verifier)), issuer, verified_tokens: Mutex::default() }
    }

    /// Replaces Stenograph's own public keys. Every token is checked again with the new keys.
    pub fn replace_verifier(&self, verifier: Verifier) {
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
        self.clear_verified_tokens();
    }

    /// Clears the cache of verified tokens, so that every token is checked again.
    pub fn clear_verified_tokens(&self) {
        self.verified_tokens().clear();
    }

    fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        shared::credentials::verify(token, &self.verifier(), self.issuer.as_deref())
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the caller, from the token in the headers. The `Authorization` header takes precedence over `x-api-key`
    /// and `api-key`, in which clients of Anthropic and Azure send their key, and these over the cookie.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Unauthenticated> {
        let claims = match header_token(headers) {
            Some(token) => self.claims(token)?,
            None => verify_cookies(headers, |token| self.claims(token)).ok_or(Unauthenticated::Missing)??,
        };
        Ok(Caller { user: claims.sub, key: None })
    }

    fn claims(&self, token: &str) -> Result<Claims, TokenError> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let known = self.verified_tokens().get(token).filter(|claims| claims.exp > now).cloned();
        if let Some(claims) = known {
            return Ok(claims);
        }
        let claims = self.verify(token)?;
        self.cache_verified(token, &claims, now);
        Ok(claims)
    }

    fn cache_verified(&self, token: &str, claims: &Claims, now: i64) {
        let mut verified_tokens = self.verified_tokens();
        if verified_tokens.len() >= MAX_VERIFIED_TOKENS {
            verified_tokens.retain(|_, claims| claims.exp > now);
            if verified_tokens.len() >= MAX_VERIFIED_TOKENS {
                verified_tokens.clear();
            }
        }
        verified_tokens.insert(token.to_owned(), claims.clone());
    }

    fn verified_tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, Claims>> {
        self.verified_tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the token in a header. Only if there is none, the caller is found by the cookie.
fn header_token(headers: &HeaderMap) -> Option<&str> {
    bearer_token(headers).filter(|token| !token.is_empty()).or_else(|| api_key(headers))
}

fn api_key(headers: &HeaderMap) -> Option<&str> {
    let mut keys = API_KEY_HEADERS.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
    keys.next().map(str::trim).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn requests_with_cookies_from_other_origins_are_refused() {
        let request = |origin: &str, token: bool| {
            let mut all = headers("host", "chat.example.org");
            all.insert(COOKIE, "stenograph_session=t".parse().unwrap());
            all.insert(ORIGIN, origin.parse().unwrap());
            if token {
                all.insert(AUTHORIZATION, "Bearer x".parse().unwrap());
            }
            all
        };
        // Credentials that are not Stenograph's leave the caller to the cookie, so they excuse no other origin.
        let foreign = [
            ("authorization", "Basic dXNlcjpw"),
            ("authorization", "Digest username=x"),
            ("authorization", "Bearer "),
            ("x-api-key", ""),
            ("api-key", "  "),
            ("x-goog-api-key", "x"),
        ];
        for (name, value) in foreign {
            let mut all = request("https://evil.example.org", false);
            all.insert(name, value.parse().unwrap());
            assert!(check_origin(&Method::POST, &all, &[]).is_err(), "{name}: {value}");
        }
        let allowed = ["https://other.example.org".parse().unwrap()];
        let is_let_in = |method: Method, headers| check_origin(&method, &headers, &allowed).is_ok();
        assert!(is_let_in(Method::POST, request("https://chat.example.org", false)));
        assert!(is_let_in(Method::POST, request("https://other.example.org", false)));
        assert!(is_let_in(Method::POST, headers("cookie", "a=b")), "a request without an origin comes from no browser");
        assert!(is_let_in(Method::POST, request("https://evil.example.org", true)));
        assert!(is_let_in(Method::GET, request("https://evil.example.org", false)));
        let mut behind_a_proxy = request("https://chat.example.org", false);
        behind_a_proxy.insert("host", "gateway:8080".parse().unwrap());
        assert!(!is_let_in(Method::POST, behind_a_proxy.clone()));
        for (site, expected) in [("same-origin", true), ("same-site", false), ("cross-site", false), ("none", false)] {
            behind_a_proxy.insert("sec-fetch-site", site.parse().unwrap());
            assert_eq!(is_let_in(Method::POST, behind_a_proxy.clone()), expected, "{site}");
        }
        for origin in ["https://evil.example.org", "null", "https://chat.example.org.evil.org"] {
            assert!(!is_let_in(Method::POST, request(origin, false)), "{origin}");
        }
    }

    #[test]
    fn tokens_are_read_from_each_header() {
        assert_eq!(bearer_token(&headers("authorization", "bearer  abc ")), Some("abc"));
        assert_eq!(bearer_token(&headers("authorization", "Basic abc")), None);
        assert_eq!(api_key(&headers("x-api-key", " abc ")), Some("abc"));
        assert_eq!(api_key(&headers("x-api-key", "")), None);
        assert_eq!(api_key(&headers("api-key", "abc")), Some("abc"));
        assert_eq!(header_token(&headers("authorization", "Bearer ")), None);
    }
}
