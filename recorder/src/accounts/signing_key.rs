//! The key pair of session tokens and API keys.

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use sha2::{Digest as _, Sha256};
use shared::token::PublicKey;

/// Derives the public key from a private key in PEM. The key id is the thumbprint of RFC 7638, so the id follows from
/// the key.
pub fn public_key(pem: &str) -> anyhow::Result<PublicKey> {
    let key = SigningKey::from_pkcs8_pem(pem).map_err(|_| anyhow!("expected an Ed25519 private key in PKCS#8 PEM"))?;
    let bytes = key.verifying_key().to_bytes();
    let x = URL_SAFE_NO_PAD.encode(bytes);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
    Ok(PublicKey::ed25519(&kid, &bytes))
}
