//! Who asks, proven; and where they ask from.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::Method;
use http::header::ORIGIN;
use http::request::Parts;
use shared::credentials::{bearer_token, is_own_origin};
use shared::id::UserId;
use shared::token::Role;
use uuid::Uuid;

use super::cookies;
use super::error::ApiError;
use super::state::ApiState;
use crate::accounts::throttle::address_key;
use crate::store::sessions;
use crate::store::users::{self, User};

/// A proven caller.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Who it is.
    pub(super) id: UserId,
    /// Their account, where they have one here: users of an external identity provider have none.
    pub(super) user: Option<User>,
    /// What they may do beyond their own record.
    pub(super) role: Option<Role>,
    /// The session that the token belongs to.
    pub(super) session: Option<Uuid>,
    /// Until when the token is good, in Unix seconds.
    pub(super) expires: i64,
}

/// A caller who may read everyone's record. To anyone else, what they ask for does not exist.
#[derive(Clone, Debug)]
pub(super) struct AdminCaller(pub(super) Caller);

/// Where a request came from, as guesses are counted.
#[derive(Clone, Debug)]
pub(super) struct ClientAddress(pub(super) String);

impl Caller {
    /// Whether this user's record may be read.
    pub(super) fn may_read(&self, user: &str) -> bool {
        self.id.as_str() == user || self.role == Some(Role::Admin)
    }
}

impl FromRequestParts<Arc<ApiState>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<ApiState>) -> Result<Self, ApiError> {
        let token = match bearer_token(&parts.headers) {
            Some(token) => token,
            None => {
                same_origin(parts)?;
                cookies::access_token(&parts.headers).ok_or_else(ApiError::unauthenticated)?
            }
        };
        let claims = api.keys.verify(token)?;
        // Signatures say who it was when the token was made; here, where the tables are, it is asked what they are now.
        let user = users::by_id(&api.pool, claims.sub.as_str()).await?;
        if user.as_ref().is_some_and(|user| user.disabled_at.is_some()) {
            return Err(ApiError::session_over());
        }
        if let Some(session) = claims.sid
            && sessions::is_ended(&api.pool, session).await?
        {
            return Err(ApiError::session_over());
        }
        let role = user.as_ref().map_or(claims.role, |user| user.role);
        Ok(Self { id: claims.sub, user, role, session: claims.sid, expires: claims.exp })
    }
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
        // Routes that ask for the address give cookies or take them.
        same_origin(parts)?;
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let peer = peer.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
        let forwarded = parts.headers.get_all("x-forwarded-for");
        let forwarded = forwarded.iter().filter_map(|value| value.to_str().ok());
        Ok(Self(address_key(api.trusted.client_address(peer, forwarded))))
    }
}

/// Cookies come along with whatever any page makes a browser send. SameSite keeps them from most of it; this from the rest.
/// The gateway checks origins itself, knows which others are let in, and does not pass them on.
fn same_origin(parts: &Parts) -> Result<(), ApiError> {
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    match parts.headers.get(ORIGIN) {
        Some(origin) if !is_own_origin(origin, &parts.headers) => Err(ApiError::cross_origin()),
        _ => Ok(()),
    }
}
