//! Making oneself an account, with an invite code.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::account::{Accounts, Session};
use super::error::AccountError;
use super::throttle;
use crate::store::users::NewUser;
use crate::store::{invite_codes, users};

/// The longest login name, in characters.
const NAME_CHARACTERS: usize = 64;
/// The shortest password, and the longest, in bytes.
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 10..=1024;

/// An invite code: 16 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteCode(String);

/// An account to be made.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// The invite code.
    pub code: &'a InviteCode,
    /// The login name.
    pub name: &'a str,
    /// The password.
    pub password: &'a str,
    /// Where the request came from.
    pub address: &'a str,
}

impl std::fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteCode(..)")
    }
}

impl InviteCode {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "each is another; a default would not say so")]
    pub fn new() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
    }

    /// Whatever someone sent; spaces around it are none of it.
    pub fn parse(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// As it is passed on.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the database has it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

/// What is wrong with a login name.
pub fn name_error(name: &str) -> Option<&'static str> {
    let length = name.chars().count();
    let is_good = (1..=NAME_CHARACTERS).contains(&length) && !name.chars().any(char::is_control) && name.trim() == name;
    (!is_good).then_some("expected 1 to 64 characters, no control characters, no spaces around it")
}

/// What is wrong with a new password.
pub fn password_error(password: &str) -> Option<&'static str> {
    (!PASSWORD_BYTES.contains(&password.len())).then_some("expected 10 to 1024 bytes")
}

impl Accounts {
    /// Makes an account and begins a session.
    pub async fn register(&self, new: Registration<'_>) -> Result<Session, AccountError> {
        let now = shared::event::now();
        throttle::count_invite_attempt(&self.pool, new.address, now).await?;
        let code = new.code.hash();
        // Looked at first, so that no one without a code can make us hash.
        if !invite_codes::is_usable(&self.pool, &code, now).await? {
            return Err(AccountError::InviteInvalid);
        }
        throttle::clear_invite_attempt(&self.pool, new.address).await?;
        let hash = self.password_hasher.hash(new.password).await?;
        let user_id = Uuid::now_v7().to_string().parse().map_err(|_| AccountError::NoAccount)?;
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
            return Err(AccountError::NameTaken);
        }
        tx.commit().await?;
        let user = users::by_id(&self.pool, user_id.as_str()).await?.ok_or(AccountError::NoAccount)?;
        self.start_session(user, new.address).await
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
        assert!(password_error("123456789").is_some() && password_error("1234567890").is_none());
        assert!(password_error(&"x".repeat(1025)).is_some());
    }

    #[test]
    fn a_code_has_22_characters_and_ignores_spaces_around_it() {
        let code = InviteCode::new();
        assert_eq!(code.as_str().len(), 22);
        assert_eq!(InviteCode::parse(&format!(" {}\n", code.as_str())).hash(), code.hash());
    }
}
