//! The database connection of a one-shot command: a pool with one connection, opened at the first query.

use sqlx::postgres::PgPool;

use crate::config::Config;
use crate::store;

pub(super) fn pool(config: &Config) -> anyhow::Result<PgPool> {
    // The details of a malformed URL are left out: the URL holds a password.
    let malformed = |_| shared::config::malformed("DATABASE_URL", "postgres://user:password@host/database", &"a URL");
    store::connect(config.database_url()?, 1).map_err(malformed).map_err(Into::into)
}
