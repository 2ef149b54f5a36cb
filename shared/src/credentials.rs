//! The credentials of a request: where a token is found in the headers, and which keys a token is checked with.
//!
//! The gateway and the recorder check the same tokens, so they have to agree on both.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderValue};

use crate::issuer::Issuer;
use crate::token::{Claims, TokenError, Verifier};

/// Returns the token of an `Authorization: Bearer <token>` header. The scheme is compared without regard to case.
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Checks a token with Stenograph's own keys. A token that is invalid by those keys is checked with the keys of the
/// external identity provider, if there is a provider.
pub fn verify(token: &str, own_keys: &Verifier, issuer: Option<&Issuer>) -> Result<Claims, TokenError> {
    match (own_keys.verify(token), issuer) {
        (Err(TokenError::Invalid), Some(issuer)) => issuer.verify(token),
        (verified, _) => verified,
    }
}

/// The maximum number of cookies with one name that are tried.
const MAX_COOKIES: usize = 4;

/// A cookie of a session.
///
/// Over TLS, a cookie has the prefix `__Host-`: browsers accept such a cookie only from the host itself, with `Secure` and for
/// the path `/`, so that no other host of the domain can put a session of its own in its place. A cookie without the prefix is
/// used only over plain HTTP, for trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCookie {
    /// The cookie with the access token.
    Access,
    /// The cookie with the refresh token.
    Refresh,
}

impl SessionCookie {
    /// Returns the name of the cookie over TLS, or over plain HTTP.
    pub fn name(self, is_secure: bool) -> &'static str {
        match (self, is_secure) {
            (Self::Access, true) => "__Host-stenograph_session",
            (Self::Access, false) => "stenograph_session",
            (Self::Refresh, true) => "__Host-stenograph_refresh",
            (Self::Refresh, false) => "stenograph_refresh",
        }
    }

    /// Returns the values of the cookie in a request, without empty values, at most four. More than one value means that
    /// somebody else has set a cookie of the same name.
    pub fn values(self, headers: &HeaderMap) -> impl Iterator<Item = &str> {
        let wanted = self.name(is_secure(headers));
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs
            .filter(move |(name, value)| *name == wanted && !value.is_empty())
            .map(|(_, value)| value)
            .take(MAX_COOKIES)
    }
}

/// Returns true if a proxy in front says that the client's connection is encrypted (`X-Forwarded-Proto: https`).
pub fn is_secure(headers: &HeaderMap) -> bool {
    let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).unwrap_or("");
    proto.split(',').next().is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
}

/// Checks the access tokens in the cookies of a request with `verify`. Returns `None` without such a cookie, and the claims of
/// the valid token that expires last. Valid tokens of two users are refused, because one of them was put there by somebody
/// else.
pub fn verify_cookies(
    headers: &HeaderMap,
    mut verify: impl FnMut(&str) -> Result<Claims, TokenError>,
) -> Option<Result<Claims, TokenError>> {
    let mut best: Option<Result<Claims, TokenError>> = None;
    for token in SessionCookie::Access.values(headers) {
        best = Some(match (best, verify(token)) {
            (Some(Ok(first)), Ok(second)) if first.sub != second.sub => return Some(Err(TokenError::Invalid)),
            (Some(Ok(first)), Ok(second)) => Ok(if second.exp > first.exp { second } else { first }),
            (None | Some(Err(_)), verified) => verified,
            (first @ Some(Ok(_)), Err(_)) => first?,
        });
    }
    best
}

/// Returns true if the `Origin` header's host and port are those of the request's `Host` header.
pub fn is_own_origin(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    authority.is_some() && authority.map(str::as_bytes) == headers.get(HOST).map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::try_from(value).unwrap())])
    }

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer_token(&headers("authorization", "bearer  abc ")), Some("abc"));
        assert_eq!(bearer_token(&headers("authorization", "Basic abc")), None);
    }

    #[test]
    fn a_session_is_found_whatever_stands_beside_its_cookie() {
        let claims = |user: &str, exp| Claims {
            iss: String::new(),
            sub: user.parse().unwrap(),
            iat: 0,
            exp,
            role: None,
            sid: None,
        };
        let verify = |token: &str| match token {
            "ann" => Ok(claims("ann", 10)),
            "ann-later" => Ok(claims("ann", 20)),
            "eve" => Ok(claims("eve", 30)),
            "old" => Err(TokenError::Expired),
            _ => Err(TokenError::Invalid),
        };
        let cases = [
            ("a=b", None),
            ("stenograph_session=", None),
            ("not_stenograph_session=ann", None),
            ("stenograph_session=ann", Some(Ok(10))),
            ("stenograph_session=x; stenograph_session=ann", Some(Ok(10))),
            ("stenograph_session=ann; stenograph_session=old; stenograph_session=", Some(Ok(10))),
            ("stenograph_session=ann; stenograph_session=ann-later; stenograph_session=ann", Some(Ok(20))),
            ("stenograph_session=ann; stenograph_session=eve", Some(Err(TokenError::Invalid))),
            ("stenograph_session=old", Some(Err(TokenError::Expired))),
            ("__Host-stenograph_session=ann", None),
            ("x=1; x=2; x=3; x=4; stenograph_session=ann", Some(Ok(10))),
        ];
        for (cookies, expected) in cases {
            let found = verify_cookies(&headers("cookie", cookies), verify);
            assert_eq!(found.map(|found| found.map(|claims| claims.exp)), expected, "{cookies}");
        }
        // Over TLS a cookie that another host of the domain can set does not count.
        let mut secure = headers("cookie", "stenograph_session=eve; __Host-stenograph_session=ann");
        secure.insert("x-forwarded-proto", HeaderValue::from_static("https, http"));
        assert_eq!(verify_cookies(&secure, verify).map(|found| found.map(|claims| claims.exp)), Some(Ok(10)));
        secure.insert(COOKIE, HeaderValue::from_static("stenograph_session=eve"));
        assert_eq!(verify_cookies(&secure, verify), None);
    }

    #[test]
    fn an_origin_is_the_request_s_own_only_if_host_and_port_are_equal() {
        let request = headers("host", "chat.example.org:8080");
        let is_own = |origin: &'static str| is_own_origin(&HeaderValue::from_static(origin), &request);
        assert!(is_own("https://chat.example.org:8080"));
        for origin in ["https://chat.example.org", "https://chat.example.org:8080.evil.org", "null", ""] {
            assert!(!is_own(origin), "{origin:?}");
            assert!(!is_own_origin(&HeaderValue::from_static(origin), &HeaderMap::new()), "{origin:?} without a host");
        }
    }
}
