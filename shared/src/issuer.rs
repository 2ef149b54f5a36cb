//! An identity provider outside: tokens of its users are accepted as our own are, checked with the keys that it publishes.
//!
//! Its users need no account here. Their ids are made of the provider's host and the token's `sub`, so that nobody there can
//! be anybody here.

mod key_refresh;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::config::{ConfigError, Environment, malformed};
use crate::id::UserId;
use crate::token::{Claims, TokenError};

/// How far the provider's clock and ours may be apart, in seconds.
const CLOCK_LEEWAY_SECONDS: u64 = 30;

/// How many of a set's keys are taken.
const MAX_KEYS: usize = 100;

/// Which provider, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What its tokens say in `iss`: its URL.
    pub issuer: String,
    /// What its tokens have to say in `aud`: who they are for.
    pub audience: String,
    /// Where its keys are, if that is not to be asked of `<issuer>/.well-known/openid-configuration`.
    pub keys_url: Option<String>,
}

impl IssuerConfig {
    /// Reads `TOKEN_ISSUER`, `TOKEN_ISSUER_AUDIENCE` and `TOKEN_ISSUER_KEYS_URL`; none without the first.
    pub fn read(env: &Environment) -> Result<Option<Self>, ConfigError> {
        let url = "an http or https URL such as https://login.example.org/realms/chat";
        let (issuer, audience) = (env.text("TOKEN_ISSUER"), env.text("TOKEN_ISSUER_AUDIENCE"));
        let keys_url = env.text("TOKEN_ISSUER_KEYS_URL");
        let Some(issuer) = issuer else {
            return match audience.or(keys_url) {
                Some(_) => Err(ConfigError::Missing { name: "TOKEN_ISSUER".into(), expected: url }),
                None => Ok(None),
            };
        };
        for (name, value) in [("TOKEN_ISSUER", Some(issuer)), ("TOKEN_ISSUER_KEYS_URL", keys_url)] {
            if value.is_some_and(|value| host(value).is_none()) {
                return Err(malformed(name, url, &"not such a URL"));
            }
        }
        let expected = "what the provider's tokens say in `aud`, so that those for others are not accepted";
        let audience =
            audience.ok_or_else(|| ConfigError::Missing { name: "TOKEN_ISSUER_AUDIENCE".into(), expected })?.to_owned();
        Ok(Some(Self { issuer: issuer.to_owned(), audience, keys_url: keys_url.map(str::to_owned) }))
    }
}

/// Verifies an outside provider's tokens, with its keys of the moment.
#[derive(Debug)]
pub struct Issuer {
    config: IssuerConfig,
    host: String,
    keys: RwLock<Option<Arc<KeysById>>>,
}

/// The keys by name, each with the algorithms that it is for.
type KeysById = HashMap<String, VerificationKey>;

/// A public key of the provider, and the algorithms that fit it.
#[derive(Debug)]
struct VerificationKey {
    algorithms: Vec<Algorithm>,
    decoding_key: DecodingKey,
}

/// What we take from a token.
#[derive(Deserialize)]
struct ProviderClaims {
    sub: String,
    #[serde(default)]
    iat: i64,
    exp: i64,
}

impl Issuer {
    /// Without keys yet: [`follow`](Self::follow) gets them.
    pub fn new(config: IssuerConfig) -> Self {
        let host = host(&config.issuer).unwrap_or_default().to_owned();
        Self { config, host, keys: RwLock::default() }
    }

    /// Checks signature, issuer, audience and time. The user is `<host>|<sub>`, and may do what any user may.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        // Before the keys are known it cannot be said whether a token is good; one that is not even theirs is not.
        let unverified = jsonwebtoken::dangerous::insecure_decode_claims::<UnverifiedClaims>(token)
            .map_err(|_| TokenError::Invalid)?;
        if unverified.iss != self.config.issuer {
            return Err(TokenError::Invalid);
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(TokenError::KeysUnknown)?;
        let key = match &header.kid {
            Some(kid) => keys.get(kid),
            // A provider with one key need not name it.
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

    fn claims(&self, ProviderClaims { sub, iat, exp }: ProviderClaims) -> Result<Claims, TokenError> {
        let sub: UserId = format!("{}|{sub}", self.host).parse().map_err(|_| TokenError::Invalid)?;
        Ok(Claims { iss: self.config.issuer.clone(), sub, iat, exp, role: None, sid: None })
    }

    /// Takes the keys of a JSON Web Key Set that can verify; says how many that are. With none, the old ones stay.
    pub fn replace_keys(&self, json: &str) -> Result<usize, serde_json::Error> {
        // One key that we cannot read is no reason to do without the others.
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

#[derive(Deserialize)]
struct UnverifiedClaims {
    iss: String,
}

/// A key for signatures, by its name, with the algorithms that fit it. Never one with a shared secret.
fn verification_key(jwk: &Jwk) -> Option<(String, VerificationKey)> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let algorithms = match &jwk.algorithm {
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

/// The host of an http or https URL, with its port if it has one.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    (!host.is_empty() && !host.contains(['@', '|', ' '])).then_some(host)
}

#[cfg(test)]
mod tests;
