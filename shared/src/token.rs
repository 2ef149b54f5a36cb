//! Session tokens: JWTs signed with Ed25519, minted by the recorder, verified by both services with public keys alone.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::UserId;

/// The issuer in our own tokens.
pub const ISSUER: &str = "stenograph";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// Whom it is about.
    pub sub: UserId,
    /// When it was made, in Unix seconds.
    pub iat: i64,
    /// When it stops being valid, in Unix seconds.
    pub exp: i64,
    /// What the user may do beyond their own record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The session that it belongs to, where it was made for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Uuid>,
}

/// What a user may do beyond their own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May read everyone's.
    Admin,
}

/// Why a token was not accepted. One for the caller to act on (get a new one), one to wait for, one neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// It is not one of ours.
    #[error("the token is not valid")]
    Invalid,
    /// It may be good, but the keys of the identity provider that it comes from could not be had yet.
    #[error("the identity provider's keys are not known yet: try again shortly")]
    KeysUnknown,
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a JSON Web Key Set.
    #[error("expected a JSON Web Key Set: {0}")]
    InvalidKeySet(#[from] serde_json::Error),
    /// No usable key in it.
    #[error("expected at least one key with kty OKP, crv Ed25519, a kid and a 32-byte x; found none")]
    NoUsableKey,
    /// Not a private key.
    #[error("expected an Ed25519 private key in PKCS#8 PEM")]
    InvalidPrivateKey,
}

/// A JSON Web Key Set (RFC 7517), as far as it concerns Ed25519 keys (RFC 8037).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// The keys.
    pub keys: Vec<PublicKey>,
}

/// One public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    #[serde(default)]
    pub crv: String,
    /// The key's name, as in a token's header.
    #[serde(default)]
    pub kid: String,
    /// The key, base64url.
    #[serde(default)]
    pub x: String,
}

impl PublicKey {
    /// The key of this name.
    pub fn ed25519(kid: &str, key: &[u8; 32]) -> Self {
        Self { kty: "OKP".into(), crv: "Ed25519".into(), kid: kid.into(), x: URL_SAFE_NO_PAD.encode(key) }
    }
}

/// Verifies tokens. Holds public keys only.
pub struct Verifier {
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.keys()).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads a JSON Web Key Set. Keys of other types are passed over.
    pub fn from_jwks(json: &str) -> Result<Self, KeyError> {
        let set: KeySet = serde_json::from_str(json)?;
        let keys: HashMap<_, _> = set
            .keys
            .iter()
            .filter(|key| key.kty == "OKP" && key.crv == "Ed25519" && !key.kid.is_empty())
            .filter(|key| URL_SAFE_NO_PAD.decode(&key.x).is_ok_and(|x| x.len() == 32))
            .filter_map(|key| Some((key.kid.clone(), DecodingKey::from_ed_components(&key.x).ok()?)))
            .collect();
        if keys.is_empty() {
            return Err(KeyError::NoUsableKey);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "sub", "iss"]);
        validation.validate_aud = false;
        Ok(Self { keys, validation })
    }

    /// Checks the signature, the issuer and the time.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let key = header.kid.as_ref().and_then(|kid| self.keys.get(kid)).ok_or(TokenError::Invalid)?;
        match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) if *error.kind() == jsonwebtoken::errors::ErrorKind::ExpiredSignature => {
                Err(TokenError::Expired)
            }
            Err(_) => Err(TokenError::Invalid),
        }
    }
}

/// Mints tokens. Holds the private key, so only the recorder has one.
pub struct TokenSigner {
    kid: String,
    key: EncodingKey,
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl TokenSigner {
    /// Reads a private key (PKCS#8 PEM) that verifiers know as `kid`.
    pub fn from_pem(kid: &str, pem: &str) -> Result<Self, KeyError> {
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).map_err(|_| KeyError::InvalidPrivateKey)?;
        Ok(Self { kid: kid.to_owned(), key })
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}
