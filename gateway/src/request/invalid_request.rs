//! The error of an invalid request. Its message is returned to the client with status 400.

/// An error in a request, with a message for the author of the request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// The message: found value and expected value.
    pub message: String,
    /// The name of the invalid member; `None` if the whole body or a header is invalid.
    pub param: Option<&'static str>,
}

pub(super) fn not_an_object(error: &serde_json::Error) -> InvalidRequest {
    InvalidRequest { message: format!("expected a JSON object: {error}"), param: None }
}

pub(super) fn invalid_member(param: &'static str, problem: &str) -> InvalidRequest {
    InvalidRequest { message: format!("{param}: {problem}"), param: Some(param) }
}

pub(super) fn missing_member(param: &'static str, expected: &str) -> InvalidRequest {
    invalid_member(param, &format!("missing; expected {expected}"))
}
