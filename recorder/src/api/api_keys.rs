//! `/api/keys`: API keys of the caller; for admins, of any user. `/api/admin/keys`: the keys of all users.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::event::{KeySettings, Operation, RecordingMode};
use shared::id::{ProjectId, UserId};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caller::{AdminCaller, Caller, ClientAddress};
use super::error::ApiError;
use super::input::{JsonBody, Paging, PathId, QueryParams, limit, time};
use super::state::ApiState;
use super::users::authorized_user;
use super::views::api_key::Key;
use super::views::list::List;
use crate::access::keys::AccessKeys;
use crate::store::api_keys::{self, UsedKey};
use crate::store::users;

/// The page of a list of keys.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyParams {
    /// The number of keys on a page: 1 to 100. The default is 50.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// The owner of the keys, for admins. The default is the caller.
    user_id: Option<String>,
}

/// A key to be issued.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewKey {
    /// The name, for people: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// The models that the key may use: names, or patterns in which `*` stands for any text. The default is all models.
    #[serde(default)]
    #[schema(max_items = 32)]
    models: Vec<String>,
    /// The kinds of calls that the key may make, such as `chat` and `embeddings`. The default is all kinds.
    #[serde(default)]
    #[schema(max_items = 32, value_type = Vec<String>)]
    operations: Vec<Operation>,
    /// The time from which the key is refused. The default is never.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// The most that the record keeps of calls with the key: full, metadata (no texts) or none (no contents at all). The default is full.
    #[serde(default)]
    #[schema(value_type = String)]
    recording: RecordingMode,
    /// The owner of the key, for admins. The default is the caller.
    user_id: Option<String>,
    /// The project to which the use of the key counts. The owner has to be a member. The default is none.
    project_id: Option<Uuid>,
}

/// A change of a key. Settings that are left out stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyChange {
    /// The new name.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// The new list of models; empty for all models.
    #[schema(max_items = 32)]
    models: Option<Vec<String>>,
    /// The new list of kinds of calls; empty for all kinds.
    #[schema(max_items = 32, value_type = Option<Vec<String>>)]
    operations: Option<Vec<Operation>>,
    /// The new time of expiry; null for never.
    #[serde(default, deserialize_with = "present")]
    #[schema(format = DateTime, value_type = Option<String>)]
    expires_at: Option<Option<String>>,
    /// The new mode: full, metadata or none.
    #[schema(value_type = Option<String>)]
    recording: Option<RecordingMode>,
}

/// A key and its text, which is shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyWithText {
    #[serde(flatten)]
    view: Key,
    /// The key, for the client's configuration: `sk-st-...`.
    key: String,
}

/// Tells a member that is null from a member that is left out.
fn present<'de, D: serde::Deserializer<'de>>(member: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(member).map(Some)
}

/// Issues a key. The answer shows the key once, after every gateway can learn of it.
#[utoipa::path(post, path = "/api/keys", tag = "keys", request_body = NewKey,
    responses((status = 201, body = KeyWithText)))]
pub(super) async fn issue(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    _: ClientAddress,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<impl IntoResponse, ApiError> {
    let keys = access(&api)?;
    let owner = new.user_id.clone().unwrap_or_else(|| caller.id.as_str().to_owned());
    let owner: UserId = authorized_user(&caller, owner)?.parse().map_err(|_| ApiError::not_found())?;
    if owner != caller.id && users::by_id(&api.pool, owner.as_str()).await?.is_none() {
        return Err(ApiError::not_found());
    }
    let expires_at = time("expiresAt", new.expires_at.as_deref())?.map(microseconds);
    let NewKey { name, models, operations, recording, project_id, .. } = new;
    let settings = KeySettings { name, models, operations, expires_at, recording };
    let project = match &project_id {
        Some(id) => {
            let projects = api.projects.as_ref().ok_or_else(ApiError::projects_unavailable)?;
            Some(projects.for_key_of(&owner, ProjectId(*id)).await?)
        }
        None => None,
    };
    let state = keys.issue((&owner, project), caller.id.as_str(), settings).await?;
    let text = api.accounts.sign_api_key(state.key_id, &owner)?;
    let view = Key::from(UsedKey { state, last_used_at: None });
    Ok((StatusCode::CREATED, Json(KeyWithText { view, key: text })))
}

/// Keys of the caller, the newest first; for admins also of any user.
#[utoipa::path(get, path = "/api/keys", tag = "keys", params(KeyParams),
    responses((status = 200, body = List<Key>)))]
pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    QueryParams(params): QueryParams<KeyParams>,
) -> Result<Json<List<Key>>, ApiError> {
    let user = params.user_id.unwrap_or_else(|| caller.id.as_str().to_owned());
    user.parse::<UserId>().map_err(|_| ApiError::not_found())?;
    let user = authorized_user(&caller, user)?;
    let (before, limit) = (newest_or_before(params.cursor.as_deref())?, limit(params.limit)?);
    let rows = api_keys::of_user(&api.pool, &user, before, limit + 1).await?;
    Ok(Json(page_of(rows, limit)))
}

/// Keys of all users, the newest first.
#[utoipa::path(get, path = "/api/admin/keys", tag = "admin", params(Paging),
    responses((status = 200, body = List<Key>)))]
pub(super) async fn list_all(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    QueryParams(paging): QueryParams<Paging>,
) -> Result<Json<List<Key>>, ApiError> {
    let (before, limit) = (newest_or_before(paging.cursor.as_deref())?, limit(paging.limit)?);
    let rows = api_keys::of_all(&api.pool, before, limit + 1).await?;
    Ok(Json(page_of(rows, limit)))
}

/// Returns the key before which a page begins: that of the cursor, or one above all keys.
pub(super) fn newest_or_before(cursor: Option<&str>) -> Result<Uuid, ApiError> {
    let invalid = |_| ApiError::invalid("cursor", "cursor: expected the nextCursor of the previous page");
    Ok(cursor.map(Uuid::parse_str).transpose().map_err(invalid)?.unwrap_or(Uuid::max()))
}

/// Makes a page of up to `limit` keys. A row beyond the limit says that there are more.
pub(super) fn page_of(mut rows: Vec<UsedKey>, limit: i64) -> List<Key> {
    let size = usize::try_from(limit).unwrap_or(0);
    let has_more = rows.len() > size;
    rows.truncate(size);
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.state.key_id.to_string());
    List { data: rows.into_iter().map(Key::from).collect(), next_cursor }
}

/// One key.
#[utoipa::path(get, path = "/api/keys/{id}", tag = "keys", params(("id" = Uuid, Path, description = "The key")),
    responses((status = 200, body = Key)))]
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<Json<Key>, ApiError> {
    let key = find(&api, access(&api)?, &caller, id).await?;
    Ok(Json(key.into()))
}

/// Changes the settings of a key.
#[utoipa::path(patch, path = "/api/keys/{id}", tag = "keys", request_body = KeyChange,
    params(("id" = Uuid, Path, description = "The key")), responses((status = 200, body = Key)))]
pub(super) async fn change(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    _: ClientAddress,
    PathId(id): PathId,
    JsonBody(change): JsonBody<KeyChange>,
) -> Result<Json<Key>, ApiError> {
    let keys = access(&api)?;
    let key = find(&api, keys, &caller, id).await?;
    let old = key.state.settings.as_ref().map(|now| now.settings.clone()).ok_or_else(ApiError::not_found)?;
    let expires_at = match change.expires_at {
        None => old.expires_at,
        Some(text) => time("expiresAt", text.as_deref())?.map(microseconds),
    };
    let settings = KeySettings {
        name: change.name.unwrap_or(old.name),
        models: change.models.unwrap_or(old.models),
        operations: change.operations.unwrap_or(old.operations),
        expires_at,
        recording: change.recording.unwrap_or(old.recording),
    };
    let state = keys.change(&key.state, caller.id.as_str(), settings).await?;
    Ok(Json(UsedKey { state, ..key }.into()))
}

/// Revokes a key for ever.
#[utoipa::path(delete, path = "/api/keys/{id}", tag = "keys",
    params(("id" = Uuid, Path, description = "The key")), responses((status = 204)))]
pub(super) async fn revoke(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    _: ClientAddress,
    PathId(id): PathId,
) -> Result<StatusCode, ApiError> {
    let keys = access(&api)?;
    let key = find(&api, keys, &caller, id).await?;
    keys.revoke(&key.state, caller.id.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn access(api: &ApiState) -> Result<&AccessKeys, ApiError> {
    api.access.as_ref().ok_or_else(ApiError::keys_unavailable)
}

/// Finds a key that the caller may see. Someone else's key is answered like a key that does not exist.
async fn find(api: &ApiState, keys: &AccessKeys, caller: &Caller, id: Uuid) -> Result<UsedKey, ApiError> {
    let state = keys.find(id).await?.filter(|key| caller.may_read(key.user_id.as_str()));
    let state = state.ok_or_else(ApiError::not_found)?;
    let last_used_at = api_keys::last_used_at(&api.pool, id).await?;
    Ok(UsedKey { state, last_used_at })
}

/// The time in UTC, cut to microseconds: the resolution of the tables.
fn microseconds(at: OffsetDateTime) -> OffsetDateTime {
    let at = at.to_offset(time::UtcOffset::UTC);
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}
