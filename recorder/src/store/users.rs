//! The `users` table.

use shared::id::UserId;
use shared::token::Role;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::read::user;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The subject of its tokens.
    pub user_id: UserId,
    /// The login name.
    pub name: String,
    /// What it may do beyond its own record.
    pub role: Option<Role>,
    /// Since when it gets no new tokens.
    pub disabled_at: Option<OffsetDateTime>,
}

/// Makes an account, unless there is one with this id or this name: then says false.
pub async fn create(pool: &PgPool, account: &User, now: OffsetDateTime) -> Result<bool, sqlx::Error> {
    let created = sqlx::query!(
        "INSERT INTO users (user_id, name, role, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        account.user_id.as_str(),
        account.name,
        account.role.map(word),
        now
    );
    Ok(created.execute(pool).await?.rows_affected() == 1)
}

/// The account with this id; failing that, the one with this name.
pub async fn find(pool: &PgPool, id_or_name: &str) -> Result<Option<User>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT user_id, name, role, disabled_at FROM users
         WHERE user_id = $1 OR name = $1 ORDER BY user_id = $1 DESC LIMIT 1",
        id_or_name
    );
    let Some(row) = row.fetch_optional(pool).await? else { return Ok(None) };
    Ok(Some(User {
        user_id: user(row.user_id)?,
        name: row.name,
        role: row.role.map(|_| Role::Admin),
        disabled_at: row.disabled_at,
    }))
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
    }
}
