//! The difference between an access token and the other signed tokens of a provider: ID tokens, refresh tokens and logout
//! tokens are signed with the same keys, and must not let anybody in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The maximum length of the claim `sub`, in bytes, as in OpenID Connect.
const MAX_SUBJECT_BYTES: usize = 255;

/// The claims that are taken from a verified token, and those that tell kinds of tokens apart. The role and session claims of
/// the provider are ignored.
#[derive(Deserialize)]
pub(super) struct ProviderClaims {
    pub(super) sub: String,
    #[serde(default)]
    pub(super) iat: i64,
    pub(super) exp: i64,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl ProviderClaims {
    /// Returns true for the claims of an access token with the required scope, a subject and a lifetime of at most so many
    /// seconds.
    pub(super) fn is_acceptable(&self, scope: Option<&str>, max_lifetime_seconds: i64) -> bool {
        let lifetime = self.exp.checked_sub(self.iat);
        let is_subject = (1..=MAX_SUBJECT_BYTES).contains(&self.sub.len()) && !self.sub.trim().is_empty();
        is_subject
            && lifetime.is_some_and(|lifetime| lifetime <= max_lifetime_seconds)
            && self.is_of_access_token()
            && scope.is_none_or(|scope| self.has_scope(scope))
    }

    /// Returns false if a claim shows another kind of token: Keycloak's `typ`, Cognito's `token_use`, the hashes of ID tokens, the
    /// events of logout tokens.
    fn is_of_access_token(&self) -> bool {
        let is_kind = |name: &str, kinds: &[&str]| match self.other.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::String(kind)) => kinds.iter().any(|known| kind.eq_ignore_ascii_case(known)),
            Some(_) => false,
        };
        is_kind("typ", &["bearer", "jwt", "at+jwt", "application/at+jwt"])
            && is_kind("token_use", &["access"])
            && !["at_hash", "c_hash", "s_hash", "events"].iter().any(|name| self.other.contains_key(*name))
    }

    fn has_scope(&self, wanted: &str) -> bool {
        ["scope", "scp"].iter().filter_map(|name| self.other.get(*name)).any(|scopes| match scopes {
            Value::String(scopes) => scopes.split(' ').any(|scope| scope == wanted),
            Value::Array(scopes) => scopes.iter().any(|scope| scope == wanted),
            _ => false,
        })
    }
}

/// Returns true if a token's header is that of an access token, and has no extension (`crit`), because none is understood.
pub(super) fn has_accepted_header(token: &str) -> bool {
    let header = token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let Some(header) = header.and_then(|header| serde_json::from_slice::<Map<String, Value>>(&header).ok()) else {
        return false;
    };
    let is_kind = match header.get("typ") {
        None => true,
        Some(Value::String(kind)) => {
            ["jwt", "at+jwt", "application/at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))
        }
        Some(_) => false,
    };
    is_kind && !header.contains_key("crit")
}

/// Returns the length of an RSA modulus in base64url, in bits. 0 if the text is not base64url.
pub(super) fn rsa_bits(modulus: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(modulus.trim_end_matches('=')).unwrap_or_default();
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    match significant.clone().next() {
        Some(first) => significant.count() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0),
        None => 0,
    }
}
