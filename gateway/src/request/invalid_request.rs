//! What is wrong with a request, in words for its author.

/// What is wrong with a request, in words for its author.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// What was found and what was expected.
    pub message: String,
    /// The member that is wrong.
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
