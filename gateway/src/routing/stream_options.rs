//! Providers that refuse to be asked for usage: `stream_options` is a member that not everyone knows, and what is not known
//! some answer with an error.
//!
//! Pure.

use http::StatusCode;

/// The longest error body that is looked through.
pub const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// What names the member, or what stands in it.
const MEMBER_NAMES: [&str; 3] = ["stream_options", "include_usage", "streamoptions"];

/// What is said of members that are not known. Some say it without a name.
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

/// Whether an answer with this status may be such a refusal, so that its body is worth a look.
pub fn may_be_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
}

/// Whether an error body says so. It may seem to where something else is wrong (some repeat the whole request): the same
/// request without the question tells.
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
