//! `/api/admin/projects`: projects, for admins only. `/api/projects`: the projects of which the caller is a member, with their keys and usage.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use shared::access::ProjectState;
use shared::event::ProjectSettings;
use shared::id::{ProjectId, UserId};
use shared::token::Role;
use utoipa::ToSchema;
use uuid::Uuid;

use super::api_keys::{newest_or_before, page_of};
use super::caller::{AdminCaller, Caller, ClientAddress};
use super::error::ApiError;
use super::input::{JsonBody, Paging, PathId, QueryParams, limit};
use super::state::ApiState;
use super::usage::{GroupName, Usage, UsageParams, read};
use super::views::api_key::Key;
use super::views::list::List;
use super::views::project::Project;
use crate::access::projects::AccessProjects;
use crate::reads::usage::Whose;
use crate::store::{api_keys, projects};

/// The maximum number of projects that are listed for a member.
const MAX_LISTED: i64 = 100;

/// A project to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewProject {
    /// The name, for people: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// The ids of the members. The default is nobody.
    #[serde(default)]
    #[schema(max_items = 500)]
    members: Vec<String>,
}

/// A change of a project. Settings that are left out stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProjectChange {
    /// The new name.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// All members from now on. Keys of the project are refused if their owner is no member.
    #[schema(max_items = 500)]
    members: Option<Vec<String>>,
    /// True to refuse all keys of the project from now on; false to accept them again.
    disabled: Option<bool>,
}

/// The projects, in the order of their creation.
#[utoipa::path(get, path = "/api/admin/projects", tag = "admin", params(Paging),
    responses((status = 200, body = List<Project>)))]
pub(super) async fn list_all(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    QueryParams(paging): QueryParams<Paging>,
) -> Result<Json<List<Project>>, ApiError> {
    let limit = limit(paging.limit)?;
    let invalid = |_| ApiError::invalid("cursor", "cursor: expected the nextCursor of the previous page");
    let after = paging.cursor.as_deref().map(Uuid::parse_str).transpose().map_err(invalid)?.unwrap_or(Uuid::nil());
    let mut rows = projects::page(&api.pool, after, limit + 1).await?;
    let size = usize::try_from(limit).unwrap_or(0);
    let has_more = rows.len() > size;
    rows.truncate(size);
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.project_id.to_string());
    Ok(Json(List { data: rows.into_iter().map(Project::from).collect(), next_cursor }))
}

/// Creates a project. The users need not exist: with an external identity provider, users are not known here.
#[utoipa::path(post, path = "/api/admin/projects", tag = "admin", request_body = NewProject,
    responses((status = 201, body = Project)))]
pub(super) async fn create(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    _: ClientAddress,
    JsonBody(new): JsonBody<NewProject>,
) -> Result<(StatusCode, Json<Project>), ApiError> {
    let settings = ProjectSettings { name: new.name, members: users(&new.members)?, is_disabled: false };
    let created = access(&api)?.create(&caller.id, settings).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// Changes a project.
#[utoipa::path(patch, path = "/api/admin/projects/{id}", tag = "admin", request_body = ProjectChange,
    params(("id" = Uuid, Path, description = "The project")), responses((status = 200, body = Project)))]
pub(super) async fn change(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    _: ClientAddress,
    PathId(id): PathId,
    JsonBody(change): JsonBody<ProjectChange>,
) -> Result<Json<Project>, ApiError> {
    let members = change.members.as_deref().map(users).transpose()?;
    let changed = access(&api)?.change(ProjectId(id), &caller.id, |settings| {
        if let Some(name) = change.name {
            settings.name = name;
        }
        if let Some(members) = members {
            settings.members = members;
        }
        settings.is_disabled = change.disabled.unwrap_or(settings.is_disabled);
    });
    Ok(Json(changed.await?.ok_or_else(ApiError::not_found)?.into()))
}

/// The projects of which the caller is a member, in the order of their creation: the first 100.
#[utoipa::path(get, path = "/api/projects", tag = "projects", responses((status = 200, body = List<Project>)))]
pub(super) async fn list(State(api): State<Arc<ApiState>>, caller: Caller) -> Result<Json<List<Project>>, ApiError> {
    let rows = projects::of_member(&api.pool, &caller.id, MAX_LISTED).await?;
    Ok(Json(List { data: rows.into_iter().map(Project::from).collect(), next_cursor: None }))
}

/// One project, for its members and for admins.
#[utoipa::path(get, path = "/api/projects/{id}", tag = "projects",
    params(("id" = Uuid, Path, description = "The project")), responses((status = 200, body = Project)))]
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<Json<Project>, ApiError> {
    Ok(Json(find(&api, &caller, id).await?.into()))
}

/// The keys of a project, of all members, the newest first.
#[utoipa::path(get, path = "/api/projects/{id}/keys", tag = "projects",
    params(("id" = Uuid, Path, description = "The project"), Paging), responses((status = 200, body = List<Key>)))]
pub(super) async fn keys(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(paging): QueryParams<Paging>,
) -> Result<Json<List<Key>>, ApiError> {
    find(&api, &caller, id).await?;
    let (before, limit) = (newest_or_before(paging.cursor.as_deref())?, limit(paging.limit)?);
    let rows = api_keys::of_project(&api.pool, id, before, limit + 1).await?;
    Ok(Json(page_of(rows, limit)))
}

/// The usage of a project's keys, of all members, over a range of days.
#[utoipa::path(get, path = "/api/projects/{id}/usage", tag = "projects",
    params(("id" = Uuid, Path, description = "The project"), UsageParams), responses((status = 200, body = Usage)))]
pub(super) async fn usage(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathId(id): PathId,
    QueryParams(params): QueryParams<UsageParams>,
) -> Result<Json<Usage>, ApiError> {
    find(&api, &caller, id).await?;
    if matches!(params.group, Some(GroupName::Operation | GroupName::Project)) {
        return Err(ApiError::invalid("group", "group: expected none, model, user or key"));
    }
    read(&api, Whose::Project(id), &params).await
}

fn access(api: &ApiState) -> Result<&AccessProjects, ApiError> {
    api.projects.as_ref().ok_or_else(ApiError::projects_unavailable)
}

/// Finds a project that the caller may see. Any other project is answered like one that does not exist.
async fn find(api: &ApiState, caller: &Caller, id: Uuid) -> Result<ProjectState, ApiError> {
    let found = match &api.projects {
        Some(projects) => projects.find(ProjectId(id)).await?,
        None => projects::by_ids(&mut *api.pool.acquire().await?, &[id]).await?.remove(&ProjectId(id)),
    };
    let is_visible =
        |project: &ProjectState| caller.role == Some(Role::Admin) || project.settings.members.contains(&caller.id);
    found.filter(is_visible).ok_or_else(ApiError::not_found)
}

fn users(ids: &[String]) -> Result<BTreeSet<UserId>, ApiError> {
    let invalid = |_| ApiError::invalid("members", "members: expected the ids of users");
    ids.iter().map(|id| id.parse().map_err(invalid)).collect()
}
