//! Why there is no session.

use super::password::TooManyPasswords;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The name or the password is wrong, or the account is disabled: which of it, nobody is told.
    #[error("the name or the password is wrong")]
    WrongCredentials,
    /// The refresh token is not good, or not any more.
    #[error("the session has ended: log in again")]
    SessionEnded,
    /// The invite code is not good, or not any more.
    #[error("the invite code is not valid: it may have been used, have expired, or have been revoked")]
    InviteInvalid,
    /// Someone has this name.
    #[error("this name is taken: choose another")]
    NameTaken,
    /// There is no account here to change.
    #[error("there is no account with a password for this user")]
    NoAccount,
    /// Too many wrong guesses.
    #[error("too many failed attempts: try again later")]
    Throttled(#[from] Throttled),
    /// Too many people at once.
    #[error("too many people are logging in at once: try again shortly")]
    Busy(#[from] TooManyPasswords),
    /// A token could not be signed.
    #[error("a token could not be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
    /// The database said no.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Too many guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many guesses")]
pub struct Throttled {
    /// In how many seconds they are forgotten.
    pub retry_after: u64,
}
