//! Lines for the person at the terminal. A reader that has gone does not stop the work: errors of writing are ignored, and
//! `up` is told by the signal.

use std::io::Write as _;

/// Prints a line on standard output.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints the name of a step before the step begins.
pub(crate) fn step(text: &str) {
    line(&format!("==> {text}"));
}

/// Prints an error on standard error, in the name of the script that a person has called.
pub(crate) fn error(message: &str) {
    let _ = writeln!(std::io::stderr(), "deploy/local.sh: {message}");
}
