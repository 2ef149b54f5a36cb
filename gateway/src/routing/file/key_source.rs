//! The sources of API keys in a routes file.

use secrecy::SecretString;

/// The source of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamKeySource<'a> {
    /// The environment variable with this name.
    Variable(&'a str),
    /// The file at this path. The file contains only the key.
    File(&'a str),
}

/// Reads an API key from its source. The error tells why the source cannot be read.
pub type KeyLookup<'a> = dyn Fn(UpstreamKeySource<'_>) -> Result<SecretString, String> + 'a;
