//! The database connections of a one-shot command: a pool with two connections, each opened when needed. Pricing chats anew needs two.

use sqlx::postgres::PgPool;

use crate::config::Config;
use crate::store;

pub(super) fn pool(config: &Config) -> anyhow::Result<PgPool> {
    // The details of a malformed URL are left out: the URL holds a password.
    let malformed = |_| shared::config::malformed("DATABASE_URL", "postgres://user:password@host/database", &"a URL");
    store::connect(config.database_url()?, 2).map_err(malformed).map_err(Into::into)
}
