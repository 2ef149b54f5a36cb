//! A second set of the projected tables, in a schema of its own: what the log is projected into while the tables that
//! everyone uses stay as they are.
//!
//! The statements of the store name tables without a schema, so one search path more or less is all that tells a projection
//! into the shadow from one into the live tables. What the live tables are made of is read from the catalogue, so that a
//! column, an index or a grant that was added later is never left behind.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use crate::projection::tables::Table;

/// What a session that fills a shadow starts with: it may take its time, but never make others wait for long.
const SESSION_SQL: &str = "SET statement_timeout = 0; \
     SET idle_in_transaction_session_timeout = 0; \
     SET lock_timeout = '5s'; \
     SET synchronous_commit = off; \
     SET timezone = 'UTC'; \
     SET maintenance_work_mem = '256MB'";

/// How long the swap waits for each lock before it lets everyone pass and tries again: less than the second after which
/// PostgreSQL looks for deadlocks, so that it is never a reader who has to give way.
const FENCE_SQL: &str = "SET LOCAL lock_timeout = '400ms'; \
     SET LOCAL statement_timeout = '3s'; \
     SET LOCAL synchronous_commit = on";

/// A second set of the projected tables.
#[derive(Clone, Debug)]
pub struct ShadowSchema {
    /// The schema of the live tables, quoted where it has to be.
    live: String,
    /// The schema of its own.
    schema: String,
    purpose: ShadowPurpose,
}

/// What a shadow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowPurpose {
    /// To be compared with, and dropped: it need not survive a crash.
    Compare,
    /// To stay beside the live tables.
    Separate,
    /// To take the live tables' place.
    Replace,
}

/// Why there is no shadow.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// Another one is at it.
    #[error("another {0} is running on this database")]
    Running(&'static str),
    /// Something depends on the live tables, and would go on reading the old ones.
    #[error("{} would be left with the old tables: drop what depends on them first, and make it again afterwards", .0.join(", "))]
    Dependents(Vec<String>),
    /// Not the owner.
    #[error("this role does not own the tables: expected the one that ran `recorder migrate`")]
    NotOwner,
    /// Someone changed the tables meanwhile.
    #[error("the tables were altered meanwhile (a migration?): start again")]
    Altered,
    /// The schema that was asked for is there.
    #[error("schema {0} is there already: expected the name of a new one")]
    Exists(String),
    /// The database's own trouble.
    #[error("the database: {}", super::fault::describe(.0))]
    Database(#[from] sqlx::Error),
}

/// Takes the right to be the only one at this work, for as long as the connection lives; prepares the session.
pub async fn lock_exclusive_run(connection: &mut PgConnection, what: &'static str) -> Result<(), ShadowError> {
    connection.execute(SESSION_SQL).await?;
    let free: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('stenograph ' || $1, 0))")
        .bind(what)
        .fetch_one(connection)
        .await?;
    if free { Ok(()) } else { Err(ShadowError::Running(what)) }
}

impl ShadowSchema {
    /// Makes the tables, without anything in them and with no index but their keys. What an earlier run left behind under
    /// this name is dropped: only the holder of the right of [`lock_exclusive_run`] uses it.
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

    /// Sends the store's statements here, and nowhere else: one that writes what is not the record would fail.
    pub async fn enter(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        run(connection, &format!("SET search_path = {}", self.schema)).await
    }

    /// Sends the store's statements to the live tables again.
    pub async fn leave(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        run(connection, &format!("SET search_path = {}", self.live)).await
    }

    /// A live table's name, with its schema.
    pub fn live_table(&self, table: Table) -> String {
        format!("{}.{}", self.live, table.name())
    }

    /// The name of its counterpart here, with its schema.
    pub fn shadow_table(&self, table: Table) -> String {
        format!("{}.{}", self.schema, table.name())
    }

    /// Makes everything that the tables have beside their keys: indexes, comments, grants; and looks at what is in them.
    pub async fn create_indexes(&self, connection: &mut PgConnection) -> Result<(), ShadowError> {
        for table in Table::ALL {
            for statement in self.statements(connection, table, INDEXES_AND_GRANTS_SQL).await? {
                run(connection, &statement).await?;
            }
            run(connection, &format!("ANALYZE {}", self.shadow_table(table))).await?;
        }
        Ok(())
    }

    /// Keeps everyone from the live tables until the transaction ends; fails soon where someone is busy with them.
    pub async fn fence(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        tx.execute(FENCE_SQL).await?;
        let tables = Table::ALL.map(|table| self.live_table(table)).join(", ");
        run(tx, &format!("LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")).await
    }

    /// Keeps the live tables what they are, for a reader; to be called before a snapshot is taken.
    pub async fn share_lock_live_tables(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let tables = Table::ALL.map(|table| self.live_table(table)).join(", ");
        run(tx, &format!("LOCK TABLE {tables} IN ACCESS SHARE MODE")).await
    }

    /// Puts these tables in the place of the live ones, inside the transaction that holds the fence.
    pub async fn replace_live_tables(&self, tx: &mut PgConnection) -> Result<(), ShadowError> {
        for table in Table::ALL {
            if self.columns(tx, &self.live_table(table)).await? != self.columns(tx, &self.shadow_table(table)).await? {
                return Err(ShadowError::Altered);
            }
            // None while the shadow is filled: what they tell others of was told when it happened.
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

    /// Leaves the tables there for good, under another name.
    pub async fn rename(&self, connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
        run(connection, &format!("ALTER SCHEMA {} RENAME TO \"{name}\"", self.schema)).await
    }

    /// Drops the tables, if there are any.
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

    /// The statements that make a part of a table here as it is there.
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

/// Whether there is a schema of this name.
pub async fn exists(connection: &mut PgConnection, schema: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(connection)
        .await
}

/// Runs a statement that is made here of names that PostgreSQL gave us, or that were checked.
async fn run(connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.map(drop)
}

/// $1 the live table, $2 its counterpart, $3 UNLOGGED or nothing.
const CREATE_TABLE_SQL: &str = "
    SELECT format('CREATE %sTABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES)%s', $3, $2, $1,
                  ' WITH (' || array_to_string(reloptions, ', ') || ')')
    FROM pg_class WHERE oid = $1::text::regclass
    UNION ALL
    (SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', $2, conname, pg_get_constraintdef(oid))
     FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u', 'x') ORDER BY contype, conname)";

/// The same parameters.
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

/// The same parameters.
const TRIGGERS_SQL: &str = "
    SELECT pg_get_triggerdef(oid) FROM pg_trigger
    WHERE tgrelid = $1::text::regclass AND NOT tgisinternal AND $2::text IS NOT NULL AND $3::text IS NOT NULL";

/// $1 the live tables.
const DEPENDENTS_SQL: &str = "
    SELECT DISTINCT 'view ' || pg_rewrite.ev_class::regclass::text
    FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = pg_depend.objid
    WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass
      AND refobjid = ANY($1::text[]::regclass[]::oid[])
    UNION
    SELECT 'foreign key ' || conname || ' of ' || conrelid::regclass::text
    FROM pg_constraint WHERE contype = 'f' AND confrelid = ANY($1::text[]::regclass[]::oid[])";
