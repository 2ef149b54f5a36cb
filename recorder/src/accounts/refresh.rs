//! Refresh tokens: 32 random bytes, kept as a hash, each good once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use time::Duration;

/// How soon a second use is still taken for the same client asking again, because the answer got lost, or two of its pages
/// asked at once. It gets the same successor as the first time, and only while nobody has used that.
pub const REUSE_GRACE: Duration = Duration::seconds(10);

const PREFIX: &str = "sgr_";

/// A refresh token.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

/// Makes the next token of a used one, always the same, so that asking twice gives no second one. Only who has the private
/// key can.
pub struct RefreshTokenRotation([u8; 32]);

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

impl std::fmt::Debug for RefreshTokenRotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefreshTokenRotation(..)")
    }
}

impl RefreshToken {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "each is another; a default would not say so")]
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// Reads one. None: it cannot be one.
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// As clients have it.
    pub fn encode(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// As the database has it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl RefreshTokenRotation {
    /// From the private key's file.
    pub fn from_pem(pem: &str) -> Self {
        Self(Sha256::new().chain_update(b"refresh tokens\0").chain_update(pem).finalize().into())
    }

    /// The token that comes after this one.
    pub fn successor_of(&self, token: &RefreshToken) -> RefreshToken {
        // Both parts have a fixed length, and the result is no state that could be hashed on: a plain hash does.
        let inner = Sha256::new().chain_update(self.0).chain_update(token.0).finalize();
        RefreshToken(Sha256::new().chain_update(self.0).chain_update(inner).finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_decodes_to_itself_and_has_one_successor() {
        let token = RefreshToken::new();
        assert_eq!(RefreshToken::decode(&token.encode()), Some(token.clone()));
        for text in ["", "sgr_", "sgr_AAAA", "AAAA", &token.encode()[4..]] {
            assert_eq!(RefreshToken::decode(text), None);
        }
        let (one, other) = (RefreshTokenRotation::from_pem("one"), RefreshTokenRotation::from_pem("other"));
        assert_eq!(one.successor_of(&token), one.successor_of(&token));
        assert_ne!(one.successor_of(&token), other.successor_of(&token));
        assert_ne!(one.successor_of(&token), token);
        assert_eq!(format!("{token:?}"), "RefreshToken(..)");
    }
}
