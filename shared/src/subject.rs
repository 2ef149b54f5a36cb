//! Subjects on the broker: `chats.<event>.<user>`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::event::EventKind;
use crate::id::UserId;

/// Returns the subject for an event of the given kind and user.
pub fn of(kind: EventKind, user: &UserId) -> String {
    ["chats.", kind.subject_token(), ".", &user_token(user)].concat()
}

/// Returns the user id as a single subject token.
///
/// An id of at most 64 ASCII letters, digits, `-` and `_` is used unchanged. Any other id becomes `~` and the base64url
/// of the id. So no two users share a token, and no id can insert a dot or a wildcard into a subject.
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
