//! Errors of the setup: a missing or different stream, consumer or bucket.

use std::fmt::Debug;

/// The reason the stream, the consumer or a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The named object does not exist.
    #[error("{0} does not exist: expected one made by `recorder stream create`")]
    Missing(&'static str),
    /// The named object exists with a different configuration.
    #[error("{what} differs: {}", differences.join("; "))]
    Differs {
        /// The object: the stream, the consumer or a bucket.
        what: &'static str,
        /// One text per difference, with the found and the expected value.
        differences: Vec<String>,
    },
    /// The broker did not answer, or is not ready yet.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
}

/// The collected differences between the found and the expected configuration, one text per setting.
#[derive(Default)]
pub(super) struct Differences(pub(super) Vec<String>);

impl Differences {
    pub(super) fn compare<T: PartialEq + Debug>(&mut self, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.0.push(format!("{what} is {found:?}, expected {expected:?}"));
        }
    }
}

pub(super) fn unavailable(error: &dyn std::fmt::Display) -> SetupError {
    SetupError::Unavailable(error.to_string())
}
