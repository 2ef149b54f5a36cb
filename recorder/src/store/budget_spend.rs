//! The recorded costs of the calls of a scope in a period, for budgets.

use shared::budget_window::BudgetWindow;
use shared::event::LimitScope;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// The calls of one run of a gateway, which the run counts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedElsewhere {
    /// The name of the gateway.
    pub gateway: String,
    /// The time from which the run counts its calls.
    pub since: OffsetDateTime,
}

/// Returns the sum of the recorded costs, in nano-dollars, of the scope's calls that started in the period, without the calls that are
/// counted elsewhere. Calls without a known price are in no sum.
pub async fn recorded(
    connection: &mut PgConnection,
    scope: &LimitScope,
    window: BudgetWindow,
    elsewhere: &[CountedElsewhere],
) -> Result<u64, sqlx::Error> {
    let (mut user, mut project, mut key, mut model) = (None, None, None, None);
    match scope {
        LimitScope::User(id) => user = Some(id.as_str()),
        LimitScope::Project(id) => project = Some(id.0),
        LimitScope::Key(id) => key = Some(id.0),
        LimitScope::Model(name) => model = Some(name.as_str()),
        LimitScope::Deployment | LimitScope::Everyone => {}
    }
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let gateways: Vec<String> = elsewhere.iter().map(|run| run.gateway.clone()).collect();
    let since: Vec<OffsetDateTime> = elsewhere.iter().map(|run| run.since).collect();
    let sum = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(cost_nanodollars), 0)::bigint AS "sum!" FROM chats
           WHERE started_at >= $1 AND started_at < $2 AND cost_nanodollars IS NOT NULL
             AND ($3::text IS NULL OR user_id = $3) AND ($4::uuid IS NULL OR project_id = $4)
             AND ($5::uuid IS NULL OR key_id = $5) AND ($6::text IS NULL OR model = $6)
             AND NOT EXISTS (
                 SELECT FROM UNNEST($7::text[], $8::timestamptz[]) AS run (gateway, since)
                 WHERE run.gateway = chats.gateway AND run.since <= chats.started_at)"#,
        at(window.start),
        at(window.end),
        user,
        project,
        key,
        model,
        &gateways,
        &since
    );
    Ok(u64::try_from(sum.fetch_one(connection).await?).unwrap_or(0))
}

/// Returns true if a gateway has open chats that started in a span of time.
pub async fn has_open_chats(
    connection: &mut PgConnection,
    gateway: &str,
    since: OffsetDateTime,
    until: Option<OffsetDateTime>,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM chats WHERE status = 'started' AND gateway = $1 AND started_at >= $2
                   AND ($3::timestamptz IS NULL OR started_at < $3)) AS "exists!""#,
        gateway,
        since,
        until
    );
    found.fetch_one(connection).await
}
