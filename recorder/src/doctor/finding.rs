//! The result of one check.

use std::fmt;

/// The meaning of a finding for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not examined.
    Skipped,
    /// Works, and should be changed.
    Warning,
    /// Does not work, or loses records.
    Wrong,
}

/// The result of one check. As text, a line: the level, the thing that was examined, what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The meaning.
    pub level: Level,
    /// The thing that was examined.
    pub subject: &'static str,
    /// What was found.
    pub found: String,
    /// What to do; empty if there is nothing to do.
    pub action: String,
}

// === impl Finding ===

impl Finding {
    /// Says that a thing is as it should be.
    pub fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, found: found.into(), action: String::new() }
    }

    /// Says why a thing was not examined.
    pub fn skipped(subject: &'static str, reason: impl Into<String>) -> Self {
        Self { level: Level::Skipped, subject, found: reason.into(), action: String::new() }
    }

    /// Says what should be changed.
    pub fn warning(subject: &'static str, found: impl Into<String>, action: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject, found: found.into(), action: action.into() }
    }

    /// Says what is wrong.
    pub fn wrong(subject: &'static str, found: impl Into<String>, action: impl Into<String>) -> Self {
        Self { level: Level::Wrong, subject, found: found.into(), action: action.into() }
    }
}

impl Level {
    /// Returns the word for the level.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line is a finding, whatever servers write into their messages.
        let found = self.found.replace(char::is_control, " ");
        write!(f, "{:<8} {:<9} {found}", self.level.word(), self.subject)?;
        if !self.action.is_empty() {
            write!(f, ". {}", self.action)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line() {
        let finding = Finding::wrong("stream", "discard is\nOld", "Set it back.");
        assert_eq!(finding.to_string(), "wrong    stream    discard is Old. Set it back.");
        assert_eq!(Finding::ok("keys", "good").to_string(), "ok       keys      good");
    }
}
