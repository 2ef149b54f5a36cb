//! The text of an API key: the id and the owner of the key, signed by the deployment.
//!
//! `sk-st-` and, in base64url: a format byte, the id of the signing key with its length, the 16 bytes of the key's id, the owner, and
//! 64 bytes of Ed25519 signature. A key proves itself, so no secret is stored: nobody who reads the database, the stream or the
//! bucket can make a key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::id::{KeyId, UserId};

/// The beginning of every API key.
pub const PREFIX: &str = "sk-st-";

/// The format of keys: the first byte after the prefix.
const FORMAT: u8 = 1;

/// The text before the signed bytes, so that no signature of another purpose is a key.
const DOMAIN: &[u8] = b"stenograph api key\0";

const ID_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;

/// The maximum length of a key, in bytes: longer text is refused before it is decoded.
const MAX_TEXT_BYTES: usize = 1024;

/// The claims of an API key whose signature has not been verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedKey {
    /// The id of the signing key.
    pub signing_key: String,
    /// The id of the key.
    pub key_id: KeyId,
    /// The owner of the key.
    pub owner: UserId,
    /// The signed bytes.
    pub message: Vec<u8>,
    /// The signature, in base64url.
    pub signature: String,
}

/// Returns true if the credential is an API key by its form.
pub fn is_api_key(credential: &str) -> bool {
    credential.starts_with(PREFIX)
}

/// Reads a key without verifying the signature. Returns `None` for text that is no key of a known format.
pub fn parse(text: &str) -> Option<UnverifiedKey> {
    let encoded = text.strip_prefix(PREFIX).filter(|_| text.len() <= MAX_TEXT_BYTES)?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
    let (&[format, length], rest) = signed.split_first_chunk::<2>()?;
    let (signing_key, rest) = rest.split_at_checked(length.into())?;
    let (id, owner) = rest.split_at_checked(ID_BYTES)?;
    if format != FORMAT {
        return None;
    }
    Some(UnverifiedKey {
        signing_key: std::str::from_utf8(signing_key).ok()?.to_owned(),
        key_id: KeyId(Uuid::from_slice(id).ok()?),
        owner: std::str::from_utf8(owner).ok()?.parse().ok()?,
        message: [DOMAIN, signed].concat(),
        signature: URL_SAFE_NO_PAD.encode(signature),
    })
}

/// Returns the bytes to sign for a key; `None` if the id of the signing key is longer than 255 bytes.
pub fn message(signing_key: &str, key_id: KeyId, owner: &UserId) -> Option<Vec<u8>> {
    let length = u8::try_from(signing_key.len()).ok()?;
    let head = [FORMAT, length];
    Some([DOMAIN, &head, signing_key.as_bytes(), key_id.0.as_bytes(), owner.as_str().as_bytes()].concat())
}

/// Returns the text of a key from the signed bytes of [`message`] and the signature in base64url; `None` for a signature of another
/// form.
pub fn text(message: &[u8], signature: &str) -> Option<String> {
    let signature = URL_SAFE_NO_PAD.decode(signature).ok().filter(|bytes| bytes.len() == SIGNATURE_BYTES)?;
    let signed = message.strip_prefix(DOMAIN)?;
    Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([signed, &signature].concat())))
}
