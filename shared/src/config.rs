//! Configuration: environment variables, read once at startup into typed sections.
//!
//! A missing variable, a malformed variable, and an unknown variable with a prefix of the program are errors. The error
//! message has the name of the variable and the expected value. The process then exits with status 64 (`EX_USAGE`)
//! before doing any work.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use secrecy::SecretString;

/// Exit status for a configuration error, as in `sysexits.h`.
pub const EXIT_USAGE: u8 = 64;

/// A configuration error. The message names the variable, and never repeats a value that may be secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A required variable is not set, or is empty.
    #[error("{name} is not set: expected {expected}")]
    Missing {
        /// The name of the variable.
        name: String,
        /// A description of a valid value, for the error message.
        expected: &'static str,
    },
    /// The value of a variable could not be parsed. The value may be a secret, so the error does not repeat the value.
    #[error("{name} is malformed: expected {expected}{detail}")]
    Malformed {
        /// The name of the variable.
        name: String,
        /// A description of a valid value, for the error message.
        expected: &'static str,
        /// The parser's message in parentheses, after a space. Never contains a secret.
        detail: String,
    },
    /// A variable has a prefix of the program, but no setting has the name: most likely a typing error. Holds the name.
    #[error("{0} is not a setting of this program")]
    Unknown(String),
}

/// The source of a secret: a value, or a file that is read whenever the secret is needed.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The secret itself.
    Value(SecretString),
    /// A file with the secret; white space at the end of the file is not part of the secret.
    File {
        /// The variable that names the file, for errors.
        variable: String,
        /// The path of the file.
        path: PathBuf,
    },
}

impl SecretSource {
    /// Returns the secret. A file is read anew.
    pub fn read(&self) -> Result<SecretString, ConfigError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File { variable, path } => match std::fs::read_to_string(path) {
                Ok(text) if text.trim_end().is_empty() => Err(malformed(variable, "a file with a secret", &"empty")),
                Ok(text) => Ok(text.trim_end().into()),
                Err(error) => {
                    let detail = format!("{}: {error}", path.display());
                    Err(malformed(variable, "the path of a readable file with a secret", &detail))
                }
            },
        }
    }
}

/// A set of environment variables. Records the names that were read, so that unknown variables can be refused at the
/// end.
#[derive(Debug)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    read_names: RefCell<BTreeSet<String>>,
}

impl Environment {
    /// Returns the environment of the process. Variables that are not UTF-8 are left out.
    pub fn from_process() -> Self {
        Self::from_pairs(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))
    }

    /// Returns an environment with the given variables: for tests, and for sample files of settings.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self {
            variables: pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            read_names: RefCell::default(),
        }
    }

    /// Returns the text of a variable, or `None` if the variable is not set or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.read_names.borrow_mut().insert(name.to_owned());
        self.variables.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Returns the value of a secret, or `None` if the secret is not set or empty. See [`Self::secret_source`].
    pub fn secret(&self, name: &str) -> Result<Option<SecretString>, ConfigError> {
        self.secret_source(name)?.map(|source| source.read()).transpose()
    }

    /// Returns the source of a secret: the variable itself, or the file that the variable `<name>_FILE` names, as
    /// orchestrators hand secrets over. `None` if neither is set; both are an error. A file that cannot be read is an
    /// error too.
    pub fn secret_source(&self, name: &str) -> Result<Option<SecretSource>, ConfigError> {
        let variable = format!("{name}_FILE");
        let source = match (self.text(name), self.text(&variable)) {
            (None, None) => return Ok(None),
            (Some(value), None) => SecretSource::Value(value.into()),
            (None, Some(path)) => SecretSource::File { variable, path: path.into() },
            (Some(_), Some(_)) => {
                let expected = "no value beside the setting without _FILE";
                return Err(malformed(&variable, expected, &"both are set"));
            }
        };
        source.read().map(|_| Some(source))
    }

    /// Returns the text of a required variable. The error says what was `expected`.
    pub fn required(&self, name: &str, expected: &'static str) -> Result<&str, ConfigError> {
        self.text(name).ok_or_else(|| ConfigError::Missing { name: name.to_owned(), expected })
    }

    /// Returns the parsed value of a variable, or `None` if the variable is not set or empty.
    pub fn optional<T>(&self, name: &str, expected: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        self.text(name).map(|text| text.parse().map_err(|error| malformed(name, expected, &error))).transpose()
    }

    /// Returns the parsed value of a variable, or `default` if the variable is not set or empty.
    pub fn optional_or<T>(&self, name: &str, default: T, expected: &'static str) -> Result<T, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        Ok(self.optional(name, expected)?.unwrap_or(default))
    }

    /// Returns a duration such as `250ms`, `30s` or `5m`, or `default` if the variable is not set or empty.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration, ConfigError> {
        let expected = "a duration such as 250ms, 30s or 5m";
        self.text(name).map_or(Ok(default), |text| {
            humantime::parse_duration(text).map_err(|error| malformed(name, expected, &error))
        })
    }

    /// Returns an error for the first variable that has one of the prefixes and was never read. To be called after
    /// every setting has been read.
    pub fn refuse_unknown(&self, prefixes: &[&str]) -> Result<(), ConfigError> {
        let read_names = self.read_names.borrow();
        let has_prefix = |name: &&String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        match self.variables.keys().filter(has_prefix).find(|name| !read_names.contains(*name)) {
            Some(name) => Err(ConfigError::Unknown(name.clone())),
            None => Ok(()),
        }
    }
}

/// Returns the error for a variable whose value could not be parsed. `detail` must not contain a secret.
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
