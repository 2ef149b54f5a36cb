//! Recognizes upstreams that reject a request because of `stream_options`. The gateway adds this member to ask for
//! usage; some providers do not know the member and answer with an error.
//!
//! Pure.

use http::StatusCode;

/// The maximum length of an error body that is searched, in bytes.
pub const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// Names of the member and of its content, in lower case.
const MEMBER_NAMES: [&str; 3] = ["stream_options", "include_usage", "streamoptions"];

/// Phrases for unknown members in error messages, in lower case. Some providers do not name the member.
const UNKNOWN_MEMBER_PHRASES: [&str; 9] = [
    "unrecognized request argument",
    "unrecognized argument",
    "extra fields not permitted",
    "extra_forbidden",
    "extra inputs are not permitted",
    "additional properties",
    "additionalproperties",
    "unknown parameter",
    "unknown field",
];

/// True if a response with this status may be a rejection of the member, so that its body should be searched.
pub fn may_be_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
}

/// True if an error body looks like a rejection of the member. False positives are possible, because some providers
/// repeat the whole request in the error. A retry without `stream_options` then fails with the same error.
pub fn is_refusal(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    MEMBER_NAMES.iter().chain(&UNKNOWN_MEMBER_PHRASES).any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_recognized_in_the_words_of_many_providers() {
        let refusals = [
            r#"{"error":{"message":"Unrecognized request argument supplied: stream_options","type":"invalid_request_error","param":null,"code":null}}"#,
            r#"{"error":{"message":"Unknown parameter: 'stream_options'.","param":"stream_options","code":"unknown_parameter"}}"#,
            r#"{"object":"error","message":[{"loc":["body","stream_options"],"msg":"extra fields not permitted","type":"value_error.extra"}],"type":"BadRequestError"}"#,
            r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted","input":{"include_usage":true}}]}"#,
            r#"{"message":"[{'type': 'extra_forbidden', 'loc': ('body',), 'msg': 'Extra inputs are not permitted'}]"}"#,
            r#"{"error":{"message":"json: unknown field \"stream_options\""}}"#,
            r#"{"error":{"message":"Additional properties are not allowed ('stream_options' was unexpected)"}}"#,
            "Stream_Options is only available with stream: true",
            r#"{"error":"include_usage is not supported"}"#,
        ];
        for body in refusals {
            assert!(is_refusal(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn other_errors_are_not_refusals() {
        let others = [
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens","code":"context_length_exceeded"}}"#,
            r#"{"error":{"message":"Invalid value for 'temperature': expected at most 2","param":"temperature"}}"#,
            "<html><h1>400 Bad Request</h1></html>",
            "\u{fffd}",
            "",
        ];
        for body in others {
            assert!(!is_refusal(body.as_bytes()), "{body}");
        }
        let statuses = [400, 422, 200, 401, 404, 429, 500].map(|status| StatusCode::from_u16(status).unwrap());
        assert_eq!(statuses.map(may_be_refusal), [true, true, false, false, false, false, false]);
    }
}
