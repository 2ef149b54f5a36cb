//! Session tokens: JWTs signed with Ed25519. The recorder signs tokens; both services verify tokens with public keys
//! only.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api_key;
use crate::id::{KeyId, UserId};

/// The `iss` claim of tokens that the recorder signs.
pub const ISSUER: &str = "stenograph";

/// The claims of a session token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer: [`ISSUER`], or the URL of the identity provider.
    pub iss: String,
    /// The id of the user.
    pub sub: UserId,
    /// The time of issue, in Unix seconds.
    pub iat: i64,
    /// The time of expiry, in Unix seconds.
    pub exp: i64,
    /// The user's role. Without a role, a user can read only the user's own records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The session for which the token was issued, if any. Ending the session makes the token invalid for reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Uuid>,
}

/// A role with rights beyond a user's own records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// An administrator: can read the records of all users.
    Admin,
}

/// The reason why a token was refused. The message is sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token has expired: the client must get a new token.
    #[error("the token has expired")]
    Expired,
    /// The token is malformed, or has a wrong signature, issuer or audience. Trying again is useless.
    #[error("the token is not valid")]
    Invalid,
    /// The token names the identity provider as issuer, but the provider's keys have not been fetched yet: the client
    /// should try again shortly.
    #[error("the keys of the identity provider have not been fetched yet: try again shortly")]
    KeysUnknown,
}

/// An error while signing or verification keys are read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not a JSON Web Key Set.
    #[error("expected a JSON Web Key Set: {0}")]
    InvalidKeySet(#[from] serde_json::Error),
    /// The key set has no usable Ed25519 key.
    #[error("expected at least one key with kty OKP, crv Ed25519, a kid and a 32-byte x; found none")]
    NoUsableKey,
    /// The text is not an Ed25519 private key in PKCS#8 PEM.
    #[error("expected an Ed25519 private key in PKCS#8 PEM")]
    InvalidPrivateKey,
}

/// A JSON Web Key Set (RFC 7517) with the members of Ed25519 keys (RFC 8037). Other members are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// The public keys, of any type.
    pub keys: Vec<PublicKey>,
}

/// A public key of a JSON Web Key Set. Members that are absent in the JSON are empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// The key type: `OKP` for Ed25519.
    pub kty: String,
    /// The curve: `Ed25519`.
    #[serde(default)]
    pub crv: String,
    /// The key id, as in the header of a token.
    #[serde(default)]
    pub kid: String,
    /// The 32 bytes of the public key, in base64url.
    #[serde(default)]
    pub x: String,
}

impl PublicKey {
    /// Returns the Ed25519 public key with the given key id.
    pub fn ed25519(kid: &str, key: &[u8; 32]) -> Self {
        Self { kty: "OKP".into(), crv: "Ed25519".into(), kid: kid.into(), x: URL_SAFE_NO_PAD.encode(key) }
    }
}

/// A verifier of session tokens. Holds public keys only.
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
    /// Reads a JSON Web Key Set. Keys that are not Ed25519 are ignored; a set without an Ed25519 key is an error.
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

    /// Verifies the signature of an API key, and returns the id and the owner. Nothing else about a key is in its text: the bucket
    /// `ACCESS` says if the key is in force.
    pub fn verify_api_key(&self, text: &str) -> Result<(KeyId, UserId), TokenError> {
        let key = api_key::parse(text).ok_or(TokenError::Invalid)?;
        let signing_key = self.keys.get(&key.signing_key).ok_or(TokenError::Invalid)?;
        match jsonwebtoken::crypto::verify(&key.signature, &key.message, signing_key, Algorithm::EdDSA) {
            Ok(true) => Ok((key.key_id, key.owner)),
            Ok(false) | Err(_) => Err(TokenError::Invalid),
        }
    }

    /// Verifies the signature, the issuer and the expiry of a token, without leeway for the clock.
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

/// A signer of session tokens. Holds the private key, so only the recorder has a signer.
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
    /// Reads a private key in PKCS#8 PEM. `kid` is the key id under which verifiers know the public key.
    pub fn from_pem(kid: &str, pem: &str) -> Result<Self, KeyError> {
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).map_err(|_| KeyError::InvalidPrivateKey)?;
        Ok(Self { kid: kid.to_owned(), key })
    }

    /// Returns the text of an API key. The text is shown once, and stored nowhere.
    pub fn sign_api_key(&self, key_id: KeyId, owner: &UserId) -> Result<String, jsonwebtoken::errors::Error> {
        let unusable = || jsonwebtoken::errors::Error::from(jsonwebtoken::errors::ErrorKind::InvalidEddsaKey);
        let message = api_key::message(&self.kid, key_id, owner).ok_or_else(unusable)?;
        let signature = jsonwebtoken::crypto::sign(&message, &self.key, Algorithm::EdDSA)?;
        api_key::text(&message, &signature).ok_or_else(unusable)
    }

    /// Returns a signed token with the given claims.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}
