//! Connection pools, and the migrations that bring a database's tables to this build's version.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::migrate::{Migrate as _, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::users;

/// The migrations, embedded in the binary.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// The settings of every session. Without `synchronous_commit`, a crash of the server could lose a commit after its
/// events have been acknowledged to the broker. The timeouts keep a stuck session from blocking all other sessions.
const SESSION_SQL: &str = "SET synchronous_commit = on; \
     SET default_transaction_isolation = 'read committed'; \
     SET lock_timeout = '5s'; \
     SET statement_timeout = '30s'; \
     SET idle_in_transaction_session_timeout = '60s'";

/// The maximum wait for a free connection from the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the recorder's pool. Connections are opened on first use, so an unreachable server is no error here.
pub fn connect(url: &SecretString, connections: u32) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let options = options.application_name("stenograph-recorder");
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).after_connect(
        |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION_SQL).execute(connection).await?;
                Ok(())
            })
        },
    );
    Ok(pool.connect_lazy_with(options))
}

/// Makes the API's pool for reads on behalf of users. Query filters are optional, so each query is planned for its
/// actual parameters; and the statement timeout is 10 s, because a user waits for the answer.
pub fn connect_for_reads(url: &SecretString, connections: u32) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let options = options.application_name("stenograph-api");
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).after_connect(
        |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION_SQL).execute(&mut *connection).await?;
                sqlx::raw_sql("SET statement_timeout = '10s'; SET plan_cache_mode = force_custom_plan; SET jit = off")
                    .execute(connection)
                    .await?;
                Ok(())
            })
        },
    );
    Ok(pool.connect_lazy_with(options))
}

/// Applies missing migrations. Concurrent callers are safe: one applies the migrations, the others wait.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    // A migration may run long, and may wait long for the lock of another migration.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0").execute(&mut *connection).await?;
    let mut migrated = MIGRATIONS.run(&mut *connection).await;
    if migrated.is_ok() {
        migrated = users::fill_name_keys(&mut connection).await.map_err(MigrateError::Execute);
    }
    connection.close().await?;
    migrated
}

/// The versions of this build's migrations that the database does not have. Migrations unknown to this build are
/// ignored, because old and new builds run side by side during a rolling deployment.
pub async fn missing_migrations(pool: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let has_any: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    let done = if has_any {
        let done = connection.list_applied_migrations("_sqlx_migrations").await;
        done.map_err(|error| sqlx::Error::Migrate(Box::new(error)))?
    } else {
        Vec::new()
    };
    Ok(MIGRATIONS.iter().map(|ours| ours.version).filter(|v| !done.iter().any(|done| done.version == *v)).collect())
}

/// Closes the idle connections of the pool. After a failover, sessions on the old primary stay read-only, so the new
/// primary is reached only by new connections.
pub async fn reconnect(pool: &PgPool) {
    while let Some(connection) = pool.try_acquire() {
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "cannot close an idle connection to the database cleanly");
        }
    }
}
