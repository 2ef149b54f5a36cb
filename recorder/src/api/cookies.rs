//! The cookies of a session. No script can read the cookies (`HttpOnly`), and no page of another site can send the
//! cookies (`SameSite`).

use http::header::{HeaderMap, HeaderValue, SET_COOKIE};
use shared::credentials::{SessionCookie, is_secure};
use time::OffsetDateTime;

use crate::accounts::Session;
use crate::accounts::refresh::RefreshToken;

/// Returns the refresh tokens from the cookies of a request. More than one means that somebody else has set a cookie of the
/// same name.
pub(super) fn refresh_tokens(headers: &HeaderMap) -> impl Iterator<Item = RefreshToken> {
    SessionCookie::Refresh.values(headers).filter_map(RefreshToken::decode)
}

/// Returns the `Set-Cookie` headers with the tokens of a session.
pub(super) fn session_cookies(session: &Session, request: &HeaderMap) -> HeaderMap {
    let now = OffsetDateTime::now_utc();
    let seconds = |until: OffsetDateTime| (until - now).whole_seconds().max(0);
    let refresh = session.refresh_token.encode();
    let access = cookie(SessionCookie::Access, &session.access_token, seconds(session.expires_at), request);
    let refresh = cookie(SessionCookie::Refresh, &refresh, seconds(session.session_expires_at), request);
    headers([access, refresh])
}

/// Returns the `Set-Cookie` headers that delete both cookies.
pub(super) fn expired_cookies(request: &HeaderMap) -> HeaderMap {
    let lines = [SessionCookie::Access, SessionCookie::Refresh].map(|name| cookie(name, "", 0, request));
    headers(lines)
}

fn headers(lines: [Option<HeaderValue>; 2]) -> HeaderMap {
    lines.into_iter().flatten().fold(HeaderMap::new(), |mut all, line| {
        all.append(SET_COOKIE, line);
        all
    })
}

fn cookie(name: SessionCookie, value: &str, seconds: i64, request: &HeaderMap) -> Option<HeaderValue> {
    // A proxy that ends TLS sets `x-forwarded-proto`. Over plain HTTP, for trials, browsers would not keep a `Secure`
    // cookie.
    let is_secure = is_secure(request);
    let secure = if is_secure { "; Secure" } else { "" };
    // The prefix `__Host-` demands the path `/`. Over plain HTTP the refresh token goes to the routes that need it.
    let path = if is_secure || name == SessionCookie::Access { "/" } else { "/api/auth" };
    let name = name.name(is_secure);
    HeaderValue::try_from(format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"))
        .ok()
}
