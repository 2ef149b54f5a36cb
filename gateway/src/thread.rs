//! Where clients put the name of their own thread.
//!
//! Pure. The headers of known clients, in the order in which they are believed.

use http::HeaderMap;
use uuid::Uuid;

/// Headers that name a thread: LibreChat's documented example (and our own answer's), Open WebUI, Claude Code, Codex, opencode.
const HEADERS: [&str; 11] = [
    "x-conversation-id",
    "x-openwebui-chat-id",
    "x-claude-code-session-id",
    "x-parent-session-id",
    "x-thread-id",
    "session-id",
    "session_id",
    "thread-id",
    "conversation-id",
    "conversation_id",
    "x-session-id",
];

/// The longest name that is taken for one.
const MAX_BYTES: usize = 256;

/// The thread that a request names, if it names one.
pub fn named_in(headers: &HeaderMap) -> Option<&str> {
    let known = HEADERS.iter().filter_map(|name| headers.get(*name));
    let other_vendors = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-") && name.as_str().ends_with("-session-id"))
        .map(|(_, value)| value);
    known
        .chain(other_vendors)
        .filter_map(|value| value.to_str().ok())
        .map(str::trim)
        .find(|name| !name.is_empty() && name.len() <= MAX_BYTES)
}

/// Whether a name has the form of the gateway's own conversation ids.
pub fn looks_like_ours(name: &str) -> bool {
    Uuid::try_parse(name).is_ok_and(|id| id.get_version_num() == 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_clients_are_understood() {
        let find = |pairs: &[(&'static str, &str)]| {
            let headers: HeaderMap =
                pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
            named_in(&headers).map(str::to_owned)
        };
        assert_eq!(find(&[("x-openwebui-chat-id", "c1")]).as_deref(), Some("c1"));
        assert_eq!(find(&[("session-id", "s1"), ("x-conversation-id", "c1")]).as_deref(), Some("c1"));
        assert_eq!(find(&[("x-acme-session-id", "a1")]).as_deref(), Some("a1"));
        assert_eq!(find(&[("x-conversation-id", " ")]), None);
        assert_eq!(find(&[("x-request-id", "r1")]), None);
        assert!(looks_like_ours("01936b6e-2f00-8784-a514-c19a14c72d61"));
        assert!(!looks_like_ours("01936b6e-2f00-4784-a514-c19a14c72d61"), "a random UUID of the client's own");
    }
}
