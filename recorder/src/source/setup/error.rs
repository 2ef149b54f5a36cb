//! Why the stream, its consumer or a bucket cannot be used.

use std::fmt::Debug;

/// Why the stream or the consumer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// One of them is not there.
    #[error("{0} does not exist: expected one made by `recorder stream create`")]
    Missing(&'static str),
    /// One of them is something else.
    #[error("{what} differs: {}", differences.join("; "))]
    Differs {
        /// Which.
        what: &'static str,
        /// Each difference, in words.
        differences: Vec<String>,
    },
    /// The broker did not answer, or not yet.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
}

/// How what is there differs from what is expected, one text for each setting.
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
