//! Usage over a range of days, divided into hours, days, weeks or months of a time zone.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::caller::{AdminCaller, Caller};
use super::error::ApiError;
use super::input::{PathUserId, QueryParams};
use super::state::ApiState;
use super::users::authorized_user;
use super::views::usage::UsageCounts;
use crate::calendar::{self, DateRange};
use crate::projection::usage_stats::UsageTotals;
use crate::reads::usage::{OTHER_KEY, UsageGroup, UsageRow, Whose, bucket_totals};

/// The parameters of a usage report.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageParams {
    /// The first day, in the time zone. Without it, the range has 30 days.
    #[param(format = Date)]
    from: Option<String>,
    /// The last day, in the time zone, included. The default is today.
    #[param(format = Date)]
    to: Option<String>,
    /// The length of the buckets. The default is a day.
    #[param(inline)]
    bucket: Option<BucketName>,
    /// The time zone. The default is UTC.
    tz: Option<String>,
    /// The grouping within each bucket. The default is none; `user` is for admins, over all users. `operation` is the kind of the
    /// call, such as `chat` or `embeddings`; `key` is the API key, and `project` the key's project.
    #[param(inline)]
    pub(super) group: Option<GroupName>,
}

/// The length of the buckets of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BucketName {
    Hour,
    #[default]
    Day,
    Week,
    Month,
}

/// The grouping of usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GroupName {
    #[default]
    None,
    Model,
    User,
    Operation,
    Key,
    Project,
}

/// Usage over a range of days. The sum of the buckets is the total.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Usage {
    /// The first day.
    #[schema(format = Date)]
    from: String,
    /// The last day.
    #[schema(format = Date)]
    to: String,
    /// The time zone.
    tz: String,
    /// The length of the buckets.
    bucket: BucketName,
    /// The grouping.
    group: GroupName,
    /// The sums over the whole range.
    total: UsageCounts,
    /// The buckets of the range: without a group all buckets; with a group one for each key that has usage in the bucket.
    buckets: Vec<BucketOfUsage>,
    /// The sums over the whole range by key, largest first; empty without a group.
    groups: Vec<GroupOfUsage>,
}

/// A bucket of the range.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BucketOfUsage {
    /// The first instant of the bucket.
    #[serde(with = "time::serde::rfc3339")]
    start: OffsetDateTime,
    /// The first instant after the bucket.
    #[serde(with = "time::serde::rfc3339")]
    end: OffsetDateTime,
    /// The start of the bucket, as clocks in the time zone show it.
    label: String,
    /// The model, user, operation, API key or project; null for usage that has none.
    key: Option<String>,
    #[serde(flatten)]
    counts: UsageCounts,
}

/// The sums of one key over the range.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupOfUsage {
    /// The model, user, operation, API key or project; null for usage that has none. `other` is the sum of all keys beyond the first hundred.
    key: Option<String>,
    #[serde(flatten)]
    counts: UsageCounts,
}

/// A user's usage over a range of days.
#[utoipa::path(get, path = "/api/users/{id}/usage", tag = "usage",
    params(("id" = String, Path, description = "The user's id, or `me`"), UsageParams),
    responses((status = 200, body = Usage)))]
pub(super) async fn of_user(
    State(api): State<Arc<ApiState>>,
    caller: Caller,
    PathUserId(id): PathUserId,
    QueryParams(params): QueryParams<UsageParams>,
) -> Result<Json<Usage>, ApiError> {
    let id = authorized_user(&caller, id)?;
    if params.group == Some(GroupName::User) {
        return Err(ApiError::invalid(
            "group",
            "group: expected none, model, operation, key or project; grouping by user is for /api/admin/usage",
        ));
    }
    read(&api, Whose::User(&id), &params).await
}

/// All users' usage over a range of days.
#[utoipa::path(get, path = "/api/admin/usage", tag = "admin", params(UsageParams),
    responses((status = 200, body = Usage)))]
pub(super) async fn of_all(
    State(api): State<Arc<ApiState>>,
    _: AdminCaller,
    QueryParams(params): QueryParams<UsageParams>,
) -> Result<Json<Usage>, ApiError> {
    read(&api, Whose::All, &params).await
}

pub(super) async fn read(api: &ApiState, whose: Whose<'_>, params: &UsageParams) -> Result<Json<Usage>, ApiError> {
    let tz = params.tz.as_deref().unwrap_or("UTC");
    let (bucket, group) = (params.bucket.unwrap_or_default(), params.group.unwrap_or_default());
    let (from, to) = (params.from.as_deref(), params.to.as_deref());
    let range = calendar::date_range(&calendar::time_zone(tz)?, from, to, bucket.into(), OffsetDateTime::now_utc())?;
    let starts: Vec<_> = range.buckets.iter().map(|piece| piece.start).collect();
    let end = range.buckets.last().map_or(OffsetDateTime::UNIX_EPOCH, |piece| piece.end);
    let rows = bucket_totals(&api.pool, whose, (&starts, end), group.into()).await?;
    Ok(Json(usage(&range, tz, (bucket, group), &rows)))
}

fn usage(range: &DateRange, tz: &str, (bucket, group): (BucketName, GroupName), rows: &[UsageRow]) -> Usage {
    let (mut total, mut keys) = (UsageTotals::default(), BTreeMap::<Option<&str>, UsageTotals>::new());
    for row in rows {
        total += row.counts;
        *keys.entry(row.key.as_deref()).or_default() += row.counts;
    }
    let mut groups: Vec<_> = if group == GroupName::None { Vec::new() } else { keys.into_iter().collect() };
    let tokens = |counts: &UsageTotals| counts.total_tokens + counts.estimated_total_tokens;
    groups.sort_by_key(|(key, counts)| {
        (*key == Some(OTHER_KEY), std::cmp::Reverse((tokens(counts), counts.api_calls)), key.map(str::to_owned))
    });
    let of = |piece: &calendar::BucketRange, key: Option<&str>, counts: UsageTotals| BucketOfUsage {
        start: piece.start,
        end: piece.end,
        label: piece.label.clone(),
        key: key.map(str::to_owned),
        counts: counts.into(),
    };
    let buckets = if group == GroupName::None {
        let mut sums = vec![UsageTotals::default(); range.buckets.len()];
        for row in rows {
            if let Some(sum) = sums.get_mut(row.bucket) {
                *sum += row.counts;
            }
        }
        range.buckets.iter().zip(sums).map(|(piece, counts)| of(piece, None, counts)).collect()
    } else {
        let piece = |row: &UsageRow| Some(of(range.buckets.get(row.bucket)?, row.key.as_deref(), row.counts));
        rows.iter().filter_map(piece).collect()
    };
    Usage {
        from: range.from.to_string(),
        to: range.to.to_string(),
        tz: tz.to_owned(),
        bucket,
        group,
        total: total.into(),
        buckets,
        groups: groups
            .into_iter()
            .map(|(key, counts)| GroupOfUsage { key: key.map(str::to_owned), counts: counts.into() })
            .collect(),
    }
}

impl From<BucketName> for calendar::Bucket {
    fn from(name: BucketName) -> Self {
        match name {
            BucketName::Hour => Self::Hour,
            BucketName::Day => Self::Day,
            BucketName::Week => Self::Week,
            BucketName::Month => Self::Month,
        }
    }
}

impl From<GroupName> for UsageGroup {
    fn from(name: GroupName) -> Self {
        match name {
            GroupName::None => Self::None,
            GroupName::Model => Self::Model,
            GroupName::User => Self::User,
            GroupName::Operation => Self::Operation,
            GroupName::Key => Self::Key,
            GroupName::Project => Self::Project,
        }
    }
}
