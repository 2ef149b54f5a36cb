//! Subjects on the broker: `chats.<event>.<user>`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::event::EventKind;
use crate::id::UserId;

/// The subject of an event of this user.
pub fn of(kind: EventKind, user: &UserId) -> String {
    ["chats.", kind.subject_token(), ".", &user_token(user)].concat()
}

/// The user as one subject token, whatever its id looks like: plain ids (letters, digits, `-`, `_`, up to 64) as they are,
/// any other as `~` and its base64url. So no two users share a token, and none can smuggle a dot or a wildcard in.
pub fn user_token(user: &UserId) -> Cow<'_, str> {
    let id = user.as_str();
    if id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        Cow::Borrowed(id)
    } else {
        Cow::Owned(format!("~{}", URL_SAFE_NO_PAD.encode(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_become_safe_tokens() {
        let token = |id: &str| user_token(&id.parse().unwrap()).into_owned();
        assert_eq!(token("019-abc_Z"), "019-abc_Z");
        assert_eq!(token("auth0|7.*>"), "~YXV0aDB8Ny4qPg");
        assert_ne!(token("~YXV0aDB8Ny4qPg"), token("auth0|7.*>"), "an id that looks like a token is not taken for one");
        assert_eq!(of(EventKind::ChatFailed, &"u1".parse().unwrap()), "chats.failed.u1");
    }
}
