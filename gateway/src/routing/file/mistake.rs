//! Mistakes in a routes file with their position, and the parsing of durations.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

/// A mistake and its position in the text.
pub(super) struct Mistake {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

/// Parses a duration. Zero is a mistake.
pub(super) fn duration(name: &str, text: Option<&Spanned<String>>, default: Duration) -> Result<Duration, Mistake> {
    let Some(text) = text else { return Ok(default) };
    match humantime::parse_duration(text.get_ref()) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(mistake(text, format!("{name}: expected a duration such as 250ms, 30s or 5m"))),
    }
}

pub(super) fn mistake<T>(at: &Spanned<T>, message: String) -> Mistake {
    Mistake { span: at.span(), message }
}
