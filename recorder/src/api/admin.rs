//! `/api/admin`: failures, accounts and invites, for admins only.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::event::{AuditAction, AuditTargetKind};
use shared::id::UserId;
use time::Duration;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caller::{AdminCaller, ClientAddress};
use super::error::ApiError;
use super::input::{JsonBody, Paging, PathId, PathUserId, QueryParams, limit, text};
use super::state::ApiState;
use super::views::chat::Chat;
use super::views::invite::Invite;
use super::views::list::List;
use super::views::user::User;
use crate::accounts::InviteCode;
use crate::cursor::TimeCursor;
use crate::reads::chats;
use crate::store::audit_outbox::{self, Actor};
use crate::store::{invite_codes, users};

/// Which users.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UserParams {
    /// How many: 1 to 100, 50 unless given.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// A part of the name.
    q: Option<String>,
}

/// Which failed chats.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FailureParams {
    /// The maximum number of chats: 1 to 100, 50 unless given.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// True to list the chats of deleted conversations too, which is logged.
    #[serde(default)]
    deleted: bool,
}

/// What changes about a user.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct UserChange {
    /// Whether the user is disabled from now on.
    disabled: bool,
}

/// An invite to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NewInvite {
    /// How many accounts may be made with it: 1 to 10000.
    #[schema(minimum = 1, maximum = 10000)]
    max_uses: i32,
    /// How long it is good: up to a year.
    #[schema(minimum = 1, maximum = 8784)]
    expires_in_hours: i64,
    /// What it is for, up to 200 characters.
    #[schema(max_length = 200)]
    note: Option<String>,
    /// Whether the accounts made with it are admins'.
    admin: bool,
}

/// An invite and its code, which is shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InviteWithCode {
    #[serde(flatten)]
    invite: Invite,
    /// The code.
    code: String,
}

impl Default for NewInvite {
    fn default() -> Self {
        Self { max_uses: 1, expires_in_hours: 168, note: None, admin: false }
    }
}

/// The latest chats of all users that failed.
#[utoipa::path(get, path = "/api/admin/failures", tag = "admin", params(FailureParams),
    responses((status = 200, body = List<Chat>)))]
pub(super) async fn failures(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    QueryParams(params): QueryParams<FailureParams>,
) -> Result<Json<List<Chat>>, ApiError> {
    let before = params.cursor.as_deref().map_or(Ok(TimeCursor::newest()), TimeCursor::decode)?;
    let deleted = caller.deleted_in("the failed chats of all users", params.deleted)?;
    caller.note_read(&api, None, None, deleted).await?;
    let page = chats::failures(&api.pool, before, deleted, limit(params.limit)?).await?;
    let next_cursor = page.next.map(|cursor| cursor.encode());
    Ok(Json(List { data: page.rows.into_iter().map(Chat::from).collect(), next_cursor }))
}

/// Accounts, by name.
#[utoipa::path(get, path = "/api/admin/users", tag = "admin", params(UserParams),
    responses((status = 200, body = List<User>)))]
pub(super) async fn users(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    QueryParams(params): QueryParams<UserParams>,
) -> Result<Json<List<User>>, ApiError> {
    let limit = limit(params.limit)?;
    // The cursor is a login name. Any text is accepted: the list continues with the names after the text.
    let after = params.cursor.as_deref().map(|cursor| text("cursor", cursor, 255)).transpose()?.unwrap_or("");
    let part = params.q.as_deref().filter(|q| !q.is_empty()).map(|q| text("q", q, 64)).transpose()?.unwrap_or("");
    let mut rows = users::page(&api.pool, after, part, limit + 1).await?;
    let size = usize::try_from(limit).unwrap_or(0);
    let has_more = rows.len() > size;
    rows.truncate(size);
    let next_cursor = rows.last().filter(|_| has_more).map(|user| user.name.clone());
    Ok(Json(List { data: rows.into_iter().map(User::from).collect(), next_cursor }))
}

/// Disables a user, or lets the user in again. Users of an external identity provider have no account, and are disabled by their id.
#[utoipa::path(patch, path = "/api/admin/users/{id}", tag = "admin", request_body = UserChange,
    params(("id" = String, Path, description = "The user")), responses((status = 200, body = User)))]
pub(super) async fn change_user(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    ClientAddress(address): ClientAddress,
    PathUserId(id): PathUserId,
    JsonBody(change): JsonBody<UserChange>,
) -> Result<Json<User>, ApiError> {
    if change.disabled && caller.id.as_str() == id {
        return Err(ApiError::invalid("disabled", "disabled: you cannot disable your own account"));
    }
    let user: UserId = id.parse().map_err(|_| ApiError::not_found())?;
    if !api.accounts.set_disabled(&user, change.disabled, Actor::user(&caller.id, &address)).await? {
        return Err(ApiError::not_found());
    }
    tracing::info!(%user, by = %caller.id, disabled = change.disabled, "an admin has disabled or enabled an account");
    match users::by_id(&api.pool, &id).await? {
        Some(account) => Ok(Json(account.into())),
        None => {
            Ok(Json(User { disabled_at: users::external_disabled_at(&api.pool, &user).await?, ..User::unknown(id) }))
        }
    }
}

/// Invites, newest first.
#[utoipa::path(get, path = "/api/admin/invites", tag = "admin", params(Paging),
    responses((status = 200, body = List<Invite>)))]
pub(super) async fn invites(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    QueryParams(paging): QueryParams<Paging>,
) -> Result<Json<List<Invite>>, ApiError> {
    let limit = limit(paging.limit)?;
    let before = paging.cursor.as_deref().map_or(Ok(TimeCursor::newest()), TimeCursor::decode)?;
    let mut rows = invite_codes::page(&api.pool, before, limit + 1).await?;
    let size = usize::try_from(limit).unwrap_or(0);
    let has_more = rows.len() > size;
    rows.truncate(size);
    let next = rows.last().filter(|_| has_more).map(|row| TimeCursor { at: row.created_at, id: row.invite_id });
    let next_cursor = next.map(|cursor| cursor.encode());
    Ok(Json(List { data: rows.into_iter().map(Invite::from).collect(), next_cursor }))
}

/// Makes an invite.
#[utoipa::path(post, path = "/api/admin/invites", tag = "admin", request_body = NewInvite,
    responses((status = 201, body = InviteWithCode)))]
pub(super) async fn create_invite(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    ClientAddress(address): ClientAddress,
    JsonBody(new): JsonBody<NewInvite>,
) -> Result<impl IntoResponse, ApiError> {
    if !(1..=10_000).contains(&new.max_uses) {
        return Err(ApiError::invalid("maxUses", "maxUses: expected a number from 1 to 10000"));
    }
    if !(1..=8784).contains(&new.expires_in_hours) {
        return Err(ApiError::invalid("expiresInHours", "expiresInHours: expected a number from 1 to 8784"));
    }
    let note = new.note.as_deref().filter(|note| !note.is_empty());
    let note = note.map(|note| text("note", note, 200)).transpose()?.map(str::to_owned);
    let (code, now) = (InviteCode::new(), shared::event::now());
    let invite = invite_codes::Invite {
        invite_id: Uuid::now_v7(),
        note,
        role: new.admin.then_some(shared::token::Role::Admin),
        created_by: caller.user.map(|user| user.user_id.as_str().to_owned()),
        created_at: now,
        expires_at: now + Duration::hours(new.expires_in_hours),
        max_uses: new.max_uses,
        uses: 0,
        revoked_at: None,
    };
    let mut tx = api.pool.begin().await?;
    invite_codes::create(&mut tx, &invite, &code.hash()).await?;
    let act = Actor::user(&caller.id, &address).act(AuditAction::InviteCreate);
    audit_outbox::note(&mut tx, &act.on(AuditTargetKind::Invite, &invite.invite_id), 1).await?;
    tx.commit().await?;
    api.audit.wake();
    tracing::info!(invite = %invite.invite_id, by = %caller.id, "an admin has created an invite");
    Ok((StatusCode::CREATED, Json(InviteWithCode { invite: invite.into(), code: code.as_str().to_owned() })))
}

/// Makes an invite good for nothing.
#[utoipa::path(delete, path = "/api/admin/invites/{id}", tag = "admin",
    params(("id" = Uuid, Path, description = "The invite")), responses((status = 204)))]
pub(super) async fn revoke_invite(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    ClientAddress(address): ClientAddress,
    PathId(id): PathId,
) -> Result<StatusCode, ApiError> {
    let mut tx = api.pool.begin().await?;
    if !invite_codes::revoke(&mut tx, id, shared::event::now()).await? {
        return Err(ApiError::not_found());
    }
    let act = Actor::user(&caller.id, &address).act(AuditAction::InviteRevoke);
    audit_outbox::note(&mut tx, &act.on(AuditTargetKind::Invite, &id), 1).await?;
    tx.commit().await?;
    api.audit.wake();
    tracing::info!(invite = %id, by = %caller.id, "an admin has revoked an invite");
    Ok(StatusCode::NO_CONTENT)
}
