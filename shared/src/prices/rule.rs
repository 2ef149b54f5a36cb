//! Rules by which a price list recognises the name of a provider or a model.

use std::sync::OnceLock;

use fancy_regex::Regex;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A rule over a name in lower case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The name is the text.
    Equals(LowerCase),
    /// The name begins with the text.
    StartsWith(LowerCase),
    /// The name ends with the text.
    EndsWith(LowerCase),
    /// The name contains the text.
    Contains(LowerCase),
    /// A part of the name matches the expression.
    Regex(Expression),
    /// One of the rules holds.
    Or(Vec<Rule>),
    /// All rules hold.
    And(Vec<Rule>),
}

/// A text in lower case.
#[derive(Debug)]
pub struct LowerCase(String);

/// A regular expression, compiled when first used: most expressions of a list are never needed.
#[derive(Debug)]
pub struct Expression {
    source: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Rule {
    /// Returns true if the rule holds for a name, which must be in lower case.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Equals(text) => name == text.0,
            Self::StartsWith(text) => name.starts_with(&text.0),
            Self::EndsWith(text) => name.ends_with(&text.0),
            Self::Contains(text) => name.contains(&text.0),
            Self::Regex(expression) => expression.matches(name),
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(name)),
            Self::And(rules) => rules.iter().all(|rule| rule.matches(name)),
        }
    }

    /// Compiles all expressions of the rule. The error names the expression that is not valid.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Regex(Expression { source, .. }) => {
                Regex::new(source).map(drop).map_err(|error| format!("the regular expression {source:?}: {error}"))
            }
            Self::Or(rules) | Self::And(rules) => rules.iter().try_for_each(Self::check),
            Self::Equals(_) | Self::StartsWith(_) | Self::EndsWith(_) | Self::Contains(_) => Ok(()),
        }
    }
}

impl Expression {
    /// An expression that is not valid, or that takes too many steps, matches nothing.
    fn matches(&self, name: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.source).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(name).unwrap_or(false))
    }
}

impl<'de> Deserialize<'de> for LowerCase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(String::deserialize(deserializer)?.to_lowercase()))
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        if source.len() > 1000 {
            return Err(D::Error::custom("a regular expression has more than 1,000 bytes"));
        }
        Ok(Self { source, compiled: OnceLock::new() })
    }
}

/// Returns the name with dates such as `-20251211` written as `-2025-12-11`, or `None` if the name has no such date. Some
/// providers append a date to a model's name in this form, and price lists name the other.
pub fn with_dashed_dates(name: &str) -> Option<String> {
    let mut dashed = String::with_capacity(name.len() + 2);
    let mut rest = name;
    while let Some(at) = rest.find('-') {
        let (before, after) = rest.split_at(at + 1);
        dashed.push_str(before);
        rest = after;
        let date = after.get(..8).filter(|date| is_date(date));
        if let Some(date) = date.filter(|_| after.len() == 8 || after[8..].starts_with(['-', ':'])) {
            dashed.push_str(&format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]));
            rest = &after[8..];
        }
    }
    dashed.push_str(rest);
    (dashed != name).then_some(dashed)
}

fn is_date(digits: &str) -> bool {
    let number = |range: std::ops::Range<usize>| digits.get(range)?.parse::<u16>().ok();
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(4..6), number(6..8)) else { return false };
    let month = u8::try_from(month).ok().and_then(|month| time::Month::try_from(month).ok());
    let date = month.zip(u8::try_from(day).ok());
    digits.starts_with("20")
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && date.is_some_and(|(month, day)| time::Date::from_calendar_date(i32::from(year), month, day).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_names() {
        let rule = |text: &str| serde_json::from_str::<Rule>(text).unwrap();
        assert!(rule(r#"{"equals": "GPT-5"}"#).matches("gpt-5"));
        assert!(rule(r#"{"or": [{"starts_with": "a"}, {"ends_with": "z"}]}"#).matches("xyz"));
        assert!(!rule(r#"{"and": [{"starts_with": "a"}, {"ends_with": "z"}]}"#).matches("xyz"));
        assert!(rule(r#"{"regex": "^(?!.*-tts(?:$|-))"}"#).matches("gpt-5"));
        assert!(!rule(r#"{"regex": "^(?!.*-tts(?:$|-))"}"#).matches("gpt-5-tts"));
        assert!(rule(r#"{"regex": "("}"#).check().is_err());
    }

    #[test]
    fn dates_get_dashes() {
        for (name, dashed) in [
            ("gpt-5.2-20251211", Some("gpt-5.2-2025-12-11")),
            ("m-20251211:free", Some("m-2025-12-11:free")),
            ("a-20251211-20240229", Some("a-2025-12-11-2024-02-29")),
            ("m-20250230", None),
            ("m-202512110", None),
            ("m-2025é211", None),
            ("m", None),
        ] {
            assert_eq!(with_dashed_dates(name).as_deref(), dashed, "{name}");
        }
    }
}
