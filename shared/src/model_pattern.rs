//! Patterns for model names: an exact name, or a pattern in which `*` stands for any text.

use std::fmt;

/// A model name, or a pattern for model names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPattern(String);

impl ModelPattern {
    /// The maximum length of a pattern, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Parses a pattern. The error is the expected format.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let stars = text.bytes().filter(|byte| *byte == b'*').count();
        if text.is_empty() || text.len() > Self::MAX_BYTES || stars > 8 {
            return Err("expected a model name or pattern of 1 to 256 bytes with at most 8 '*'");
        }
        Ok(Self(text.to_owned()))
    }

    /// The pattern that matches every name.
    pub fn match_all() -> Self {
        Self("*".to_owned())
    }

    /// The pattern that matches no model: no model has an empty name.
    pub fn match_none() -> Self {
        Self(String::new())
    }

    /// The model name, if the pattern has no `*`.
    pub fn exact_name(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// True if the pattern matches the model name.
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').map_or(("", rest), |(middle, last)| (middle, last));
        // Matching each part at its earliest position leaves the most text for the parts after it.
        for part in middle.split('*').filter(|part| !part.is_empty()) {
            let Some(at) = name.find(part) else { return false };
            name = &name[at + part.len()..];
        }
        name.ends_with(last)
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text() {
        let cases = [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-*", "gpt-4o-mini", true),
            ("gpt-*", "gpt-", true),
            ("gpt-*", "o3", false),
            ("*", "", true),
            ("*-mini", "gpt-4o-mini", true),
            ("*-mini", "gpt-4o-mini-2024", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("**", "x", true),
            ("a*é*z", "a é z", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(ModelPattern::parse(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert!(ModelPattern::parse("").is_err());
        assert_eq!(ModelPattern::parse("gpt-*").unwrap().exact_name(), None);
    }
}
