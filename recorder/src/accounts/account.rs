//! Sessions of accounts: login, refresh, logout, and changes of passwords. All state is in the database, so any number
//! of `recorder serve` processes can run side by side.

use std::sync::{Arc, PoisonError, RwLock};

use shared::access::LONGEST_SESSION_TOKEN;
use shared::event::{AuditAction, AuditOutcome, AuditTargetKind};
use shared::id::{KeyId, UserId};
use shared::token::{Claims, ISSUER, TokenSigner};
use sqlx::postgres::{PgConnection, PgPool};
use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;
use uuid::Uuid;

use super::audit::Audit;
use super::error::AccountError;
use super::password::PasswordHasher;
use super::refresh::{self, RefreshToken, RefreshTokenRotation};
use super::throttle;
use crate::store::access_changes;
use crate::store::audit_outbox::{self, Act, Actor};
use crate::store::guesses;
use crate::store::sessions::{self, EndedBy};
use crate::store::users::{self, User};

/// Accounts and sessions in the database, with the signing keys and the lifetimes of tokens and sessions.
pub struct Accounts {
    pub(super) pool: PgPool,
    pub(super) password_hasher: PasswordHasher,
    signing: RwLock<Arc<SigningKeys>>,
    token_ttl: Duration,
    session_ttl: Duration,
    changed: Arc<Notify>,
    pub(super) audit: Arc<Audit>,
}

/// The secrets from the file of the private key.
pub struct SigningKeys {
    /// The signer of access tokens.
    pub signer: TokenSigner,
    /// The derivation of refresh tokens from used refresh tokens.
    pub rotation: RefreshTokenRotation,
}

/// A created or refreshed session, with the tokens for the client.
#[derive(Debug)]
pub struct Session {
    /// The account of the session.
    pub user: User,
    /// The expiry of the access token, in whole seconds.
    pub expires_at: OffsetDateTime,
    /// The access token, a signed JSON Web Token.
    pub access_token: String,
    /// The refresh token, good for one use before the session expires.
    pub refresh_token: RefreshToken,
    /// The expiry of the session. Set at login; refreshing does not move the expiry.
    pub session_expires_at: OffsetDateTime,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").field("token_ttl", &self.token_ttl).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeys").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Creates the accounts over a database. `token_ttl` is the lifetime of access tokens (`RECORDER_TOKEN_TTL`),
    /// `session_ttl` the lifetime of sessions (`RECORDER_SESSION_TTL`).
    pub fn new(pool: PgPool, signing: SigningKeys, token_ttl: Duration, session_ttl: Duration) -> Self {
        let signing = RwLock::new(Arc::new(signing));
        Self {
            audit: Arc::new(Audit::new(pool.clone())),
            pool,
            password_hasher: PasswordHasher::default(),
            signing,
            token_ttl,
            session_ttl,
            changed: <_>::default(),
        }
    }

    /// Returns the notification after each end of a session and each disabling or enabling of an account.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Returns the audit log, for acts that are no changes of accounts.
    pub fn audit(&self) -> Arc<Audit> {
        Arc::clone(&self.audit)
    }

    /// Replaces the signing keys for all tokens issued from now on. Called after the file of the private key has
    /// changed.
    pub fn replace_signing_keys(&self, signing: SigningKeys) {
        *self.signing.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(signing);
    }

    fn signing(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.signing.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs the text of an API key with the present signing key.
    pub fn sign_api_key(&self, key_id: KeyId, owner: &UserId) -> Result<String, AccountError> {
        Ok(self.signing().signer.sign_api_key(key_id, owner)?)
    }

    /// Creates a session after verifying name and password.
    ///
    /// The verification takes equally long for names without an account, so the duration does not reveal which names
    /// exist. Wrong credentials and disabled accounts fail alike with [`AccountError::WrongCredentials`]; past a limit
    /// of [`throttle`], every attempt fails with [`AccountError::Throttled`].
    pub async fn login(&self, name: &str, password: &str, address: &str) -> Result<Session, AccountError> {
        let now = shared::event::now();
        let act = Actor::anonymous(address).act(AuditAction::Login);
        self.unless_throttled(throttle::count_login_attempt(&self.pool, name, address, now).await, &act)?;
        let found = users::credentials(&self.pool, name).await?;
        let hash = found.as_ref().and_then(|(_, hash)| hash.as_deref());
        let is_right = self.password_hasher.verify(password, hash).await?;
        match found {
            Some((user, _)) if is_right && user.disabled_at.is_none() => {
                throttle::clear_login_attempts(&self.pool, name, address).await?;
                let act = Actor::user(&user.user_id, address).act(AuditAction::Login);
                self.start_session(user, address, &act).await
            }
            found => {
                // A name that no account has is not noted: people type passwords into the wrong field.
                let act = match found {
                    Some((user, _)) => act.on(AuditTargetKind::User, &user.user_id),
                    None => act,
                };
                self.audit.note(&act.with(AuditOutcome::Failure)).await?;
                Err(AccountError::WrongCredentials)
            }
        }
    }

    /// Continues a session: exchanges a refresh token for a new access token and the next refresh token.
    ///
    /// The second use of a refresh token ends the session, because two parties hold the token and one of the two is a
    /// thief. The exception is a second use within [`refresh::REUSE_GRACE`], while the next refresh token is still
    /// unused: most likely the same client has repeated the request, and the response contains the same refresh token
    /// again.
    pub async fn refresh(&self, token: &RefreshToken, address: &str) -> Result<Session, AccountError> {
        let now = shared::event::now();
        let hash = token.hash();
        let signing = self.signing();
        let next = signing.rotation.successor_of(token);
        let mut tx = self.pool.begin().await?;
        let Some(presented) = sessions::find_token_for_update(&mut tx, &hash).await? else {
            return Err(AccountError::SessionEnded);
        };
        if presented.is_ended || presented.expires_at <= now {
            return Err(AccountError::SessionEnded);
        }
        match presented.used_at {
            None => {
                sessions::mark_used(&mut tx, &hash, now).await?;
                sessions::add_token(&mut tx, &next.hash(), presented.session_id, now).await?;
            }
            Some(used_at) => {
                let is_repeat =
                    now - used_at <= refresh::REUSE_GRACE && sessions::is_unused(&mut tx, &next.hash()).await?;
                if !is_repeat {
                    sessions::end(&mut tx, presented.session_id, EndedBy::Reuse, now).await?;
                    let act = Actor::anonymous(address).act(AuditAction::SessionEnd);
                    audit_outbox::note(&mut tx, &act.on(AuditTargetKind::User, &presented.user_id), 1).await?;
                    tx.commit().await?;
                    self.audit.wake();
                    self.changed.notify_one();
                    tracing::warn!(session = %presented.session_id, user = %presented.user_id, "a used refresh token was presented again: the session has been ended");
                    return Err(AccountError::SessionEnded);
                }
            }
        }
        tx.commit().await?;
        let user = users::by_id(&self.pool, presented.user_id.as_str()).await?;
        let user = user.filter(|user| user.disabled_at.is_none()).ok_or(AccountError::SessionEnded)?;
        self.issue_tokens(&signing, user, presented.session_id, next, presented.expires_at)
    }

    /// Ends the sessions of refresh tokens, and the session with the id `session`. Unknown tokens and ended sessions are no
    /// error.
    pub async fn logout(
        &self,
        tokens: &[RefreshToken],
        session: Option<(UserId, Uuid)>,
        address: &str,
    ) -> Result<(), AccountError> {
        let now = shared::event::now();
        let mut tx = self.pool.begin().await?;
        let mut sessions = Vec::from_iter(session);
        for token in tokens {
            let found = sessions::find_token_for_update(&mut tx, &token.hash()).await?;
            sessions.extend(found.map(|found| (found.user_id, found.session_id)));
        }
        for (user, session) in sessions {
            if sessions::end(&mut tx, session, EndedBy::Logout, now).await? {
                let act = Actor::user(&user, address).act(AuditAction::Logout);
                audit_outbox::note(&mut tx, &act, 1).await?;
            }
        }
        tx.commit().await?;
        self.audit.wake();
        self.changed.notify_one();
        Ok(())
    }

    /// Changes a user's password after verifying the current password, and ends every session of the user except
    /// `session`. Past a limit of [`throttle`], fails with [`AccountError::Throttled`].
    pub async fn change_password(
        &self,
        user: &User,
        session: Option<Uuid>,
        (current, new): (&str, &str),
        address: &str,
    ) -> Result<(), AccountError> {
        let now = shared::event::now();
        let act = Actor::user(&user.user_id, address).act(AuditAction::PasswordChange);
        self.unless_throttled(throttle::count_login_attempt(&self.pool, &user.name, address, now).await, &act)?;
        let hash = users::credentials(&self.pool, &user.name).await?.and_then(|(_, hash)| hash);
        let hash = hash.ok_or(AccountError::NoAccount)?;
        if !self.password_hasher.verify(current, Some(&hash)).await? {
            self.audit.note(&act.with(AuditOutcome::Failure)).await?;
            return Err(AccountError::WrongCredentials);
        }
        throttle::clear_login_attempts(&self.pool, &user.name, address).await?;
        let hash = self.password_hasher.hash(new).await?;
        let mut tx = self.pool.begin().await?;
        if !set_password(&mut tx, &user.user_id, session, &hash, &act).await? {
            return Err(AccountError::NoAccount);
        }
        tx.commit().await?;
        self.changed.notify_one();
        self.audit.wake();
        Ok(())
    }

    /// Disables or enables an account: see the function [`set_disabled`].
    pub async fn set_disabled(&self, user: &UserId, disabled: bool, by: Actor<'_>) -> Result<bool, sqlx::Error> {
        let found = set_disabled(&self.pool, user, disabled, by).await?;
        self.changed.notify_one();
        self.audit.wake();
        Ok(found)
    }

    /// Counts a throttled act for the audit log. Other errors, and success, are passed on.
    pub(super) fn unless_throttled<T>(&self, result: Result<T, AccountError>, act: &Act) -> Result<T, AccountError> {
        if let Err(AccountError::Throttled(_)) = &result {
            self.audit.count_throttled(act.clone().with(AuditOutcome::Throttled));
        }
        result
    }

    /// Begins a session, and notes `act`.
    pub(super) async fn start_session(&self, user: User, address: &str, act: &Act) -> Result<Session, AccountError> {
        let now = shared::event::now();
        let (session_id, expires_at) = (Uuid::now_v7(), now + self.session_ttl);
        let token = RefreshToken::new();
        let mut tx = self.pool.begin().await?;
        sessions::create(&mut tx, session_id, &user.user_id, address, now, expires_at).await?;
        sessions::add_token(&mut tx, &token.hash(), session_id, now).await?;
        audit_outbox::note(&mut tx, act, 1).await?;
        tx.commit().await?;
        self.audit.wake();
        self.issue_tokens(&self.signing(), user, session_id, token, expires_at)
    }

    fn issue_tokens(
        &self,
        signing: &SigningKeys,
        user: User,
        session_id: Uuid,
        refresh_token: RefreshToken,
        session_expires_at: OffsetDateTime,
    ) -> Result<Session, AccountError> {
        let now = OffsetDateTime::now_utc();
        let expires_at = (now + self.token_ttl).replace_nanosecond(0).unwrap_or(now);
        let access_token = signing.signer.sign(&Claims {
            iss: ISSUER.to_owned(),
            sub: user.user_id.clone(),
            iat: now.unix_timestamp(),
            exp: expires_at.unix_timestamp(),
            role: user.role,
            sid: Some(session_id),
        })?;
        Ok(Session { user, expires_at, access_token, refresh_token, session_expires_at })
    }
}

/// Replaces a user's password by one with this hash, ends every session of the user except `except`, and notes `act` and the end of
/// sessions. Returns false if no account has the id.
pub async fn set_password(
    connection: &mut PgConnection,
    user: &UserId,
    except: Option<Uuid>,
    hash: &str,
    act: &Act,
) -> Result<bool, sqlx::Error> {
    if !users::set_password(connection, user, hash).await? {
        return Ok(false);
    }
    let ended = sessions::end_others(connection, user, except, EndedBy::Password, shared::event::now()).await?;
    let act = act.clone().on(AuditTargetKind::User, user);
    audit_outbox::note(connection, &act, 1).await?;
    if ended > 0 {
        audit_outbox::note(connection, &Act { action: AuditAction::SessionEnd, ..act }, ended).await?;
    }
    Ok(true)
}

/// Disables an account and ends every session of the account, or enables the account again. Users of an external identity provider
/// have no account, and are disabled by their id. Gateways are told by every `recorder serve`. Returns false if no user can have
/// the id.
pub async fn set_disabled(pool: &PgPool, user: &UserId, disabled: bool, by: Actor<'_>) -> Result<bool, sqlx::Error> {
    let now = shared::event::now();
    let mut tx = pool.begin().await?;
    let mut found = users::set_disabled(&mut tx, user, disabled.then_some(now), now).await?;
    if !found && user.is_external() {
        users::set_external_disabled(&mut tx, user, disabled.then_some(now), now).await?;
        found = true;
    }
    let action = if disabled { AuditAction::UserDisable } else { AuditAction::UserEnable };
    let act = by.act(action).on(AuditTargetKind::User, user);
    if found {
        audit_outbox::note(&mut tx, &act, 1).await?;
    }
    if disabled {
        let ended = sessions::end_others(&mut tx, user, None, EndedBy::Disabled, now).await?;
        if ended > 0 {
            audit_outbox::note(&mut tx, &Act { action: AuditAction::SessionEnd, ..act }, ended).await?;
        }
    }
    tx.commit().await?;
    Ok(found)
}

/// Deletes sessions that expired more than a day ago, counters of guesses older than two windows, and notes of ended sessions whose
/// tokens have expired. Call regularly; any number of processes may do so.
pub async fn delete_expired(pool: &PgPool) -> Result<(), sqlx::Error> {
    let now = shared::event::now();
    // Each statement deletes a limited number of rows, so that no other transaction waits long. Later calls delete the
    // remaining rows.
    sessions::delete_expired(pool, now - Duration::days(1)).await?;
    guesses::delete_old(pool, now - throttle::WINDOW * 2).await?;
    access_changes::delete_old_sessions(pool, now - LONGEST_SESSION_TOKEN).await?;
    Ok(())
}
