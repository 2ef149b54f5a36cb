//! Who asks, proven: a session token, checked with public keys alone. No lookup, so no outage elsewhere can refuse anyone.

pub mod key_refresh;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::header::{AUTHORIZATION, COOKIE, HeaderValue, ORIGIN};
use http::{HeaderMap, Method};
use shared::credentials::{bearer_token, is_own_origin};
use shared::id::UserId;
use shared::issuer::Issuer;
use shared::token::{Claims, TokenError, Verifier};
use time::OffsetDateTime;

/// The cookie that carries a session token for pages.
pub const SESSION_COOKIE: &str = "stenograph_session";

/// Checking a signature costs about 50 µs, more than everything else that a chat costs. So tokens that were good are
/// remembered until they expire; this many.
const MAX_VERIFIED_TOKENS: usize = 10_000;

/// A proven caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user: UserId,
}

/// A page of another origin acts with this one's cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a request with cookies that changes something has to come from this origin: a proxy in front has to pass Host on, and \
     other origins have to be named in GATEWAY_CORS_ORIGINS"
)]
pub struct CrossOrigin;

/// Cookies come along with whatever any page makes a browser send. SameSite keeps them from most of it; this from the rest:
/// a request without a token of its own that changes something comes from this origin, or from one that is let in.
pub fn check_origin(method: &Method, headers: &HeaderMap, allowed: &[HeaderValue]) -> Result<(), CrossOrigin> {
    let has_token = headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key");
    if method.is_safe() || has_token || !headers.contains_key(COOKIE) {
        return Ok(());
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    // A browser says this itself, and lets no page say it. It knows what it asked for; `Host` is what a proxy made of that.
    if headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin") {
        return Ok(());
    }
    if is_own_origin(origin, headers) || allowed.contains(origin) { Ok(()) } else { Err(CrossOrigin) }
}

/// Why there is no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// No token was sent.
    #[error("no token: expected `Authorization: Bearer <token>` or `x-api-key: <token>`")]
    Missing,
    /// The token was not accepted.
    #[error("{0}")]
    Token(#[from] TokenError),
}

/// Checks callers.
#[derive(Debug)]
pub struct Authenticator {
    verifier: RwLock<Arc<Verifier>>,
    /// An identity provider outside, whose users are let in too.
    issuer: Option<Arc<Issuer>>,
    verified_tokens: Mutex<HashMap<String, Claims>>,
}

impl Authenticator {
    /// Checks with these keys, and those of an identity provider outside, if there is one.
    pub fn new(verifier: Verifier, issuer: Option<Arc<Issuer>>) -> Self {
        Self { verifier: RwLock::new(Arc::new(verifier)), issuer, verified_tokens: Mutex::default() }
    }

    /// Checks with other keys from now on. What was good with the old ones is looked at again.
    pub fn replace_verifier(&self, verifier: Verifier) {
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(verifier);
        self.clear_verified_tokens();
    }

    /// Looks at every token again from now on.
    pub fn clear_verified_tokens(&self) {
        self.verified_tokens().clear();
    }

    fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        shared::credentials::verify(token, &self.verifier(), self.issuer.as_deref())
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who sent these headers: the `Authorization` header goes before `x-api-key`, where Anthropic's clients put their key,
    /// and that before the cookie.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Unauthenticated> {
        let token = bearer_token(headers)
            .or_else(|| api_key(headers))
            .or_else(|| session_cookie(headers))
            .ok_or(Unauthenticated::Missing)?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let known = self.verified_tokens().get(token).filter(|claims| claims.exp > now).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = self.verify(token)?;
                self.cache_verified(token, &claims, now);
                claims
            }
        };
        Ok(Caller { user: claims.sub })
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

fn api_key(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-api-key")?.to_str().ok().map(str::trim).filter(|key| !key.is_empty())
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
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
        let allowed = ["https://other.example.org".parse().unwrap()];
        let is_let_in = |method: Method, headers| check_origin(&method, &headers, &allowed).is_ok();
        assert!(is_let_in(Method::POST, request("https://chat.example.org", false)));
        assert!(is_let_in(Method::POST, request("https://other.example.org", false)));
        assert!(is_let_in(Method::POST, headers("cookie", "a=b")), "no browser");
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
    fn tokens_are_read_from_each_header_and_from_the_session_cookie() {
        assert_eq!(bearer_token(&headers("authorization", "bearer  abc ")), Some("abc"));
        assert_eq!(bearer_token(&headers("authorization", "Basic abc")), None);
        assert_eq!(api_key(&headers("x-api-key", " abc ")), Some("abc"));
        assert_eq!(api_key(&headers("x-api-key", "")), None);
        assert_eq!(session_cookie(&headers("cookie", "a=b; stenograph_session=abc; c=d")), Some("abc"));
        assert_eq!(session_cookie(&headers("cookie", "not_stenograph_session=abc")), None);
    }
}
