//! What the routes share: the database, the accounts, the keys of the moment, and those who watch.

use std::sync::{Arc, PoisonError, RwLock};

use shared::client_address::TrustedProxies;
use shared::credentials;
use shared::issuer::Issuer;
use shared::token::{Claims, TokenError, Verifier};
use sqlx::postgres::PgPool;

use super::live::LiveSubscriptions;
use crate::accounts::Accounts;

/// What the routes need.
#[derive(Debug)]
pub struct ApiState {
    /// The database, for reading.
    pub pool: PgPool,
    /// Who may do what.
    pub accounts: Accounts,
    /// Who asks.
    pub keys: TokenKeys,
    /// Whose word is taken for where a request came from.
    pub trusted: TrustedProxies,
    /// Those who watch.
    pub live: Arc<LiveSubscriptions>,
}

/// The public keys of the moment, as a verifier and as they are published; and those of an identity provider outside.
#[derive(Debug)]
pub struct TokenKeys {
    ours: RwLock<(Arc<Verifier>, Arc<str>)>,
    issuer: Option<Arc<Issuer>>,
}

impl TokenKeys {
    /// Keys to begin with.
    pub fn new(verifier: Verifier, published: &str, issuer: Option<Arc<Issuer>>) -> Self {
        Self { ours: RwLock::new((Arc::new(verifier), published.into())), issuer }
    }

    /// Others, from now on.
    pub fn replace(&self, verifier: Verifier, published: &str) {
        *self.ours.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(verifier), published.into());
    }

    pub(super) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let ours = Arc::clone(&self.ours.read().unwrap_or_else(PoisonError::into_inner).0);
        credentials::verify(token, &ours, self.issuer.as_deref())
    }

    pub(super) fn published(&self) -> Arc<str> {
        Arc::clone(&self.ours.read().unwrap_or_else(PoisonError::into_inner).1)
    }
}
