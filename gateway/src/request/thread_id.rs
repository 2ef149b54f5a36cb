//! The client's own id for a conversation thread, as known clients send the id.
//!
//! Pure. docs/DISCONNECTS.md has the precedence: the deployment's own header, headers of known clients, the body.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use shared::event::DialectName;
use uuid::Uuid;

use crate::json::lenient::{Members, Object, Text};

/// The deployment's choices about thread ids.
#[derive(Clone, Debug)]
pub struct ThreadSettings {
    /// The deployment's own header with a thread id, which precedes all others. `GATEWAY_THREAD_HEADER`, default none.
    pub header: Option<HeaderName>,
    /// True if `prompt_cache_key` names a thread in requests that name none otherwise. `GATEWAY_THREAD_FROM_CACHE_KEY`,
    /// default on.
    pub is_cache_key_a_thread: bool,
}

impl Default for ThreadSettings {
    fn default() -> Self {
        Self { header: None, is_cache_key_a_thread: true }
    }
}

/// Headers that name a thread, sent by: LibreChat (its documented example, and the header of this gateway's responses),
/// Open WebUI, Claude Code, OpenClaw, opencode, Roo Code, Grok, Codex.
const THREAD_HEADERS: [&str; 16] = [
    "x-conversation-id",
    "x-openwebui-chat-id",
    "x-claude-code-session-id",
    "x-parent-session-id",
    "x-openclaw-session-key",
    "x-opencode-session",
    "x-session-affinity",
    "x-task-id",
    "x-grok-conv-id",
    "x-thread-id",
    "session-id",
    "session_id",
    "thread-id",
    "conversation-id",
    "conversation_id",
    "x-session-id",
];

/// The ends of headers that name a thread, for clients and observability tools that are not in the list, such as
/// `helicone-session-id`.
const THREAD_HEADER_ENDS: [&str; 5] =
    ["-session-id", "-session-key", "-session-affinity", "-thread-id", "-conversation-id"];

/// The last letters of all headers that name a thread.
const LAST_LETTERS: [&str; 5] = ["-id", "_id", "-key", "-session", "-affinity"];

/// Members of a request that name a thread, in the order of precedence.
const THREAD_MEMBERS: [&str; 6] =
    ["session_id", "litellm_session_id", "langfuse_session_id", "conversation_id", "thread_id", "chat_id"];

/// The maximum length of a thread id. A longer value is ignored.
const MAX_NAME_BYTES: usize = 256;

/// The thread id in the headers of a request, if there is a valid one.
pub fn from_headers<'a>(headers: &'a HeaderMap, settings: &ThreadSettings) -> Option<&'a str> {
    let own = settings.header.as_ref().and_then(|name| headers.get(name)?.to_str().ok()).map(str::trim);
    if let Some(own) = own.filter(|name| is_name(name)) {
        return Some(own);
    }
    // One pass over the request's headers: nearly every request has fewer headers than `THREAD_HEADERS` has names.
    headers
        .iter()
        .filter_map(|(header, value)| Some((header_rank(header.as_str())?, value.to_str().ok()?.trim())))
        .filter(|(_, name)| is_name(name))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, name)| name)
}

/// The precedence of a header that names a thread, lowest first: headers of known clients in the order of the list,
/// then headers with a known end. `None` if the header names no thread.
fn header_rank(header: &str) -> Option<usize> {
    if !LAST_LETTERS.iter().any(|end| header.ends_with(end)) {
        return None;
    }
    // Browsers send `sec-*` headers about sessions of their own.
    let has_known_end = || !header.starts_with("sec-") && THREAD_HEADER_ENDS.iter().any(|end| header.ends_with(end));
    THREAD_HEADERS.iter().position(|known| *known == header).or_else(|| has_known_end().then_some(THREAD_HEADERS.len()))
}

/// The thread id in the body of a request: `conversation` in a Responses request; the session in `metadata.user_id` of an
/// Anthropic request, as Claude Code sends it; a member of the request or of `metadata` with a known name.
pub fn from_body(dialect: DialectName, members: &Members<'_>) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata<'a> {
        #[serde(borrow)]
        user_id: Text<'a>,
        #[serde(borrow)]
        session_id: Text<'a>,
        #[serde(borrow)]
        thread_id: Text<'a>,
        #[serde(borrow)]
        conversation_id: Text<'a>,
        #[serde(borrow)]
        chat_id: Text<'a>,
        #[serde(borrow)]
        langfuse_session_id: Text<'a>,
    }
    let metadata = || -> Option<Metadata<'_>> {
        let raw = members.get("metadata").filter(|raw| raw.get().starts_with('{'))?;
        serde_json::from_str::<Object<Metadata<'_>>>(raw.get()).ok()?.0
    };
    let conversation = match dialect {
        DialectName::OpenaiResponses => conversation_name(members),
        _ => None,
    };
    conversation.or_else(|| {
        let metadata = metadata().unwrap_or_default();
        let claude_code = match dialect {
            DialectName::AnthropicMessages => metadata.user_id.non_empty().and_then(claude_code_session),
            _ => None,
        };
        let named = || THREAD_MEMBERS.iter().find_map(|name| text_member(members, name));
        let in_metadata = || {
            let (langfuse, chat) = (&metadata.langfuse_session_id, &metadata.chat_id);
            let texts = [&metadata.session_id, langfuse, &metadata.thread_id, &metadata.conversation_id, chat];
            texts.iter().filter_map(|text| text.non_empty()).find(|name| is_name(name)).map(str::to_owned)
        };
        claude_code.or_else(named).or_else(in_metadata)
    })
}

/// The member of this name, if it is a text that can name a thread.
pub(super) fn text_member(members: &Members<'_>, name: &str) -> Option<String> {
    let text: Cow<'_, str> = serde_json::from_str(members.get(name)?.get()).ok()?;
    is_name(&text).then(|| text.into_owned())
}

/// The `conversation` of a Responses request: an id, or an object with an id.
fn conversation_name(members: &Members<'_>) -> Option<String> {
    #[derive(Deserialize)]
    struct Conversation<'a> {
        #[serde(default, borrow)]
        id: Text<'a>,
    }
    text_member(members, "conversation").or_else(|| {
        let raw = members.get("conversation")?.get();
        let conversation = serde_json::from_str::<Object<Conversation<'_>>>(raw).ok()?.0?;
        conversation.id.non_empty().filter(|id| is_name(id)).map(str::to_owned)
    })
}

/// The session in `metadata.user_id` as Claude Code sends it: JSON with a `session_id`, or in older versions a text that ends
/// in `_session_` and a UUID.
fn claude_code_session(user_id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct UserId<'a> {
        #[serde(default, borrow)]
        session_id: Text<'a>,
    }
    if user_id.starts_with('{') {
        let user_id = serde_json::from_str::<Object<UserId<'_>>>(user_id).ok()?.0?;
        return user_id.session_id.non_empty().filter(|session| is_name(session)).map(str::to_owned);
    }
    let (_, session) = user_id.rsplit_once("_session_")?;
    Uuid::try_parse(session).ok().map(|session| session.to_string())
}

fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MAX_NAME_BYTES
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
                pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
            from_headers(&headers, &ThreadSettings::default()).map(str::to_owned)
        };
        assert_eq!(find(&[("x-openwebui-chat-id", "c1")]).as_deref(), Some("c1"));
        assert_eq!(find(&[("session-id", "s1"), ("x-conversation-id", "c1")]).as_deref(), Some("c1"));
        assert_eq!(find(&[("x-acme-session-id", "a1")]).as_deref(), Some("a1"));
        for known in [
            "helicone-session-id",
            "x-task-id",
            "x-openclaw-session-key",
            "x-opencode-session",
            "x-litellm-session-id",
            "x-grok-conv-id",
            "x-session-affinity",
            "x-vendor-session-affinity",
        ] {
            assert_eq!(find(&[(known, "k1")]).as_deref(), Some("k1"), "{known}");
        }
        for other in
            ["sec-session-id", "x-chat-id", "x-api-key", "x-app-session", "x-client-request-id", "x-cookie-affinity"]
        {
            assert_eq!(find(&[(other, "o1")]), None, "{other}");
        }
        let own = ThreadSettings { header: Some(HeaderName::from_static("x-acme-case")), ..Default::default() };
        let headers = [("x-acme-case", "case-7"), ("x-conversation-id", "c1")];
        let headers: HeaderMap =
            headers.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect();
        assert_eq!(from_headers(&headers, &own), Some("case-7"));
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
        let newer = r#"{"metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"s-1\"}"},"session_id":"other"}"#;
        assert_eq!(find(messages, newer).as_deref(), Some("s-1"));
        assert_eq!(
            find(DialectName::OpenaiChat, newer).as_deref(),
            Some("other"),
            "only Anthropic's clients nest JSON"
        );
        for user_id in ["{", r#"{\"session_id\":7}"#, r#"{\"session_id\":\"\"}"#, "[]", "u1"] {
            assert_eq!(find(messages, &format!(r#"{{"metadata":{{"user_id":"{user_id}"}}}}"#)), None, "{user_id}");
        }
        for dialect in [DialectName::OpenaiChat, responses, messages] {
            for name in THREAD_MEMBERS {
                assert_eq!(find(dialect, &format!(r#"{{"{name}":"t1"}}"#)).as_deref(), Some("t1"), "{name}");
                assert_eq!(find(dialect, &format!(r#"{{"{name}":7}}"#)), None, "{name}");
            }
            for name in ["session_id", "langfuse_session_id", "thread_id", "conversation_id", "chat_id"] {
                let body = format!(r#"{{"metadata":{{"{name}":"t1","user_id":"u"}}}}"#);
                assert_eq!(find(dialect, &body).as_deref(), Some("t1"), "{name}");
            }
            assert_eq!(find(dialect, &format!(r#"{{"session_id":"{}"}}"#, "x".repeat(257))), None);
        }
        assert_eq!(find(DialectName::OpenaiChat, r#"{"conversation":"c"}"#), None);
    }
}
