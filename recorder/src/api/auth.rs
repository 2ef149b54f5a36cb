//! `/api/auth`: registration, login, refresh, logout, and change of password.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::caller::{Caller, ClientAddress};
use super::cookies;
use super::error::ApiError;
use super::input::JsonBody;
use super::state::ApiState;
use super::views;
use crate::accounts::refresh::RefreshToken;
use crate::accounts::{AccountError, InviteCode, Registration, Session, name_error, password_error};

/// Where a session's tokens go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    /// Into cookies that no script can read.
    #[default]
    Cookie,
    /// Into the body.
    Token,
}

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewAccount {
    /// The invite code.
    invite_code: String,
    /// The login name: 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// The password: 10 to 1024 bytes.
    #[schema(min_length = 10, max_length = 1024, format = Password)]
    password: String,
    /// Where the tokens go.
    #[serde(default)]
    #[schema(inline)]
    delivery: Delivery,
}

/// A name and its password.
#[derive(Deserialize, ToSchema)]
pub(super) struct Credentials {
    /// The login name.
    name: String,
    /// The password.
    #[schema(format = Password)]
    password: String,
    /// Where the tokens go.
    #[serde(default)]
    #[schema(inline)]
    delivery: Delivery,
}

/// A refresh token, unless it is in the cookie.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Refresh {
    /// The refresh token.
    refresh_token: Option<String>,
}

/// A password, and the one to come.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PasswordChange {
    /// The one of today.
    #[schema(format = Password)]
    current_password: String,
    /// The new one: 10 to 1024 bytes.
    #[schema(min_length = 10, max_length = 1024, format = Password)]
    new_password: String,
}

/// A session that has begun or gone on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionBody {
    /// Whose it is.
    user: views::user::User,
    /// Until when the access token is good.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// The access token; null where it went into a cookie.
    access_token: Option<String>,
    /// The refresh token; null where it went into a cookie.
    refresh_token: Option<String>,
}

/// Makes an account with an invite code.
#[utoipa::path(post, path = "/api/auth/register", tag = "accounts", request_body = NewAccount, security(()),
    responses((status = 201, body = SessionBody)))]
pub(super) async fn register(
    State(api): State<Arc<ApiState>>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewAccount>,
) -> Result<Response, ApiError> {
    if let Some(error) = name_error(&new.name) {
        return Err(ApiError::invalid("name", format!("name: {error}")));
    }
    check_password("password", &new.password)?;
    let code = InviteCode::parse(&new.invite_code);
    let registration = Registration { code: &code, name: &new.name, password: &new.password, address: &address };
    let session = api.accounts.register(registration).await?;
    tracing::info!(user = %session.user.user_id, "an account was registered with an invite");
    Ok(deliver(StatusCode::CREATED, session, new.delivery, &headers))
}

/// Begins a session.
#[utoipa::path(post, path = "/api/auth/login", tag = "accounts", request_body = Credentials, security(()),
    responses((status = 200, body = SessionBody)))]
pub(super) async fn login(
    State(api): State<Arc<ApiState>>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    JsonBody(credentials): JsonBody<Credentials>,
) -> Result<Response, ApiError> {
    let Credentials { name, password, delivery } = credentials;
    // No account has such a name or password. PostgreSQL does not accept U+0000 in text, and hashing a long password
    // would only help an attacker.
    if name.contains('\0') || name.len() > 1024 || password.len() > 1024 {
        return Err(AccountError::WrongCredentials.into());
    }
    let session = api.accounts.login(&name, &password, &address).await?;
    Ok(deliver(StatusCode::OK, session, delivery, &headers))
}

/// Goes on with a session: a new access token and a new refresh token for the one given, which is good once.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "accounts", request_body = Refresh, security(()),
    responses((status = 200, body = SessionBody)))]
pub(super) async fn refresh(
    State(api): State<Arc<ApiState>>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Refresh>,
) -> Result<Response, ApiError> {
    if let Some(text) = body.refresh_token {
        let token = RefreshToken::decode(&text).ok_or(AccountError::SessionEnded)?;
        let session = api.accounts.refresh(&token, &address).await?;
        return Ok(deliver(StatusCode::OK, session, Delivery::Token, &headers));
    }
    let mut refreshed = Err(AccountError::SessionEnded);
    for token in cookies::refresh_tokens(&headers) {
        refreshed = api.accounts.refresh(&token, &address).await;
        if !matches!(refreshed, Err(AccountError::SessionEnded)) {
            break;
        }
    }
    Ok(deliver(StatusCode::OK, refreshed?, Delivery::Cookie, &headers))
}

/// Ends a session. There is nothing that could be wrong with that.
#[utoipa::path(post, path = "/api/auth/logout", tag = "accounts", request_body = Refresh, security(()),
    responses((status = 204)))]
pub(super) async fn logout(
    State(api): State<Arc<ApiState>>,
    ClientAddress(address): ClientAddress,
    caller: Result<Caller, ApiError>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Refresh>,
) -> Result<Response, ApiError> {
    let presented = body.refresh_token.as_deref().and_then(RefreshToken::decode);
    let in_cookies = cookies::refresh_tokens(&headers).filter(|_| presented.is_none());
    let tokens: Vec<RefreshToken> = presented.iter().cloned().chain(in_cookies).collect();
    let session = caller.ok().and_then(|caller| Some((caller.id, caller.session?)));
    api.accounts.logout(&tokens, session, &address).await?;
    Ok((StatusCode::NO_CONTENT, cookies::expired_cookies(&headers)).into_response())
}

/// Changes the caller's password, and ends their other sessions.
#[utoipa::path(post, path = "/api/auth/password", tag = "accounts", request_body = PasswordChange,
    responses((status = 204)))]
pub(super) async fn password(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    JsonBody(change): JsonBody<PasswordChange>,
) -> Result<StatusCode, ApiError> {
    check_password("newPassword", &change.new_password)?;
    let user = caller.user.ok_or(AccountError::NoAccount)?;
    let passwords = (change.current_password.as_str(), change.new_password.as_str());
    if passwords.0.len() > 1024 {
        return Err(AccountError::WrongCredentials.into());
    }
    api.accounts.change_password(&user, caller.session, passwords, &address).await?;
    tracing::info!(user = %user.user_id, "a user has changed the password");
    Ok(StatusCode::NO_CONTENT)
}

fn check_password(param: &'static str, password: &str) -> Result<(), ApiError> {
    match password_error(password) {
        Some(error) => Err(ApiError::invalid(param, format!("{param}: {error}"))),
        None => Ok(()),
    }
}

fn deliver(status: StatusCode, session: Session, delivery: Delivery, request: &HeaderMap) -> Response {
    let cookies = match delivery {
        Delivery::Cookie => cookies::session_cookies(&session, request),
        Delivery::Token => HeaderMap::new(),
    };
    let is_in_body = delivery == Delivery::Token;
    let body = SessionBody {
        user: session.user.into(),
        expires_at: session.expires_at,
        access_token: is_in_body.then_some(session.access_token),
        refresh_token: is_in_body.then(|| session.refresh_token.encode()),
    };
    (status, cookies, Json(body)).into_response()
}
