//! The connection to the database that a command uses.

use sqlx::postgres::PgPool;

use crate::config::Config;
use crate::store;

pub(super) fn pool(config: &Config) -> anyhow::Result<PgPool> {
    // What is wrong with a URL is not repeated: there is a password in it.
    let malformed = |_| shared::config::malformed("DATABASE_URL", "postgres://user:password@host/database", &"a URL");
    store::connect(config.database_url()?, 1).map_err(malformed).map_err(Into::into)
}
