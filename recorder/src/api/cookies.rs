//! The cookies of a session. No script can read the cookies (`HttpOnly`), and no page of another site can send the
//! cookies (`SameSite`).

use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use time::OffsetDateTime;

use crate::accounts::Session;
use crate::accounts::refresh::RefreshToken;

/// The cookie with the access token. The gateway reads the same cookie.
const ACCESS: &str = "stenograph_session";
const REFRESH: &str = "stenograph_refresh";
/// The only path to which browsers send the refresh token.
const REFRESH_PATH: &str = "/api/auth";

/// Returns the access token from the cookies of a request.
pub(super) fn access_token(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, ACCESS)
}

/// Returns the refresh token from the cookies of a request.
pub(super) fn refresh_token(headers: &HeaderMap) -> Option<RefreshToken> {
    RefreshToken::decode(cookie(headers, REFRESH)?)
}

/// Returns the `Set-Cookie` headers with the tokens of a session.
pub(super) fn session_cookies(session: &Session, request: &HeaderMap) -> HeaderMap {
    let now = OffsetDateTime::now_utc();
    let seconds = |until: OffsetDateTime| (until - now).whole_seconds().max(0);
    let refresh = session.refresh_token.encode();
    set(
        request,
        [
            (ACCESS, session.access_token.as_str(), "/", seconds(session.expires_at)),
            (REFRESH, refresh.as_str(), REFRESH_PATH, seconds(session.session_expires_at)),
        ],
    )
}

/// Returns the `Set-Cookie` headers that delete both cookies.
pub(super) fn expired_cookies(request: &HeaderMap) -> HeaderMap {
    set(request, [(ACCESS, "", "/", 0), (REFRESH, "", REFRESH_PATH, 0)])
}

fn set(request: &HeaderMap, cookies: [(&str, &str, &str, i64); 2]) -> HeaderMap {
    // A proxy that ends TLS sets `x-forwarded-proto`. Over plain HTTP, for trials, browsers would not keep a `Secure`
    // cookie.
    let secure = request.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let secure = if secure { "; Secure" } else { "" };
    let lines = cookies.into_iter().filter_map(|(name, value, path, seconds)| {
        let line = format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        Some((SET_COOKIE, HeaderValue::try_from(line).ok()?))
    });
    lines.fold(HeaderMap::new(), |mut all, (name, value)| {
        all.append(name, value);
        all
    })
}

fn cookie<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == wanted && !value.is_empty()).map(|(_, value)| value)
}
