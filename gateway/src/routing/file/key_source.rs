//! Where the routes file says that a key is kept.

use secrecy::SecretString;

/// Where a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamKeySource<'a> {
    /// In this environment variable.
    Variable(&'a str),
    /// In this file, which holds nothing else.
    File(&'a str),
}

/// Fetches a key; the error says what is wrong with its source.
pub type KeyLookup<'a> = dyn Fn(UpstreamKeySource<'_>) -> Result<SecretString, String> + 'a;
