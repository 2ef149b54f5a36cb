//! The credentials of a request: where a token is found in the headers, and which keys a token is checked with.
//!
//! The gateway and the recorder check the same tokens, so they have to agree on both.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, HeaderValue};

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
