//! `/api/users/{id}`: a user's account and the usage of the last 30 days. `/api/auth/me`: the caller's account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::{Date, Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};

use super::caller::Caller;
use super::error::ApiError;
use super::input::{PathUserId, QueryParams};
use super::state::ApiState;
use super::views::usage::{DayOfUsage, UsageCounts};
use super::views::user::User;
use crate::reads;
use crate::store::users;

/// The number of UTC days in a profile, including today.
const DAYS: i64 = 30;

/// How a profile is shown.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ProfileParams {
    /// Whether days without use are listed too.
    #[serde(default)]
    zeros: bool,
}

/// A user, and what they used.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    #[serde(flatten)]
    user: User,
    /// The last 30 UTC days, oldest first.
    usage_stats: Vec<DayOfUsage>,
}

/// Who the caller is.
#[utoipa::path(get, path = "/api/auth/me", tag = "accounts", responses((status = 200, body = User)))]
pub(super) async fn me(caller: Caller) -> Json<User> {
    let id = caller.id.as_str().to_owned();
    Json(caller.user.map_or_else(|| User::unknown(id), User::from))
}

/// A user, and their last 30 UTC days.
#[utoipa::path(get, path = "/api/users/{id}", tag = "usage",
    params(("id" = String, Path, description = "The user's id, or `me`"), ProfileParams),
    responses((status = 200, body = Profile)))]
pub(super) async fn profile(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathUserId(id): PathUserId,
    QueryParams(params): QueryParams<ProfileParams>,
) -> Result<Json<Profile>, ApiError> {
    let id = authorized_user(&caller, id)?;
    let user = users::by_id(&api.pool, &id).await?;
    let today = OffsetDateTime::now_utc().date();
    let first = today.checked_sub(Duration::days(DAYS - 1)).unwrap_or(today);
    let mut days = reads::usage::days(&api.pool, &id, first).await?;
    if params.zeros {
        days = with_zeros(&days, first, today);
    }
    let day = |(date, counts): (Date, _)| DayOfUsage { date: date.to_string(), counts: UsageCounts::from(counts) };
    let usage_stats = days.into_iter().map(day).collect();
    Ok(Json(Profile { user: user.map_or_else(|| User::unknown(id), User::from), usage_stats }))
}

/// Returns the id of the user to read, with `me` replaced by the caller's id. Fails with 404 if the caller may not read
/// the user's record.
pub(super) fn authorized_user(caller: &Caller, id: String) -> Result<String, ApiError> {
    let id = if id == "me" { caller.id.as_str().to_owned() } else { id };
    if caller.may_read(&id) { Ok(id) } else { Err(ApiError::not_found()) }
}

fn with_zeros<T: Copy + Default>(days: &[(Date, T)], first: Date, last: Date) -> Vec<(Date, T)> {
    let mut all: Vec<(Date, T)> = Vec::new();
    let mut date = first;
    while date <= last {
        let counts = days.iter().find(|(day, _)| *day == date).map(|(_, counts)| *counts).unwrap_or_default();
        all.push((date, counts));
        let Some(next) = date.next_day() else { break };
        date = next;
    }
    // A gateway with a fast clock may have recorded usage for tomorrow already.
    all.extend(days.iter().filter(|(day, _)| *day > last));
    all
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn days_without_usage_are_listed_as_zeros() {
        let days = [(date!(2026 - 11 - 23), 7), (date!(2026 - 11 - 25), 1)];
        let all = with_zeros(&days, date!(2026 - 11 - 22), date!(2026 - 11 - 24));
        assert_eq!(all.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [0, 7, 0, 1]);
    }
}
