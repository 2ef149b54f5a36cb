//! The client's own id for a conversation thread, as known clients send the id.
//!
//! Pure. Headers take precedence over the body. Among headers, those of known clients take precedence, in the order of
//! `THREAD_HEADERS`.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Deserialize;
use shared::event::DialectName;
use uuid::Uuid;

use crate::json::lenient::{Members, Object, Text};

/// Headers that name a thread, sent by: LibreChat (its documented example, and the header of this gateway's responses),
/// Open WebUI, Claude Code, Codex, opencode.
const THREAD_HEADERS: [&str; 11] = [
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

/// The maximum length of a thread id. A longer value is ignored.
const MAX_NAME_BYTES: usize = 256;

/// The thread id in the headers of a request, if there is a valid one.
pub fn from_headers(headers: &HeaderMap) -> Option<&str> {
    // One pass over the request's headers: nearly every request has fewer headers than `THREAD_HEADERS` has names.
    headers
        .iter()
        .filter_map(|(header, value)| Some((header_rank(header.as_str())?, value.to_str().ok()?.trim())))
        .filter(|(_, name)| !name.is_empty() && name.len() <= MAX_NAME_BYTES)
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, name)| name)
}

/// The precedence of a header that names a thread, lowest first: headers of known clients in the order of the list,
/// then any `x-*-session-id`. `None` if the header names no thread.
fn header_rank(header: &str) -> Option<usize> {
    if !["-id", "_id"].iter().any(|end| header.ends_with(end)) {
        return None;
    }
    let is_session_id = || header.starts_with("x-") && header.ends_with("-session-id");
    THREAD_HEADERS.iter().position(|known| *known == header).or_else(|| is_session_id().then_some(THREAD_HEADERS.len()))
}

/// The thread id in the body of a request: `conversation` in a Responses request; in an Anthropic request the end of
/// `metadata.user_id`, as Claude Code sends it.
pub fn from_body(dialect: DialectName, members: &Members<'_>) -> Option<String> {
    #[derive(Deserialize)]
    struct Conversation<'a> {
        #[serde(default, borrow)]
        id: Text<'a>,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(default, borrow)]
        user_id: Text<'a>,
    }
    let name = match dialect {
        DialectName::OpenaiChat => None,
        DialectName::OpenaiResponses => {
            let raw = members.get("conversation")?.get();
            match serde_json::from_str::<Cow<'_, str>>(raw) {
                Ok(id) => Some(id.into_owned()),
                Err(_) => {
                    serde_json::from_str::<Object<Conversation<'_>>>(raw).ok()?.0?.id.non_empty().map(str::to_owned)
                }
            }
        }
        DialectName::AnthropicMessages => {
            let metadata = serde_json::from_str::<Object<Metadata<'_>>>(members.get("metadata")?.get()).ok()?.0?;
            let (_, session) = metadata.user_id.non_empty()?.rsplit_once("_session_")?;
            Uuid::try_parse(session).ok().map(|session| session.to_string())
        }
    };
    name.filter(|name| !name.trim().is_empty() && name.len() <= MAX_NAME_BYTES)
}

/// True if a name has the form of the gateway's own conversation ids (UUID version 8).
pub fn looks_like_conversation_id(name: &str) -> bool {
    Uuid::try_parse(name).is_ok_and(|id| id.get_version_num() == 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_headers_of_known_clients_are_read() {
        let find = |pairs: &[(&'static str, &str)]| {
            let headers: HeaderMap =
                pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
            from_headers(&headers).map(str::to_owned)
        };
        assert_eq!(find(&[("x-openwebui-chat-id", "c1")]).as_deref(), Some("c1"));
        assert_eq!(find(&[("session-id", "s1"), ("x-conversation-id", "c1")]).as_deref(), Some("c1"));
        assert_eq!(find(&[("x-acme-session-id", "a1")]).as_deref(), Some("a1"));
        assert_eq!(find(&[("x-conversation-id", " ")]), None);
        assert_eq!(find(&[("x-request-id", "r1")]), None);
        assert!(looks_like_conversation_id("01936b6e-2f00-8784-a514-c19a14c72d61"));
        assert!(
            !looks_like_conversation_id("01936b6e-2f00-4784-a514-c19a14c72d61"),
            "a version 4 UUID is a client's own id"
        );
    }

    #[test]
    fn threads_are_read_from_bodies() {
        let find = |dialect, body: &str| from_body(dialect, &serde_json::from_str(body).unwrap());
        let (responses, messages) = (DialectName::OpenaiResponses, DialectName::AnthropicMessages);
        assert_eq!(find(responses, r#"{"conversation":"conv_1"}"#).as_deref(), Some("conv_1"));
        assert_eq!(find(responses, r#"{"conversation":{"id":"conv_1"}}"#).as_deref(), Some("conv_1"));
        assert_eq!(find(responses, r#"{"conversation":null,"previous_response_id":"resp_1"}"#), None);
        let claude_code = r#"{"metadata":{"user_id":"user_a_account__session_0b6c5d6e-2b0a-4c83-9f5e-1a2b3c4d5e6f"}}"#;
        assert_eq!(find(messages, claude_code).as_deref(), Some("0b6c5d6e-2b0a-4c83-9f5e-1a2b3c4d5e6f"));
        assert_eq!(find(messages, r#"{"metadata":{"user_id":"u1"}}"#), None);
        assert_eq!(find(DialectName::OpenaiChat, r#"{"conversation":"c"}"#), None);
    }
}
