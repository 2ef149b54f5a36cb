//! Mistakes in a routes file, and the durations in which most are made.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

/// A mistake, and where in the text it is.
pub(super) struct Mistake {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

/// A duration that is not zero.
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
