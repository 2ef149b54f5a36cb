//! The state of a response of OpenAI's Responses API that a provider makes in the background.

use serde::Deserialize;

/// The maximum length of a response id, in bytes. Providers use up to 80, and proxies that encode their routing some 300.
const MAX_ID_BYTES: usize = 512;

/// The state of a response in the background, by an answer of its provider.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResponseState {
    /// The response is still to be made. Has the id.
    Pending(String),
    /// The response has ended. `has_answer` is false if it failed or was cancelled.
    Ended { has_answer: bool },
    /// The provider does not know the response any more.
    Gone,
    /// The answer does not say.
    Unknown,
}

impl ResponseState {
    /// Reads the state from a document.
    pub(super) fn read(document: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Document {
            id: Option<String>,
            status: Option<String>,
        }
        let Ok(Document { id, status }) = serde_json::from_slice(document) else { return ResponseState::Unknown };
        match status.as_deref() {
            Some("queued" | "in_progress") => ResponseState::Pending(id.unwrap_or_default()),
            Some("failed" | "cancelled") => ResponseState::Ended { has_answer: false },
            _ => ResponseState::Ended { has_answer: true },
        }
    }
}

/// Returns true for a text that providers use as the id of a response: no character with a meaning in a path.
pub fn is_plain_id(id: &str) -> bool {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=' | b'~'));
    is_plain && !id.is_empty() && id.len() <= MAX_ID_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_texts() {
        assert!(is_plain_id("resp_0a-Z=~"));
        for other in ["", "..", "a%2Fb", "a.b", "a/b", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert!(!is_plain_id(other), "{other}");
        }
    }

    #[test]
    fn the_state_is_that_of_the_document() {
        let state = |document: &str| ResponseState::read(document.as_bytes());
        for status in ["queued", "in_progress"] {
            let pending = state(&format!(r#"{{"id":"resp_1","status":"{status}"}}"#));
            assert_eq!(pending, ResponseState::Pending("resp_1".to_owned()));
        }
        assert_eq!(state(r#"{"status":"completed","output":[]}"#), ResponseState::Ended { has_answer: true });
        assert_eq!(state(r#"{"id":"resp_1","status":"incomplete"}"#), ResponseState::Ended { has_answer: true });
        assert_eq!(state(r#"{"status":"failed"}"#), ResponseState::Ended { has_answer: false });
        assert_eq!(state(r#"{"status":"cancelled"}"#), ResponseState::Ended { has_answer: false });
        for cut_off in ["", "{", r#"{"status":"completed","out"#, "data: {}", "[]"] {
            assert_eq!(state(cut_off), ResponseState::Unknown, "{cut_off}");
        }
    }
}
