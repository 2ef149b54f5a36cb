//! Authentication: finds a request's session token or API key, checks the signature with public keys, and asks the access state in
//! memory if the credential is in force. Without any lookup elsewhere, no outage of another service can refuse a caller.

pub mod key_refresh;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::header::{COOKIE, HeaderValue, ORIGIN};
use http::{HeaderMap, Method};
use shared::api_key;
use shared::credentials::{bearer_token, is_own_origin, verify_cookies};
use shared::event::{Operation, RecordingMode};
use shared::id::{KeyId, ProjectId, UserId};
use shared::issuer::Issuer;
use shared::token::{Claims, TokenError, Verifier};
use time::OffsetDateTime;

use crate::access::key::{Key, NotAllowed};
use crate::access::state::{Access, AccessRefusal};

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
    pub key: Option<Arc<Key>>,
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

    /// Returns the most that events keep of the caller's calls.
    pub fn recording_mode(&self) -> RecordingMode {
        self.key.as_ref().map_or(RecordingMode::Full, |key| key.rules.recording())
    }

    /// Returns an error if the API key may not make this kind of call, or not with this model. `None`: the call names no model.
    pub fn check(&self, operation: Operation, model: Option<&str>) -> Result<(), NotAllowed> {
        self.key.as_ref().map_or(Ok(()), |key| key.rules.check(operation, model))
    }

    /// Returns an error if the API key may not use this model, whatever the kind of the call.
    pub fn check_model(&self, model: &str) -> Result<(), NotAllowed> {
        self.key.as_ref().map_or(Ok(()), |key| key.rules.check_model(model))
    }

    /// Returns true if the caller has an API key that is limited to some models.
    pub fn is_limited_to_models(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.rules.is_limited_to_models())
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
    #[error(
        "no token: expected a token or an API key in `Authorization: Bearer <token>`, `x-api-key: <token>` or `api-key: <token>`"
    )]
    Missing,
    /// The token was not accepted.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The credential is valid, but not in force.
    #[error("{0}")]
    Refused(#[from] AccessRefusal),
}

/// Checks the tokens of requests, and caches the result for valid tokens.
#[derive(Debug)]
pub struct Authenticator {
    verifier: RwLock<Arc<Verifier>>,
    /// The external identity provider whose users are accepted too, if configured.
    issuer: Option<Arc<Issuer>>,
    /// The API keys, disabled users and ended sessions.
    access: Arc<Access>,
    verified_tokens: Mutex<HashMap<String, Credential>>,
}

/// A credential whose signature is valid.
#[derive(Clone, Debug)]
enum Credential {
    /// A session token.
    Token(Claims),
    /// An API key: the id and the owner.
    Key(KeyId, UserId),
}

impl Credential {
    fn has_expired(&self, now: i64) -> bool {
        matches!(self, Self::Token(claims) if claims.exp <= now)
    }
}

impl Authenticator {
    /// Creates an authenticator with Stenograph's own public keys and an optional external identity provider.
    pub fn new(verifier: Verifier, issuer: Option<Arc<Issuer>>, access: Arc<Access>) -> Self {
        Self { verifier: RwLock::new(Arc::new(verifier)), issuer, access, verified_tokens: Mutex::default() }
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

    fn verify(&self, credential: &str) -> Result<Credential, TokenError> {
        if api_key::is_api_key(credential) {
            return self.verifier().verify_api_key(credential).map(|(id, owner)| Credential::Key(id, owner));
        }
        shared::credentials::verify(credential, &self.verifier(), self.issuer.as_deref()).map(Credential::Token)
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the caller, from the token or the API key in the headers. The `Authorization` header takes precedence over `x-api-key`
    /// and `api-key`, in which clients of Anthropic and Azure send their key, and these over the cookie.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Unauthenticated> {
        let credential = match header_token(headers) {
            Some(credential) => self.credential(credential)?,
            None => {
                let claims = verify_cookies(headers, |token| self.cookie_claims(token));
                Credential::Token(claims.ok_or(Unauthenticated::Missing)??)
            }
        };
        match credential {
            Credential::Token(claims) => {
                self.access.check_token(&claims)?;
                Ok(Caller { user: claims.sub, key: None })
            }
            Credential::Key(id, owner) => {
                let key = self.access.check_key(id, &owner, OffsetDateTime::now_utc())?;
                Ok(Caller { user: owner, key: Some(key) })
            }
        }
    }

    /// Returns the claims of a session cookie. An API key in a cookie is refused: keys are for programs.
    fn cookie_claims(&self, token: &str) -> Result<Claims, TokenError> {
        match self.credential(token)? {
            Credential::Token(claims) => Ok(claims),
            Credential::Key(..) => Err(TokenError::Invalid),
        }
    }

    fn credential(&self, text: &str) -> Result<Credential, TokenError> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let known = self.verified_tokens().get(text).filter(|known| !known.has_expired(now)).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let credential = self.verify(text)?;
        self.cache_verified(text, &credential, now);
        Ok(credential)
    }

    fn cache_verified(&self, token: &str, credential: &Credential, now: i64) {
        let mut verified_tokens = self.verified_tokens();
        if verified_tokens.len() >= MAX_VERIFIED_TOKENS {
            verified_tokens.retain(|_, known| !known.has_expired(now));
            if verified_tokens.len() >= MAX_VERIFIED_TOKENS {
                verified_tokens.clear();
            }
        }
        verified_tokens.insert(token.to_owned(), credential.clone());
    }

    fn verified_tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, Credential>> {
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
