//! Failures of a command, and the exit code of each.

use std::process::ExitCode;

use shared::config::EXIT_USAGE;

use crate::output;

/// Failure of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments cannot be understood.
    Usage(String),
    /// Any other failure, printed with its causes.
    Failed(anyhow::Error),
    /// A signal, or the end of the output's reader, interrupted the start of a deployment. Holds the exit code.
    Interrupted(u8),
}

/// Exit code of a command, or the failure.
pub(crate) type Outcome = Result<ExitCode, Failure>;

impl Failure {
    /// Prints the failure on standard error and returns its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Usage(message) => {
                output::error(message);
                ExitCode::from(EXIT_USAGE)
            }
            Self::Failed(error) => {
                output::error(&format!("{error:#}"));
                ExitCode::FAILURE
            }
            Self::Interrupted(code) => ExitCode::from(*code),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
