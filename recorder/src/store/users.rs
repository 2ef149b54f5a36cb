//! Statements for the `users` table.

use shared::id::UserId;
use shared::token::Role;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{UnreadableColumn, user_id, utc};
use crate::name_key::name_key;

/// An account, without the password's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The subject of the account's tokens.
    pub user_id: UserId,
    /// The name that the user logs in with, unique among all accounts.
    pub name: String,
    /// Rights beyond the user's own record; none for a normal user.
    pub role: Option<Role>,
    /// The time of creation.
    pub created_at: OffsetDateTime,
    /// The time since which the account gets no new tokens; none for an enabled account.
    pub disabled_at: Option<OffsetDateTime>,
    /// The author of the invite with which the account was made.
    pub invited_by: Option<String>,
}

/// The values of an account to insert.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// The subject of the account's tokens.
    pub user_id: &'a UserId,
    /// The name to log in with; a name that is taken is refused.
    pub name: &'a str,
    /// Rights beyond the user's own record; none for a normal user.
    pub role: Option<Role>,
    /// The hash of the password; none for an account that cannot log in by password.
    pub password_hash: Option<&'a str>,
    /// The invite with which the account is made.
    pub invite_id: Option<Uuid>,
    /// The time of creation.
    pub created_at: OffsetDateTime,
}

/// A query for accounts; `$tail` follows the join.
macro_rules! users_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            UserRow,
            "SELECT u.user_id, u.name, u.role, u.created_at, u.disabled_at, i.created_by AS \"invited_by?\"
             FROM users u LEFT JOIN invite_codes i USING (invite_id) " + $tail
            $(, $argument)*
        )
    };
}

/// Inserts an account. Returns false when the id, the name or the normal form of the name is taken.
pub async fn create(connection: &mut PgConnection, account: &NewUser<'_>) -> Result<bool, sqlx::Error> {
    let created = sqlx::query!(
        "INSERT INTO users (user_id, name, name_key, role, password_hash, invite_id, created_at)
         VALUES ($1, $2, $7, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        account.user_id.as_str(),
        account.name,
        account.role.map(role_name),
        account.password_hash,
        account.invite_id,
        account.created_at,
        name_key(account.name)
    );
    Ok(created.execute(connection).await?.rows_affected() == 1)
}

/// Gives the accounts that were made before names had a normal form the normal form of their name. Of several accounts with
/// one normal form, the oldest gets the form; the others stay without.
pub async fn fill_name_keys(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!("SELECT user_id, name FROM users WHERE name_key IS NULL ORDER BY created_at, user_id");
    for row in rows.fetch_all(&mut *connection).await? {
        sqlx::query!(
            "UPDATE users SET name_key = $2
             WHERE user_id = $1 AND NOT EXISTS (SELECT FROM users other WHERE other.name_key = $2)",
            row.user_id,
            name_key(&row.name)
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Finds an account by id, or else by name.
pub async fn by_id_or_name(pool: &PgPool, id_or_name: &str) -> Result<Option<User>, sqlx::Error> {
    let row = users_where!("WHERE u.user_id = $1 OR u.name = $1 ORDER BY u.user_id = $1 DESC LIMIT 1", id_or_name);
    row.fetch_optional(pool).await?.map(UserRow::read).transpose().map_err(Into::into)
}

/// Finds an account by id.
pub async fn by_id(pool: &PgPool, id: &str) -> Result<Option<User>, sqlx::Error> {
    let row = users_where!("WHERE u.user_id = $1", id);
    row.fetch_optional(pool).await?.map(UserRow::read).transpose().map_err(Into::into)
}

/// A page of up to `limit` accounts in the order of names, beginning after the name `after`. Only names that contain
/// `part` are listed, without regard to case.
pub async fn page(pool: &PgPool, after: &str, part: &str, limit: i64) -> Result<Vec<User>, sqlx::Error> {
    let rows = users_where!(
        "WHERE u.name > $1 AND strpos(lower(u.name), lower($2)) > 0 ORDER BY u.name LIMIT $3",
        after,
        part,
        limit
    );
    rows.fetch_all(pool).await?.into_iter().map(|row| row.read().map_err(Into::into)).collect()
}

/// Finds an account by name, or else by the normal form of the name, with the hash of the password.
pub async fn credentials(pool: &PgPool, name: &str) -> Result<Option<(User, Option<String>)>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT user_id, password_hash FROM users WHERE name = $1 OR name_key = $2 ORDER BY name = $1 DESC LIMIT 1",
        name,
        name_key(name)
    );
    let Some(row) = row.fetch_optional(pool).await? else { return Ok(None) };
    Ok(by_id(pool, &row.user_id).await?.map(|user| (user, row.password_hash)))
}

/// Replaces the password's hash. Returns false when there is no such account.
pub async fn set_password(connection: &mut PgConnection, id: &UserId, hash: &str) -> Result<bool, sqlx::Error> {
    let set = sqlx::query!("UPDATE users SET password_hash = $2 WHERE user_id = $1", id.as_str(), hash);
    Ok(set.execute(connection).await?.rows_affected() == 1)
}

/// Disables an account since the given time, or enables the account with none, and notes the change of `now` for the gateways.
/// Returns false when there is no such account.
pub async fn set_disabled(
    connection: &mut PgConnection,
    id: &UserId,
    disabled_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<bool, sqlx::Error> {
    // Disabling a disabled account keeps the first time.
    let noted = sqlx::query!(
        "WITH changed AS (
             UPDATE users
             SET disabled_at = CASE WHEN $2::timestamptz IS NULL THEN NULL ELSE COALESCE(disabled_at, $2) END
             WHERE user_id = $1 RETURNING user_id)
         INSERT INTO access_changes (kind, subject, changed_at) SELECT 'user', user_id, $3::timestamptz FROM changed
         ON CONFLICT (kind, subject) DO UPDATE SET number = EXCLUDED.number, changed_at = EXCLUDED.changed_at",
        id.as_str(),
        disabled_at,
        now
    );
    Ok(noted.execute(connection).await?.rows_affected() == 1)
}

/// Disables a user of an external identity provider since the given time, or enables the user with none, and notes the change of `now` for
/// the gateways.
pub async fn set_external_disabled(
    connection: &mut PgConnection,
    id: &UserId,
    disabled_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    match disabled_at {
        // Disabling a disabled user keeps the first time.
        Some(at) => sqlx::query!(
            "INSERT INTO disabled_external_users (user_id, disabled_at) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING",
            id.as_str(),
            at
        ),
        None => sqlx::query!("DELETE FROM disabled_external_users WHERE user_id = $1", id.as_str()),
    }
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "INSERT INTO access_changes (kind, subject, changed_at) VALUES ('user', $1, $2)
         ON CONFLICT (kind, subject) DO UPDATE SET number = EXCLUDED.number, changed_at = EXCLUDED.changed_at",
        id.as_str(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the time since which a user of an external identity provider is disabled.
pub async fn external_disabled_at(pool: &PgPool, id: &UserId) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let at = sqlx::query_scalar!("SELECT disabled_at FROM disabled_external_users WHERE user_id = $1", id.as_str());
    Ok(at.fetch_optional(pool).await?.map(utc))
}

/// Returns true if the user is disabled, with an account or without.
pub async fn is_disabled(pool: &PgPool, id: &UserId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT EXISTS (SELECT FROM users WHERE user_id = $1 AND disabled_at IS NOT NULL)
             OR EXISTS (SELECT FROM disabled_external_users WHERE user_id = $1) AS \"disabled!\"",
        id.as_str()
    )
    .fetch_one(pool)
    .await
}

/// Returns those of the users who are disabled.
pub async fn disabled_among(pool: &PgPool, ids: &[String]) -> Result<Vec<String>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT user_id AS \"user_id!\" FROM users WHERE user_id = ANY($1) AND disabled_at IS NOT NULL
         UNION ALL SELECT user_id FROM disabled_external_users WHERE user_id = ANY($1)",
        ids
    );
    ids.fetch_all(pool).await
}

/// Returns up to `limit` disabled users in the order of ids, after the given user.
pub async fn disabled_after(pool: &PgPool, after: Option<&UserId>, limit: i64) -> Result<Vec<UserId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT user_id AS \"user_id!\" FROM (
             (SELECT user_id COLLATE \"C\" AS user_id FROM users
              WHERE disabled_at IS NOT NULL AND user_id COLLATE \"C\" > $1 ORDER BY user_id COLLATE \"C\" LIMIT $2)
             UNION ALL
             (SELECT user_id FROM disabled_external_users WHERE user_id > $1 ORDER BY user_id LIMIT $2)) disabled
         ORDER BY 1 LIMIT $2",
        after.map_or("", UserId::as_str),
        limit
    );
    ids.fetch_all(pool).await?.into_iter().map(|id| Ok(user_id(id)?)).collect()
}

/// Sets or removes the admin role. Returns false when there is no such account.
pub async fn set_role(connection: &mut PgConnection, id: &UserId, role: Option<Role>) -> Result<bool, sqlx::Error> {
    let set = sqlx::query!("UPDATE users SET role = $2 WHERE user_id = $1", id.as_str(), role.map(role_name));
    Ok(set.execute(connection).await?.rows_affected() == 1)
}

struct UserRow {
    user_id: String,
    name: String,
    role: Option<String>,
    created_at: OffsetDateTime,
    disabled_at: Option<OffsetDateTime>,
    invited_by: Option<String>,
}

impl UserRow {
    fn read(self) -> Result<User, UnreadableColumn> {
        Ok(User {
            user_id: user_id(self.user_id)?,
            name: self.name,
            role: self.role.map(|_| Role::Admin),
            created_at: utc(self.created_at),
            disabled_at: self.disabled_at.map(utc),
            invited_by: self.invited_by,
        })
    }
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
    }
}
