//! Authentication of callers and the address of clients, as extractors of requests.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::Method;
use http::header::ORIGIN;
use http::request::Parts;
use shared::api_key;
use shared::credentials::{bearer_token, is_own_origin, verify_cookies};
use shared::event::{AuditAction, AuditTargetKind};
use shared::id::{ProjectId, UserId};
use shared::token::Role;
use uuid::Uuid;

use super::error::ApiError;
use super::state::ApiState;
use crate::accounts::throttle::address_key;
use crate::reads::Deleted;
use crate::store::api_keys;
use crate::store::audit_outbox::{Act, Actor};
use crate::store::projects;
use crate::store::sessions;
use crate::store::users::{self, User};

/// An authenticated caller of the API.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The user named in the token.
    pub(super) id: UserId,
    /// The caller's account, or `None` for a user of an external identity provider.
    pub(super) user: Option<User>,
    /// The current role of the account; without an account, the role in the token.
    pub(super) role: Option<Role>,
    /// The session of the token, if any.
    pub(super) session: Option<Uuid>,
    /// The expiry of the token, in Unix seconds.
    pub(super) expires: i64,
    /// The address of the client, in the form of [`ClientAddress`].
    pub(super) address: String,
}

/// A caller with the role of an admin. Any other caller gets 404, as if the route did not exist.
#[derive(Clone, Debug)]
pub(super) struct AdminCaller(pub(super) Caller);

/// The user of a session, or the owner of an API key that is in force: for what the gateway asks on behalf of callers of models. The
/// gateway itself has checked the key; the tables are checked because clients reach every route of the API.
#[derive(Clone, Debug)]
pub(super) struct ModelCaller(pub(super) UserId);

/// The address of the client, in the form that the limits on guessing count. The extractor also refuses requests of
/// pages from other origins.
#[derive(Clone, Debug)]
pub(super) struct ClientAddress(pub(super) String);

impl Caller {
    /// Returns true if the caller may read the record of the user.
    pub(super) fn may_read(&self, user: &str) -> bool {
        self.id.as_str() == user || self.role == Some(Role::Admin)
    }

    /// Notes that an admin reads chats of somebody else, or of deleted conversations, before the answer. `owner` is none for chats of all
    /// users. Reads of the caller's own chats are not noted.
    pub(super) async fn note_read(
        &self,
        api: &ApiState,
        owner: Option<&str>,
        target: Option<(AuditTargetKind, String)>,
        deleted: Deleted,
    ) -> Result<(), ApiError> {
        let action = match deleted {
            Deleted::Shown => AuditAction::DeletedRead,
            Deleted::Hidden if owner == Some(self.id.as_str()) => return Ok(()),
            Deleted::Hidden => AuditAction::ChatsRead,
        };
        let act = Actor::user(&self.id, &self.address).act(action);
        Ok(api.audit.note(&Act { target, ..act }).await?)
    }

    /// Returns the treatment of deleted conversations in a read of `what`: shown to admins who ask for them, which is logged,
    /// and hidden from everybody else. Fails with 404 if another caller asks.
    pub(super) fn deleted_in(&self, what: &str, is_asked: bool) -> Result<Deleted, ApiError> {
        match (is_asked, self.role) {
            (false, _) => Ok(Deleted::Hidden),
            (true, Some(Role::Admin)) => {
                tracing::info!(admin = %self.id, what, "an admin reads deleted conversations");
                Ok(Deleted::Shown)
            }
            (true, None) => Err(ApiError::not_found()),
        }
    }
}

impl FromRequestParts<Arc<ApiState>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<ApiState>) -> Result<Self, ApiError> {
        let claims = match bearer_token(&parts.headers) {
            Some(token) => api.keys.verify(token)?,
            None => {
                same_origin(parts)?;
                let verified = verify_cookies(&parts.headers, |token| api.keys.verify(token));
                verified.ok_or_else(ApiError::unauthenticated)??
            }
        };
        // The token says who the caller was at the time of signing. The tables say whether the account has been
        // disabled, the session ended or the role changed since.
        let user = users::by_id(&api.pool, claims.sub.as_str()).await?;
        let is_disabled = match &user {
            Some(user) => user.disabled_at.is_some(),
            None => users::is_disabled(&api.pool, &claims.sub).await?,
        };
        if is_disabled {
            return Err(ApiError::session_over());
        }
        if let Some(session) = claims.sid
            && sessions::is_ended(&api.pool, session).await?
        {
            return Err(ApiError::session_over());
        }
        let role = user.as_ref().map_or(claims.role, |user| user.role);
        let address = client_address(parts, api);
        Ok(Self { id: claims.sub, user, role, session: claims.sid, expires: claims.exp, address })
    }
}

impl FromRequestParts<Arc<ApiState>> for ModelCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<ApiState>) -> Result<Self, ApiError> {
        let Some(text) = bearer_token(&parts.headers).filter(|token| api_key::is_api_key(token)) else {
            return Ok(Self(Caller::from_request_parts(parts, api).await?.id));
        };
        let (id, owner) = api.keys.verify_api_key(text)?;
        let key = api_keys::by_ids(&mut *api.pool.acquire().await?, &[id.0]).await?.remove(&id);
        let now = shared::event::now();
        let project = key.as_ref().and_then(|key| key.project_id);
        let is_in_force = key.filter(|key| key.user_id == owner && key.revoked.is_none()).is_some_and(|key| {
            key.settings.is_some_and(|now_set| now_set.settings.expires_at.is_none_or(|expiry| expiry > now))
        });
        if !is_in_force
            || users::is_disabled(&api.pool, &owner).await?
            || !is_accepted_by_project(api, project, &owner).await?
        {
            return Err(ApiError::unauthenticated());
        }
        Ok(Self(owner))
    }
}

/// Returns true if the project accepts keys of the user. A project that is not known refuses nobody, as in the gateways.
async fn is_accepted_by_project(
    api: &ApiState,
    project: Option<ProjectId>,
    owner: &UserId,
) -> Result<bool, sqlx::Error> {
    let Some(id) = project else { return Ok(true) };
    let found = projects::by_ids(&mut *api.pool.acquire().await?, &[id.0]).await?.remove(&id);
    Ok(found.is_none_or(|project| project.settings.accepts(owner)))
}

impl FromRequestParts<Arc<ApiState>> for AdminCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<ApiState>) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, api).await?;
        match caller.role {
            Some(Role::Admin) => Ok(Self(caller)),
            None => Err(ApiError::not_found()),
        }
    }
}

impl FromRequestParts<Arc<ApiState>> for ClientAddress {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<ApiState>) -> Result<Self, ApiError> {
        // Routes that extract the address set cookies or accept cookies, and no page of another origin may call such a
        // route.
        same_origin(parts)?;
        Ok(Self(client_address(parts, api)))
    }
}

/// Returns the address of the client behind trusted proxies, in the form of [`address_key`].
fn client_address(parts: &Parts, api: &ApiState) -> String {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let forwarded = parts.headers.get_all("x-forwarded-for");
    let forwarded = forwarded.iter().filter_map(|value| value.to_str().ok());
    address_key(api.trusted.client_address(peer, forwarded))
}

/// Refuses requests that a page of another origin may have sent with the user's cookies.
///
/// A browser adds cookies to requests of any page. The SameSite attribute prevents most such requests, and the check of
/// `Origin` prevents the rest. The gateway checks origins itself, knows the other allowed origins, and does not pass
/// `Origin` on.
fn same_origin(parts: &Parts) -> Result<(), ApiError> {
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    match parts.headers.get(ORIGIN) {
        Some(origin) if !is_own_origin(origin, &parts.headers) => Err(ApiError::cross_origin()),
        _ => Ok(()),
    }
}
