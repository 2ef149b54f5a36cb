//! `/api/admin/limits`: limits of scopes, for admins only.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use shared::event::UsageLimits;
use utoipa::ToSchema;

use super::caller::{AdminCaller, ClientAddress};
use super::error::ApiError;
use super::input::{JsonBody, Paging, PathScope, QueryParams, limit, text};
use super::state::ApiState;
use super::views::limits::Limits;
use super::views::list::List;
use crate::access::budget_input::{InvalidBudget, NewBudget};
use crate::access::limits::AccessLimits;
use crate::store::limits;

/// All limits of a scope from now on. A limit that is left out or null does not exist any more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewLimits {
    /// The maximum number of calls that begin in a minute of the clock (UTC): 0 to 10^12.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 1_000_000_000_000_u64)]
    requests_per_minute: Option<Value>,
    /// The maximum number of tokens, of prompts and answers together, in a minute of the clock (UTC): 0 to 10^12.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 1_000_000_000_000_u64)]
    tokens_per_minute: Option<Value>,
    /// The maximum number of calls that run at the same time: 0 to 10^12.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 1_000_000_000_000_u64)]
    concurrent_chats: Option<Value>,
    /// The money that the calls may cost in a period.
    budget: Option<NewBudget>,
}

/// The scopes that have limits, in the order of their names.
#[utoipa::path(get, path = "/api/admin/limits", tag = "admin", params(Paging),
    responses((status = 200, body = List<Limits>)))]
pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    QueryParams(paging): QueryParams<Paging>,
) -> Result<Json<List<Limits>>, ApiError> {
    let limit = limit(paging.limit)?;
    // The cursor is a scope. Any text is accepted: the list continues with the scopes after the text.
    let after = paging.cursor.as_deref().map(|cursor| text("cursor", cursor, 300)).transpose()?.unwrap_or("");
    let mut rows = limits::page_in_force(&api.pool, after, limit + 1).await?;
    let size = usize::try_from(limit).unwrap_or(0);
    let has_more = rows.len() > size;
    rows.truncate(size);
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.scope.to_string());
    Ok(Json(List { data: rows.into_iter().map(Limits::from).collect(), next_cursor }))
}

/// The limits of one scope; all null for a scope without limits.
#[utoipa::path(get, path = "/api/admin/limits/{scope}", tag = "admin",
    params(("scope" = String, Path, description = "`deployment`, `everyone`, `user:ID`, `project:ID`, `key:ID` or `model:NAME`")),
    responses((status = 200, body = Limits)))]
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    PathScope(scope): PathScope,
) -> Result<Json<Limits>, ApiError> {
    let state = access(&api)?.find(&scope).await?;
    Ok(Json(state.map_or_else(|| Limits::never_set(&scope), Limits::from)))
}

/// Replaces all limits of a scope. The user, project or key of the scope need not exist: with an external identity provider, users are
/// not known here.
#[utoipa::path(put, path = "/api/admin/limits/{scope}", tag = "admin", request_body = NewLimits,
    params(("scope" = String, Path, description = "`deployment`, `everyone`, `user:ID`, `project:ID`, `key:ID` or `model:NAME`")),
    responses((status = 200, body = Limits)))]
pub(super) async fn set(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    _: ClientAddress,
    PathScope(scope): PathScope,
    JsonBody(new): JsonBody<NewLimits>,
) -> Result<Json<Limits>, ApiError> {
    let new = UsageLimits {
        requests_per_minute: number("requestsPerMinute", new.requests_per_minute)?,
        tokens_per_minute: number("tokensPerMinute", new.tokens_per_minute)?,
        concurrent_chats: number("concurrentChats", new.concurrent_chats)?,
        budget: new.budget.map(NewBudget::read).transpose()?.map(Box::new),
    };
    Ok(Json(access(&api)?.set(&scope, &caller.id, new).await?.into()))
}

/// Removes all limits of a scope.
#[utoipa::path(delete, path = "/api/admin/limits/{scope}", tag = "admin",
    params(("scope" = String, Path, description = "`deployment`, `everyone`, `user:ID`, `project:ID`, `key:ID` or `model:NAME`")),
    responses((status = 204)))]
pub(super) async fn clear(
    State(api): State<Arc<ApiState>>,
    AdminCaller(caller): AdminCaller,
    _: ClientAddress,
    PathScope(scope): PathScope,
) -> Result<StatusCode, ApiError> {
    access(&api)?.clear(&scope, &caller.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<InvalidBudget> for ApiError {
    fn from(error: InvalidBudget) -> Self {
        Self::invalid(error.member, error.to_string())
    }
}

fn access(api: &ApiState) -> Result<&AccessLimits, ApiError> {
    api.limits.as_ref().ok_or_else(ApiError::limits_unavailable)
}

/// Reads a limit. JSON numbers with a fraction or an exponent are refused, even if they are whole.
fn number(param: &'static str, value: Option<Value>) -> Result<Option<u64>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match value.as_u64() {
        Some(limit) if limit <= UsageLimits::MAX => Ok(Some(limit)),
        _ => {
            let most = UsageLimits::MAX;
            Err(ApiError::invalid(param, format!("{param}: expected a whole number from 0 to {most}, or null")))
        }
    }
}
