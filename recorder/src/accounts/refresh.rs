//! Refresh tokens: 32 random bytes, stored as a hash, each good for one use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use time::Duration;

/// The time after the first use of a refresh token in which a second use counts as a repeated request of the same
/// client: the response got lost, or two pages of the client refreshed at the same time. A repeated request gets the
/// same next token as the first, as long as the next token is unused.
pub const REUSE_GRACE: Duration = Duration::seconds(10);

const PREFIX: &str = "sgr_";

/// A refresh token. `Debug` output hides the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

/// The derivation of the next refresh token from a used refresh token. The result is always the same, so a repeated
/// request creates no second token. Only holders of the private key can derive tokens.
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
    /// Generates a random token.
    #[expect(clippy::new_without_default, reason = "each token is random, unlike a default value")]
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// Parses a token from the form of [`Self::encode`]. Returns `None` for any other text.
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// Returns the token as text for clients: `sgr_` and the bytes in URL-safe base64.
    pub fn encode(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// Returns the SHA-256 hash of the token, for the database.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl RefreshTokenRotation {
    /// Derives the secret for deriving tokens from the contents of the private key file.
    pub fn from_pem(pem: &str) -> Self {
        Self(Sha256::new().chain_update(b"refresh tokens\0").chain_update(pem).finalize().into())
    }

    /// Returns the token that follows `token` in the session.
    pub fn successor_of(&self, token: &RefreshToken) -> RefreshToken {
        // All inputs have a fixed length, and the result is no hash state that could be extended. Plain SHA-256 is
        // therefore sufficient, without HMAC.
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
