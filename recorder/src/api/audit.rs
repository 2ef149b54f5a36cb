//! `/api/admin/audit`: the audit log, for admins only.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

use super::caller::AdminCaller;
use super::error::ApiError;
use super::input::{QueryParams, limit, text, time};
use super::state::ApiState;
use super::views::audit::AuditEntry;
use super::views::list::List;
use crate::cursor::TimeCursor;
use crate::reads::audit::{self, AuditQuery};

/// The filters and the page of the audit log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// The maximum number of entries: 1 to 100. The default is 50.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
    /// Only acts of this user, of `cli`, or of `anonymous`.
    actor: Option<String>,
    /// Only acts of this kind, such as `login`.
    action: Option<String>,
    /// Only acts with this outcome: `success`, `failure` or `throttled`.
    outcome: Option<String>,
    /// Only acts about the thing with this id: a user, an invite, a conversation, a chat, a key, a scope of limits.
    target: Option<String>,
    /// Only acts at this time or later.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only acts before this time.
    #[param(format = DateTime)]
    until: Option<String>,
}

/// The audit log, newest first.
#[utoipa::path(get, path = "/api/admin/audit", tag = "admin", params(AuditParams),
    responses((status = 200, body = List<AuditEntry>)))]
pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    QueryParams(params): QueryParams<AuditParams>,
) -> Result<Json<List<AuditEntry>>, ApiError> {
    let until = time("until", params.until.as_deref())?.map(|at| TimeCursor { at, id: Uuid::nil() });
    let cursor = params.cursor.as_deref().map(TimeCursor::decode).transpose()?;
    // The page begins at the earlier of `until` and the cursor.
    let before = [until, cursor].into_iter().flatten().min_by_key(|cursor| (cursor.at, cursor.id));
    let query = AuditQuery {
        actor: params.actor.as_deref().map(|actor| text("actor", actor, 255)).transpose()?,
        action: params.action.as_deref().map(|action| text("action", action, 32)).transpose()?,
        outcome: params.outcome.as_deref().map(|outcome| text("outcome", outcome, 32)).transpose()?,
        target: params.target.as_deref().map(|target| text("target", target, 300)).transpose()?,
        since: time("since", params.since.as_deref())?.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        before: before.unwrap_or_else(TimeCursor::newest),
        limit: limit(params.limit)?,
    };
    let page = audit::page(&api.pool, query).await?;
    let next_cursor = page.next.map(|cursor| cursor.encode());
    Ok(Json(List { data: page.rows.into_iter().map(AuditEntry::from).collect(), next_cursor }))
}
