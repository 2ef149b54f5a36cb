//! Tokens of an external identity provider (OpenID Connect), verified with the keys that the provider publishes.
//!
//! Users of the provider need no Stenograph account. The user id is made of the provider's host and the `sub` claim, so
//! that a user of the provider can never have the id of a Stenograph account.

mod access_token;
mod key_refresh;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use access_token::ProviderClaims;

use crate::config::{ConfigError, Environment, malformed};
use crate::id::UserId;
use crate::token::{Claims, TokenError};

/// The accepted difference between the provider's clock and the local clock, in seconds.
const CLOCK_LEEWAY_SECONDS: u64 = 30;

/// The minimum length of an RSA key, in bits. Shorter keys are not used.
const MIN_RSA_BITS: usize = 2048;

/// The maximum number of keys taken from one key set.
const MAX_KEYS: usize = 100;

/// The settings of the identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The provider's URL: the `iss` claim of the provider's tokens.
    pub issuer: String,
    /// The required `aud` claim. Tokens for another audience are refused.
    pub audience: String,
    /// The URL of the provider's key set. Without one, the URL is read from
    /// `<issuer>/.well-known/openid-configuration`.
    pub keys_url: Option<String>,
    /// The scope that a token must have, in its claim `scope` or `scp`. Without one, every scope is accepted.
    pub scope: Option<String>,
    /// The maximum time between a token's `iat` and `exp`, in seconds.
    pub max_lifetime_seconds: i64,
}

impl IssuerConfig {
    /// Reads the settings that begin with `TOKEN_ISSUER`. Returns `None` if none is set. The audience is required with an
    /// issuer; other settings without an issuer are an error.
    pub fn read(env: &Environment) -> Result<Option<Self>, ConfigError> {
        let url = "an http or https URL such as https://login.example.org/realms/chat";
        let (issuer, audience) = (env.text("TOKEN_ISSUER"), env.text("TOKEN_ISSUER_AUDIENCE"));
        let keys_url = env.text("TOKEN_ISSUER_KEYS_URL");
        let Some(issuer) = issuer else {
            return match audience.or(keys_url).or(env.text("TOKEN_ISSUER_SCOPE")) {
                Some(_) => Err(ConfigError::Missing { name: "TOKEN_ISSUER".into(), expected: url }),
                None => Ok(None),
            };
        };
        for (name, value) in [("TOKEN_ISSUER", Some(issuer)), ("TOKEN_ISSUER_KEYS_URL", keys_url)] {
            if value.is_some_and(|value| host(value).is_none()) {
                return Err(malformed(name, url, &"not an http or https URL with a host"));
            }
        }
        let expected = "the `aud` claim of the provider's tokens, so that tokens for other audiences are refused";
        let audience =
            audience.ok_or_else(|| ConfigError::Missing { name: "TOKEN_ISSUER_AUDIENCE".into(), expected })?.to_owned();
        let lifetime = env.duration("TOKEN_ISSUER_MAX_LIFETIME", Duration::from_secs(86_400))?;
        Ok(Some(Self {
            issuer: issuer.to_owned(),
            audience,
            keys_url: keys_url.map(str::to_owned),
            scope: env.text("TOKEN_ISSUER_SCOPE").map(str::to_owned),
            max_lifetime_seconds: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
        }))
    }
}

/// Verifies tokens of the identity provider with the provider's current keys.
#[derive(Debug)]
pub struct Issuer {
    config: IssuerConfig,
    host: String,
    keys: RwLock<Option<Arc<KeysById>>>,
}

/// Verification keys by key id (`kid`).
type KeysById = HashMap<String, VerificationKey>;

/// A public key of the provider, and the algorithms that fit it.
#[derive(Debug)]
struct VerificationKey {
    algorithms: Vec<Algorithm>,
    decoding_key: DecodingKey,
}

impl Issuer {
    /// Returns a verifier without keys. Until [`refresh_keys`](Self::refresh_keys) has fetched a key set, the
    /// verification of the provider's tokens fails with [`TokenError::KeysUnknown`].
    pub fn new(config: IssuerConfig) -> Self {
        let host = host(&config.issuer).unwrap_or_default().to_owned();
        Self { config, host, keys: RwLock::default() }
    }

    /// Verifies signature, issuer, audience and time of a token. The user id in the returned claims is `<host>|<sub>`;
    /// role and session are always `None`.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        if !access_token::has_accepted_header(token) {
            return Err(TokenError::Invalid);
        }
        // A token of another issuer is invalid even before the keys are known; the issuer is read without verification.
        let unverified = jsonwebtoken::dangerous::insecure_decode_claims::<UnverifiedClaims>(token)
            .map_err(|_| TokenError::Invalid)?;
        if unverified.iss != self.config.issuer {
            return Err(TokenError::Invalid);
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(TokenError::KeysUnknown)?;
        let key = match &header.kid {
            Some(kid) => keys.get(kid),
            // A provider with a single key may leave out the key id.
            None => keys.values().next().filter(|_| keys.len() == 1),
        };
        let key = key.ok_or(TokenError::Invalid)?;
        if !key.algorithms.contains(&header.alg) {
            return Err(TokenError::Invalid);
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = CLOCK_LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        match jsonwebtoken::decode::<ProviderClaims>(token, &key.decoding_key, &validation) {
            Ok(data) => self.claims(data.claims),
            Err(error) if *error.kind() == jsonwebtoken::errors::ErrorKind::ExpiredSignature => {
                Err(TokenError::Expired)
            }
            Err(_) => Err(TokenError::Invalid),
        }
    }

    fn claims(&self, claims: ProviderClaims) -> Result<Claims, TokenError> {
        if !claims.is_acceptable(self.config.scope.as_deref(), self.config.max_lifetime_seconds) {
            return Err(TokenError::Invalid);
        }
        let ProviderClaims { sub, iat, exp, .. } = claims;
        let sub: UserId = format!("{}|{sub}", self.host).parse().map_err(|_| TokenError::Invalid)?;
        Ok(Claims { iss: self.config.issuer.clone(), sub, iat, exp, role: None, sid: None })
    }

    /// Replaces the keys with the usable keys of a JSON Web Key Set, and returns the number of usable keys. The
    /// previous keys stay if the set has no usable key.
    pub fn replace_keys(&self, json: &str) -> Result<usize, serde_json::Error> {
        // Keys are parsed one by one: a key of an unknown type must not make the other keys unusable.
        #[derive(Deserialize)]
        struct JsonWebKeySet {
            keys: Vec<serde_json::Value>,
        }
        let set: JsonWebKeySet = serde_json::from_str(json)?;
        let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: KeysById = jwks.filter_map(|jwk| verification_key(&jwk)).take(MAX_KEYS).collect();
        let count = keys.len();
        if count > 0 {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        }
        Ok(count)
    }
}

/// The issuer of a token whose signature has not been verified.
#[derive(Deserialize)]
struct UnverifiedClaims {
    iss: String,
}

/// Returns the key id and the verification key of a signature key, or `None` for a key that cannot verify signatures.
///
/// Symmetric keys (`oct`) are never accepted: the key set is public.
fn verification_key(jwk: &Jwk) -> Option<(String, VerificationKey)> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) if access_token::rsa_bits(&key.n) < MIN_RSA_BITS => return None,
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        _ => return None,
    };
    let algorithms = match jwk.common.key_algorithm {
        Some(declared) => {
            let declared = Algorithm::try_from(declared).ok()?;
            algorithms.into_iter().filter(|algorithm| *algorithm == declared).collect()
        }
        None => algorithms,
    };
    let decoding_key = DecodingKey::from_jwk(jwk).ok()?;
    Some((jwk.common.key_id.clone().unwrap_or_default(), VerificationKey { algorithms, decoding_key }))
}

/// Returns the host of an http or https URL, including the port if the URL has a port.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    (!host.is_empty() && !host.contains(['@', '|', ' '])).then_some(host)
}

#[cfg(test)]
mod tests;
