//! The state that all routes share: database, accounts, public keys and live subscriptions.

use std::sync::{Arc, PoisonError, RwLock};

use shared::client_address::TrustedProxies;
use shared::credentials;
use shared::id::{KeyId, UserId};
use shared::issuer::Issuer;
use shared::token::{Claims, TokenError, Verifier};
use sqlx::postgres::PgPool;

use super::change_waits::ChangeWaits;
use super::live::LiveSubscriptions;
use super::searches::Searches;
use crate::access::keys::AccessKeys;
use crate::access::limits::AccessLimits;
use crate::access::projects::AccessProjects;
use crate::accounts::Accounts;
use crate::accounts::audit::Audit;

/// The state that all routes share.
#[derive(Debug)]
pub struct ApiState {
    /// The pool of database connections.
    pub pool: PgPool,
    /// Accounts, sessions and signing keys.
    pub accounts: Accounts,
    /// The audit log, for acts that are no changes of accounts.
    pub audit: Arc<Audit>,
    /// The public keys for verifying access tokens.
    pub keys: TokenKeys,
    /// The proxies whose `X-Forwarded-For` header is trusted (`RECORDER_TRUSTED_PROXIES`).
    pub trusted: TrustedProxies,
    /// The API keys; none without `NATS_URL`, because every change of a key is an event.
    pub access: Option<AccessKeys>,
    /// The limits; none without `NATS_URL`, because every change of limits is an event.
    pub limits: Option<AccessLimits>,
    /// The projects; none without `NATS_URL`, because every change of a project is an event.
    pub projects: Option<AccessProjects>,
    /// The open live streams of the process.
    pub live: Arc<LiveSubscriptions>,
    /// The searches that run.
    pub searches: Searches,
    /// The requests that wait for a change of a conversation.
    pub changes: Arc<ChangeWaits>,
}

/// The public keys for verifying access tokens: the deployment's own keys, as a verifier and as the published text, and
/// the keys of an external identity provider.
#[derive(Debug)]
pub struct TokenKeys {
    ours: RwLock<(Arc<Verifier>, Arc<str>)>,
    issuer: Option<Arc<Issuer>>,
}

impl TokenKeys {
    /// Creates the keys. `published` is the JSON Web Key Set of `verifier`; `issuer` is the external identity provider,
    /// if configured.
    pub fn new(verifier: Verifier, published: &str, issuer: Option<Arc<Issuer>>) -> Self {
        Self { ours: RwLock::new((Arc::new(verifier), published.into())), issuer }
    }

    /// Replaces the deployment's own keys. The keys of the identity provider stay.
    pub fn replace(&self, verifier: Verifier, published: &str) {
        *self.ours.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(verifier), published.into());
    }

    pub(super) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let ours = Arc::clone(&self.ours.read().unwrap_or_else(PoisonError::into_inner).0);
        credentials::verify(token, &ours, self.issuer.as_deref())
    }

    pub(super) fn verify_api_key(&self, text: &str) -> Result<(KeyId, UserId), TokenError> {
        let ours = Arc::clone(&self.ours.read().unwrap_or_else(PoisonError::into_inner).0);
        ours.verify_api_key(text)
    }

    pub(super) fn published(&self) -> Arc<str> {
        Arc::clone(&self.ours.read().unwrap_or_else(PoisonError::into_inner).1)
    }
}
