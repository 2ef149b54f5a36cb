//! Errors of accounts. The API chooses an HTTP status for each variant.

use super::password::TooManyPasswords;

/// The reason why an account could not be created, changed or logged in to, or a session not refreshed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The name or the password is wrong, or the account is disabled. The message does not tell the three cases apart.
    #[error("the name or the password is wrong")]
    WrongCredentials,
    /// The refresh token is unknown or was used before, or the session has expired or was ended.
    #[error("the session has ended: log in again")]
    SessionEnded,
    /// The invite code is unknown, used up, expired or revoked.
    #[error("the invite code is not valid: it may have been used, have expired, or have been revoked")]
    InviteInvalid,
    /// Another account has the login name.
    #[error("this name is taken: choose another")]
    NameTaken,
    /// The user has no account with a password in this database.
    #[error("there is no account with a password for this user")]
    NoAccount,
    /// A limit on attempts at passwords or invite codes has been reached.
    #[error("too many failed attempts: try again later")]
    Throttled(#[from] Throttled),
    /// The queue of passwords to hash is full.
    #[error("too many people are logging in at once: try again shortly")]
    Busy(#[from] TooManyPasswords),
    /// The access token could not be signed.
    #[error("the access token could not be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
    /// A database query failed, or no connection was available.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A limit on attempts at passwords or invite codes has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts")]
pub struct Throttled {
    /// The time until the attempts are forgotten, in seconds, at least 1. Clients get the number in `Retry-After`.
    pub retry_after: u64,
}
