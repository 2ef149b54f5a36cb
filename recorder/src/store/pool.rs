//! Pools of connections, and the migrations that bring a database's tables to this build's version.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::migrate::{Migrate as _, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// The migrations, in the binary.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// What every session starts with. Without the first, a commit that was reported could be lost with the server, after its
/// events have been acknowledged. The timeouts keep a stuck session from holding up all the others.
const SESSION_SQL: &str = "SET synchronous_commit = on; \
     SET default_transaction_isolation = 'read committed'; \
     SET lock_timeout = '5s'; \
     SET statement_timeout = '30s'; \
     SET idle_in_transaction_session_timeout = '60s'";

/// How long to wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool that connects when it is first used.
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

/// A pool for reading on someone's behalf: queries have filters that may or may not be set, so that each is planned for what
/// it asks; and none may take long, because someone waits.
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

/// Brings the tables to this build's version. Any number may try at once: one does it, the others wait.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    // A migration may take its time, and may have to wait for its turn.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0").execute(&mut *connection).await?;
    let migrated = MIGRATIONS.run(&mut *connection).await;
    connection.close().await?;
    migrated
}

/// The migrations that this build needs and the database has not had. Ones that this build does not know are no matter:
/// the old code runs beside the new while a deployment rolls.
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

/// Closes the connections that are not in use. A server that became read-only stays so for the sessions that it has: after a
/// failover the one to write to is found by connecting anew.
pub async fn reconnect(pool: &PgPool) {
    while let Some(connection) = pool.try_acquire() {
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "a connection to the database did not close in good order");
        }
    }
}
