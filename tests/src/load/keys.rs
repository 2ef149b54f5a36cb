//! Keys of a gateway for one run: public keys to verify tokens, and a token of one user.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use shared::token::{Claims, ISSUER, KeySet, PublicKey, TokenSigner};
use time::OffsetDateTime;

/// Keys for the gateway, and the token for requests.
#[derive(Debug)]
pub struct Keys {
    /// File with the public key.
    pub token_keys_file: PathBuf,
    /// Keys of conversation ids.
    pub conversation_keys: String,
    /// Token of the load's user, valid for a day.
    pub token: String,
}

impl Keys {
    /// Makes new keys, and writes the public key to `directory`.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        let key = SigningKey::from_bytes(&rand::random());
        let set = KeySet { keys: vec![PublicKey::ed25519("load", key.verifying_key().as_bytes())] };
        let token_keys_file = directory.join("jwks.json");
        std::fs::write(&token_keys_file, serde_json::to_vec(&set)?)?;
        let pem = key.to_pkcs8_pem(LineEnding::LF).context("a signing key in PEM")?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let claims =
            Claims { iss: ISSUER.to_owned(), sub: "load".parse()?, iat: now, exp: now + 86_400, role: None, sid: None };
        let token = TokenSigner::from_pem("load", &pem)?.sign(&claims)?;
        let conversation_keys = format!("1:{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        Ok(Self { token_keys_file, conversation_keys, token })
    }
}

#[cfg(test)]
mod tests {
    use shared::token::Verifier;

    use super::*;

    #[test]
    fn a_gateway_with_these_keys_takes_the_token() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::create(directory.path()).unwrap();
        let set = std::fs::read_to_string(&keys.token_keys_file).unwrap();
        let claims = Verifier::from_jwks(&set).unwrap().verify(&keys.token).unwrap();
        assert_eq!(claims.sub.as_str(), "load");
    }
}
