//! Shadow schemas: a second set of the projected tables, into which the log is projected while the live tables stay in
//! use.
//!
//! The statements of the store name tables without a schema, so only the search path of the connection decides between
//! shadow and live tables. The definitions of the live tables are read from PostgreSQL's catalogue, so that columns,
//! indexes and grants added later are always copied.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use crate::projection::tables::Table;

/// The settings of a session that fills a shadow: statements may run long, but waits for locks are short so that other
/// sessions are never blocked for long.
const SESSION_SQL: &str = "SET statement_timeout = 0; \
     SET idle_in_transaction_session_timeout = 0; \
     SET lock_timeout = '5s'; \
     SET synchronous_commit = off; \
     SET timezone = 'UTC'; \
     SET maintenance_work_mem = '256MB'";

/// The timeouts of the swap. Each lock is awaited for 400 ms before the swap gives up, lets the waiting sessions pass,
/// and is tried again. The timeout is below the one second after which PostgreSQL looks for deadlocks, so that
/// PostgreSQL never aborts a reader instead.
const FENCE_SQL: &str = "SET LOCAL lock_timeout = '400ms'; \
     SET LOCAL statement_timeout = '3s'; \
     SET LOCAL synchronous_commit = on";

/// A second set of the projected tables.
#[derive(Clone, Debug)]
pub struct ShadowSchema {
    /// The schema of the live tables, quoted where necessary.
    live: String,
    /// The schema of the shadow tables.
    schema: String,
    purpose: ShadowPurpose,
}

/// The purpose of a shadow, which decides on durability and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowPurpose {
    /// Comparison with the live tables. The shadow is dropped afterwards and is unlogged, because no crash needs to be
    /// survived.
    Compare,
    /// A copy beside the live tables.
    Separate,
    /// A replacement of the live tables.
    Replace,
}

/// The reasons for which a shadow cannot be created or used.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// Another process holds the lock of the same kind of run.
    #[error("another {0} is running on this database")]
    Running(&'static str),
    /// Views or foreign keys depend on the live tables, and would keep reading the old tables after the swap.
    #[error("{} would be left with the old tables: drop each dependent before the rebuild, and create each again afterwards", .0.join(", "))]
    Dependents(Vec<String>),
    /// The role is not the owner of the live tables.
    #[error("the role of DATABASE_URL does not own the tables: use the role that ran `recorder migrate`")]
    NotOwner,
    /// The live tables were altered while the shadow was filled.
    #[error("the live tables were altered during the rebuild, perhaps by a migration: start the rebuild again")]
    Altered,
    /// The requested schema exists.
    #[error("schema {0} already exists: give the name of a new schema")]
    Exists(String),
    /// The database reported an error.
    #[error("database error: {}", super::fault::describe(.0))]
    Database(#[from] sqlx::Error),
}

/// Takes an advisory lock for a kind of run, such as `rebuild`, and prepares the session. The lock is held until the
/// connection closes. Fails with [`ShadowError::Running`] when another process holds the lock.
pub async fn lock_exclusive_run(connection: &mut PgConnection, what: &'static str) -> Result<(), ShadowError> {
    connection.execute(SESSION_SQL).await?;
    let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('stenograph ' || $1, 0))")
        .bind(what)
        .fetch_one(connection)
        .await?;
    if free { Ok(()) } else { Err(ShadowError::Running(what)) }
}

impl ShadowSchema {
    /// Creates the shadow tables, empty and with no indexes except for keys. A shadow left by an earlier run under the
    /// same name is dropped first: the name belongs to the holder of the lock from [`lock_exclusive_run`].
    pub async fn create(
        connection: &mut PgConnection,
        schema: &str,
        purpose: ShadowPurpose,
    ) -> Result<Self, ShadowError> {
        let live: String = sqlx::query_scalar(
            "SELECT quote_ident(nspname) FROM pg_namespace WHERE oid = \
             (SELECT relnamespace FROM pg_class WHERE oid = to_regclass($1))",
        )
        .bind(Table::Chats.name())
        .fetch_one(&mut *connection)
        .await?;
        let shadow = Self { live, schema: schema.to_owned(), purpose };
        if purpose == ShadowPurpose::Replace {
            shadow.check_replaceable(connection).await?;
        }
        shadow.drop(connection).await?;
        let mut tx = connection.begin().await?;
        run(&mut tx, &format!("CREATE SCHEMA {}", shadow.schema)).await?;
        for table in Table::ALL {
            for statement in shadow.statements(&mut tx, table, CREATE_TABLE_SQL).await? {
                run(&mut tx, &statement).await?;
            }
        }
        tx.commit().await?;
        Ok(shadow)
    }

    /// Points the connection's search path to the shadow alone. A statement for a table outside the shadow then fails.
    pub async fn enter(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        run(connection, &format!("SET search_path = {}", self.schema)).await
    }

    /// Points the connection's search path back to the live tables.
    pub async fn leave(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        run(connection, &format!("SET search_path = {}", self.live)).await
    }

    /// The name of a live table, with the schema.
    pub fn live_table(&self, table: Table) -> String {
        format!("{}.{}", self.live, table.name())
    }

    /// The name of a shadow table, with the schema.
    pub fn shadow_table(&self, table: Table) -> String {
        format!("{}.{}", self.schema, table.name())
    }

    /// Adds indexes, comments, the owner and grants to the filled shadow tables, and runs ANALYZE.
    pub async fn create_indexes(&self, connection: &mut PgConnection) -> Result<(), ShadowError> {
        for table in Table::ALL {
            for statement in self.statements(connection, table, INDEXES_AND_GRANTS_SQL).await? {
                run(connection, &statement).await?;
            }
            run(connection, &format!("ANALYZE {}", self.shadow_table(table))).await?;
        }
        Ok(())
    }

    /// Locks the live tables exclusively until the transaction ends. Fails after 400 ms for each lock when another
    /// session uses the tables.
    pub async fn fence(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        tx.execute(FENCE_SQL).await?;
        let tables = Table::ALL.map(|table| self.live_table(table)).join(", ");
        run(tx, &format!("LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")).await
    }

    /// Locks the live tables against being dropped or altered, without blocking reads or writes. Must be called before
    /// the transaction's snapshot is taken.
    pub async fn share_lock_live_tables(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let tables = Table::ALL.map(|table| self.live_table(table)).join(", ");
        run(tx, &format!("LOCK TABLE {tables} IN ACCESS SHARE MODE")).await
    }

    /// Replaces the live tables by the shadow tables, inside the transaction that holds the fence. Fails with
    /// [`ShadowError::Altered`] when the columns differ.
    pub async fn replace_live_tables(&self, tx: &mut PgConnection) -> Result<(), ShadowError> {
        for table in Table::ALL {
            if self.columns(tx, &self.live_table(table)).await? != self.columns(tx, &self.shadow_table(table)).await? {
                return Err(ShadowError::Altered);
            }
            // The shadow has no triggers while being filled: the listeners were informed when the live rows were
            // written.
            let triggers = self.statements(tx, table, TRIGGERS_SQL).await?;
            run(tx, &format!("DROP TABLE {}", self.live_table(table))).await?;
            run(tx, &format!("ALTER TABLE {} SET SCHEMA {}", self.shadow_table(table), self.live)).await?;
            for statement in triggers {
                run(tx, &statement).await?;
            }
        }
        run(tx, &format!("DROP SCHEMA {}", self.schema)).await?;
        Ok(())
    }

    /// Keeps the shadow under another schema name.
    pub async fn rename(&self, connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
        run(connection, &format!("ALTER SCHEMA {} RENAME TO \"{name}\"", self.schema)).await
    }

    /// Drops the shadow schema, if the schema exists.
    pub async fn drop(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        run(connection, &format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema)).await
    }

    async fn check_replaceable(&self, connection: &mut PgConnection) -> Result<(), ShadowError> {
        let tables = Table::ALL.map(|table| self.live_table(table)).to_vec();
        let dependents: Vec<String> =
            sqlx::query_scalar(DEPENDENTS_SQL).bind(&tables).fetch_all(&mut *connection).await?;
        if !dependents.is_empty() {
            return Err(ShadowError::Dependents(dependents));
        }
        let owned: bool = sqlx::query_scalar(
            "SELECT bool_and(pg_has_role(relowner, 'USAGE')) FROM pg_class WHERE oid = ANY($1::regclass[]::oid[])",
        )
        .bind(&tables)
        .fetch_one(connection)
        .await?;
        if owned { Ok(()) } else { Err(ShadowError::NotOwner) }
    }

    /// Generates the statements that copy a part of a live table's definition to the shadow table.
    async fn statements(
        &self,
        connection: &mut PgConnection,
        table: Table,
        sql: &'static str,
    ) -> sqlx::Result<Vec<String>> {
        let unlogged = if self.purpose == ShadowPurpose::Compare { "UNLOGGED " } else { "" };
        let query = sqlx::query(sql).bind(self.live_table(table)).bind(self.shadow_table(table)).bind(unlogged);
        let rows: Vec<PgRow> = query.fetch_all(connection).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    async fn columns(&self, connection: &mut PgConnection, table: &str) -> sqlx::Result<Vec<String>> {
        sqlx::query_scalar(
            "SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull) FROM pg_attribute \
             WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname",
        )
        .bind(table)
        .fetch_all(connection)
        .await
    }
}

/// Returns true when a schema of this name exists.
pub async fn exists(connection: &mut PgConnection, schema: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(connection)
        .await
}

/// Runs a generated statement. All names inside come from PostgreSQL's catalogue or have been validated.
async fn run(connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.map(drop)
}

/// Parameters: $1 is the live table, $2 the shadow table, $3 `UNLOGGED ` or an empty string.
const CREATE_TABLE_SQL: &str = "
    SELECT format('CREATE %sTABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES)%s', $3, $2, $1,
                  ' WITH (' || array_to_string(reloptions, ', ') || ')')
    FROM pg_class WHERE oid = $1::text::regclass
    UNION ALL
    (SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2, conname, pg_get_constraintdef(oid))
     FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u', 'x') ORDER BY contype, conname)";

/// Takes the parameters of [`CREATE_TABLE_SQL`].
const INDEXES_AND_GRANTS_SQL: &str = "
    WITH indexes AS (
        SELECT indexrelid, indexrelid::regclass::oid AS oid, relname
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = $1::text::regclass
    ), own AS (SELECT split_part($2, '.', 1) AS schema)
    SELECT replace(pg_get_indexdef(indexrelid), ' ON ' || $1 || ' ', ' ON ' || $2 || ' ')
    FROM indexes WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT format('COMMENT ON INDEX %s.%I IS %L', own.schema, relname, obj_description(oid, 'pg_class'))
    FROM indexes, own WHERE obj_description(oid, 'pg_class') IS NOT NULL
    UNION ALL
    SELECT format('COMMENT ON TABLE %s IS %L', $2, obj_description(oid, 'pg_class'))
    FROM pg_class WHERE oid = $1::text::regclass AND obj_description(oid, 'pg_class') IS NOT NULL
    UNION ALL
    SELECT format('ALTER TABLE %s OWNER TO %I', $2, pg_get_userbyid(relowner))
    FROM pg_class WHERE oid = $1::text::regclass
    UNION ALL
    SELECT format('GRANT %s ON %s TO %s%s', privilege_type, $2,
                  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = $1::text::regclass AND grantee <> relowner
      AND $3::text IS NOT NULL";

/// Takes the parameters of [`CREATE_TABLE_SQL`].
const TRIGGERS_SQL: &str = "
    SELECT pg_get_triggerdef(oid) FROM pg_trigger
    WHERE tgrelid = $1::text::regclass AND NOT tgisinternal AND $2::text IS NOT NULL AND $3::text IS NOT NULL";

/// Takes one parameter: $1 is the list of live tables.
const DEPENDENTS_SQL: &str = "
    SELECT DISTINCT 'view ' || pg_rewrite.ev_class::regclass::text
    FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = pg_depend.objid
    WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
      AND refobjid = ANY($1::text[]::regclass[]::oid[])
    UNION
    SELECT 'foreign key ' || conname || ' of ' || conrelid::regclass::text
    FROM pg_constraint WHERE contype = 'f' AND confrelid = ANY($1::text[]::regclass[]::oid[])";
