//! `/api/limits`: the limits that apply to the caller, with the caller's use of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::access::{KeyState, LimitState};
use shared::budget_window::BudgetWindow;
use shared::event::{LimitScope, UsageLimits};
use shared::id::UserId;
use sqlx::PgPool;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use super::caller::Caller;
use super::error::ApiError;
use super::state::ApiState;
use super::views::limits::{OwnLimit, Used};
use crate::access::keys::MAX_KEYS_PER_USER;
use crate::reads::limits::{RecordedUse, use_of};
use crate::store::{api_keys, budget_spend, limits};

/// The maximum number of limited models that are listed.
const MAX_MODELS: i64 = 100;

/// The limits that apply to the caller.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OwnLimits {
    /// The limits, those of the caller first.
    data: Vec<OwnLimit>,
    /// The time at which the use was counted.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

/// The limits that apply to calls of the caller, and the recorded use of those that count the caller's calls alone.
#[utoipa::path(get, path = "/api/limits", tag = "limits", responses((status = 200, body = OwnLimits)))]
pub(super) async fn list(State(api): State<Arc<ApiState>>, caller: Caller) -> Result<Json<OwnLimits>, ApiError> {
    let at = shared::event::now();
    let minute = at.replace_second(0).and_then(|at| at.replace_nanosecond(0)).unwrap_or(at);
    let keys = api_keys::of_user(&api.pool, caller.id.as_str(), Uuid::max(), MAX_KEYS_PER_USER).await?;
    let keys: Vec<KeyState> = keys.into_iter().map(|key| key.state).filter(|key| key.revoked.is_none()).collect();
    let mut scopes = vec![LimitScope::User(caller.id.clone()), LimitScope::Everyone, LimitScope::Deployment];
    let projects: BTreeSet<_> = keys.iter().filter_map(|key| key.project_id).collect();
    scopes.extend(projects.into_iter().map(LimitScope::Project));
    scopes.extend(keys.iter().map(|key| LimitScope::Key(key.key_id)));
    let names: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let mut connection = api.pool.acquire().await?;
    let mut found = limits::by_scopes(&mut connection, &names).await?;
    drop(connection);
    // The names of models stand between `model:` and the next kind of scope.
    let models = limits::page_in_force(&api.pool, "model:", MAX_MODELS).await?;
    let models = models.into_iter().filter(|state| matches!(state.scope, LimitScope::Model(_)));
    without_replaced(&mut found, &scopes[0]);
    let uses = use_of(&api.pool, caller.id.as_str(), minute).await?;
    let of_all_keys = uses.values().fold(RecordedUse::default(), |sum, one| RecordedUse {
        requests: sum.requests + one.requests,
        tokens: sum.tokens + one.tokens,
        running: sum.running + one.running,
    });
    let window_end = minute + Duration::MINUTE;
    let mut data = Vec::new();
    for state in scopes.iter().filter_map(|scope| found.remove(scope)).chain(models) {
        let (name, used) = match &state.scope {
            LimitScope::User(_) | LimitScope::Everyone => (None, Some(of_all_keys)),
            LimitScope::Key(id) => {
                let key = keys.iter().find(|key| key.key_id == *id);
                let name = key.and_then(|key| key.settings.as_ref()).map(|now| now.settings.name.clone());
                (name, Some(uses.get(&Some(id.0)).copied().unwrap_or_default()))
            }
            // The calls of other users count as well.
            LimitScope::Deployment | LimitScope::Project(_) | LimitScope::Model(_) => (None, None),
        };
        data.extend(OwnLimit::all(&state, name.as_deref(), used.map(|used| Used { recorded: used, window_end })));
        if let Some(budget) = &state.limits.budget {
            let window = BudgetWindow::of(budget, at);
            let spent = match used {
                // The budget of everyone is that of each user.
                Some(_) => Some(spent_by(&api.pool, &state.scope, &caller.id, window).await?),
                None => None,
            };
            data.push(OwnLimit::budget(&state.scope, name.as_deref(), (budget, window), spent));
        }
    }
    Ok(Json(OwnLimits { data, at }))
}

/// Takes from the limits of everyone those that a limit of the user's own replaces.
fn without_replaced(found: &mut BTreeMap<LimitScope, LimitState>, user: &LimitScope) {
    let own = found.get(user).map(|state| state.limits.clone()).unwrap_or_default();
    if let Some(everyone) = found.get_mut(&LimitScope::Everyone) {
        let of_everyone = std::mem::take(&mut everyone.limits);
        let kept = |own: Option<u64>, limit: Option<u64>| limit.filter(|_| own.is_none());
        everyone.limits = UsageLimits {
            requests_per_minute: kept(own.requests_per_minute, of_everyone.requests_per_minute),
            tokens_per_minute: kept(own.tokens_per_minute, of_everyone.tokens_per_minute),
            concurrent_chats: kept(own.concurrent_chats, of_everyone.concurrent_chats),
            budget: of_everyone.budget.filter(|_| own.budget.is_none()),
        };
    }
}

/// The recorded cost, in nano-dollars, of the caller's calls in a period; of one key alone for the scope of a key.
async fn spent_by(
    pool: &PgPool,
    scope: &LimitScope,
    caller: &UserId,
    window: BudgetWindow,
) -> Result<u64, sqlx::Error> {
    let user = LimitScope::User(caller.clone());
    let scope = if matches!(scope, LimitScope::Key(_)) { scope } else { &user };
    let mut connection = pool.acquire().await?;
    budget_spend::recorded(&mut connection, scope, window, &[]).await
}
