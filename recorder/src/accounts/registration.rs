//! Registration of an account with an invite code.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use shared::event::{AuditAction, AuditOutcome, AuditTargetKind};
use shared::id::UserId;
use uuid::Uuid;

use super::account::{Accounts, Session};
use super::common_password::is_common;
use super::error::AccountError;
use super::throttle;
use crate::name_key::name_key;
use crate::store::audit_outbox::Actor;
use crate::store::users::NewUser;
use crate::store::{invite_codes, users};

/// The maximum length of a login name, in characters.
const NAME_CHARACTERS: usize = 64;
/// The allowed length of a password, in bytes.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 10..=1024;

/// An invite code: 16 random bytes in URL-safe base64, 22 characters. `Debug` output hides the code.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteCode(String);

/// The data for registering an account.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// The invite code, stored as a hash and good for a limited number of accounts.
    pub code: &'a InviteCode,
    /// The login name, already checked with [`name_error`].
    pub name: &'a str,
    /// The password, already checked with [`password_error`].
    pub password: &'a str,
    /// The client's address, in the form of [`throttle::address_key`].
    pub address: &'a str,
}

impl std::fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteCode(..)")
    }
}

impl InviteCode {
    /// Generates a random invite code.
    #[expect(clippy::new_without_default, reason = "each code is random, unlike a default value")]
    pub fn new() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
    }

    /// Wraps text from a client, without the white space around the code. Any text is accepted here; the database
    /// decides whether the code is valid.
    pub fn parse(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Returns the code for display to the admin who creates the invite.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 hash of the code, for the database.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

/// Returns the rule that a login name violates, or `None` for a valid name.
pub fn name_error(name: &str) -> Option<&'static str> {
    let length = name.chars().count();
    let is_good = (1..=NAME_CHARACTERS).contains(&length)
        && !name.chars().any(char::is_control)
        && name.trim() == name
        && !name_key(name).is_empty();
    (!is_good).then_some("expected 1 to 64 characters, no control characters, no spaces around it")
}

/// Returns the rule that a new password violates, or `None` for a valid password.
pub fn password_error(password: &str) -> Option<&'static str> {
    if !PASSWORD_BYTES.contains(&password.len()) {
        return Some("expected 10 to 1024 bytes");
    }
    is_common(password)
        .then_some("expected a password that is harder to guess: this one is among the first that are tried")
}

impl Accounts {
    /// Creates an account and a session. The invite determines the role of the account.
    ///
    /// Attempts with invalid codes and with taken names count against a limit for the client's address; past the limit, every attempt fails
    /// with [`AccountError::Throttled`].
    pub async fn register(&self, new: Registration<'_>) -> Result<Session, AccountError> {
        let now = shared::event::now();
        let code = new.code.hash();
        let act = Actor::anonymous(new.address).act(AuditAction::Register);
        let counted = throttle::count_invite_attempt(&self.pool, &code, new.address, now).await;
        self.unless_throttled(counted, &act)?;
        // The code is checked before the password is hashed: without a valid code, no client can make the server hash
        // passwords.
        if !invite_codes::is_usable(&self.pool, &code, now).await? {
            self.audit.note(&act.with(AuditOutcome::Failure)).await?;
            return Err(AccountError::InviteInvalid);
        }
        let hash = self.password_hasher.hash(new.password).await?;
        let user_id: UserId = Uuid::now_v7().to_string().parse().map_err(|_| AccountError::NoAccount)?;
        let mut tx = self.pool.begin().await?;
        let taken = invite_codes::redeem(&mut tx, &code, now).await?;
        let (invite_id, role) = taken.ok_or(AccountError::InviteInvalid)?;
        let account = NewUser {
            user_id: &user_id,
            name: new.name,
            role,
            password_hash: Some(&hash),
            invite_id: Some(invite_id),
            created_at: now,
        };
        if !users::create(&mut tx, &account).await? {
            tx.rollback().await?;
            self.audit.note(&act.on(AuditTargetKind::Invite, &invite_id).with(AuditOutcome::Failure)).await?;
            return Err(AccountError::NameTaken);
        }
        tx.commit().await?;
        // An attempt with a taken name stays counted: with a valid code, names could otherwise be found out one by one.
        throttle::clear_invite_attempt(&self.pool, &code, new.address).await?;
        let user = users::by_id(&self.pool, user_id.as_str()).await?.ok_or(AccountError::NoAccount)?;
        let act = Actor::user(&user_id, new.address).act(AuditAction::Register).on(AuditTargetKind::Invite, &invite_id);
        self.start_session(user, new.address, &act).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_outside_their_bounds_are_refused() {
        assert_eq!(name_error("Ann 王"), None);
        for name in ["", " ann", "ann ", "a\nb", &"x".repeat(65)] {
            assert!(name_error(name).is_some(), "{name:?}");
        }
        assert!(password_error("not so 10").is_some() && password_error("just 10 by").is_none());
        assert!(password_error(&"xyz ".repeat(257)).is_some());
        assert!(password_error("password123").is_some() && password_error("aaaaaaaaaaaa").is_some());
    }

    #[test]
    fn a_code_has_22_characters_and_ignores_spaces_around_it() {
        let code = InviteCode::new();
        assert_eq!(code.as_str().len(), 22);
        assert_eq!(InviteCode::parse(&format!(" {}\n", code.as_str())).hash(), code.hash());
    }
}
