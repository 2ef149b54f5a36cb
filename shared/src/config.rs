//! Configuration: environment variables, read once at the start into typed sections.
//!
//! A variable that is missing, malformed, or of our own prefix but unknown is an error that names it and says what was
//! expected; the process then exits with status 64 (`EX_USAGE`) before it does anything.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use http::Uri;
use secrecy::SecretString;

/// Exit status for a configuration error, as in `sysexits.h`.
pub const EXIT_USAGE: u8 = 64;

/// What is wrong with the configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A variable that has no default is not set.
    #[error("{name} is not set: expected {expected}")]
    Missing {
        /// The variable.
        name: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A variable holds something else than expected. The value is not repeated: it may be a secret.
    #[error("{name} is malformed: expected {expected}{detail}")]
    Malformed {
        /// The variable.
        name: String,
        /// What belongs there.
        expected: &'static str,
        /// What the parser said, where that gives nothing away.
        detail: String,
    },
    /// A variable of our prefix that nothing reads: most likely a typing error.
    #[error("{0} is not a setting of this program")]
    Unknown(String),
}

/// The environment, and which of it was asked for.
#[derive(Debug)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    read_names: RefCell<BTreeSet<String>>,
}

impl Environment {
    /// The process's own. Variables that are not UTF-8 are passed over.
    pub fn from_process() -> Self {
        Self::from_pairs(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))
    }

    /// These variables; for tests, and for files of them.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self {
            variables: pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            read_names: RefCell::default(),
        }
    }

    /// The text of a variable, if it is set and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.read_names.borrow_mut().insert(name.to_owned());
        self.variables.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A secret, if it is set and not empty.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    /// The text of a variable that must be set.
    pub fn required(&self, name: &str, expected: &'static str) -> Result<&str, ConfigError> {
        self.text(name).ok_or_else(|| ConfigError::Missing { name: name.to_owned(), expected })
    }

    /// A parsed variable, if it is set.
    pub fn optional<T>(&self, name: &str, expected: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        self.text(name).map(|text| text.parse().map_err(|error| malformed(name, expected, &error))).transpose()
    }

    /// A parsed variable, or its default.
    pub fn optional_or<T>(&self, name: &str, default: T, expected: &'static str) -> Result<T, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        Ok(self.optional(name, expected)?.unwrap_or(default))
    }

    /// A duration such as `250ms`, `30s` or `5m`, or its default.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration, ConfigError> {
        let expected = "a duration such as 250ms, 30s or 5m";
        self.text(name).map_or(Ok(default), |text| {
            humantime::parse_duration(text).map_err(|error| malformed(name, expected, &error))
        })
    }

    /// Refuses variables with one of these prefixes that nothing has asked for. To be called when all is read.
    pub fn refuse_unknown(&self, prefixes: &[&str]) -> Result<(), ConfigError> {
        let read_names = self.read_names.borrow();
        let has_prefix = |name: &&String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        match self.variables.keys().filter(has_prefix).find(|name| !read_names.contains(*name)) {
            Some(name) => Err(ConfigError::Unknown(name.clone())),
            None => Ok(()),
        }
    }
}

/// The error for a variable that could not be read.
pub fn malformed(name: &str, expected: &'static str, detail: &dyn fmt::Display) -> ConfigError {
    ConfigError::Malformed { name: name.to_owned(), expected, detail: format!(" ({detail})") }
}

/// The absolute `http` or `https` URL that a variable holds.
pub fn http_url(name: &str, text: &str) -> Result<Uri, ConfigError> {
    let expected = "an http or https URL such as http://127.0.0.1:8082";
    let url: Uri = text.parse().map_err(|error| malformed(name, expected, &error))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() || url.query().is_some() {
        return Err(malformed(name, expected, &"not an absolute URL"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_variable_and_what_was_expected() {
        let env =
            Environment::from_pairs([("X_PORT", "eighty"), ("X_WAIT", "5 parsecs"), ("X_TYPO", "1"), ("X_EMPTY", "")]);
        let error = env.optional_or::<u16>("X_PORT", 1, "a port").unwrap_err().to_string();
        assert_eq!(error, "X_PORT is malformed: expected a port (invalid digit found in string)");
        assert!(env.duration("X_WAIT", Duration::ZERO).is_err());
        assert_eq!(env.text("X_EMPTY"), None, "an empty variable is not set");
        assert_eq!(
            env.required("X_MISSING", "a name").unwrap_err().to_string(),
            "X_MISSING is not set: expected a name"
        );
        assert_eq!(env.refuse_unknown(&["X_"]), Err(ConfigError::Unknown("X_TYPO".into())));
        assert_eq!(env.refuse_unknown(&["Y_"]), Ok(()));
    }
}
