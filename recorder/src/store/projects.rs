//! Statements for the `projects` table. Projects change seldom, so each row has its own statements.

use std::collections::BTreeMap;

use shared::access::{Act, ProjectState};
use shared::event::ProjectSettings;
use shared::id::{ProjectId, UserId};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::read::{UnreadableColumn, user_id, utc};
use super::stored_row::StoredRow;

/// A query for whole rows; `$tail` follows the table's name.
macro_rules! rows_where {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            ProjectRow,
            "SELECT project_id, change_id, changed_at, changed_by, name, members, is_disabled FROM projects " + $tail
            $(, $argument)*
        )
    };
}

impl StoredRow for ProjectState {
    async fn insert(&self, tx: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query!(
            "INSERT INTO projects (project_id, change_id, changed_at, changed_by, name, members, is_disabled)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project_id) DO NOTHING",
            self.project_id.0,
            self.change_id,
            self.changed.at,
            self.changed.by,
            self.settings.name,
            &members(self),
            self.settings.is_disabled
        );
        Ok(inserted.execute(tx).await?.rows_affected() == 1)
    }

    async fn lock(tx: &mut PgConnection, key: &ProjectId) -> Result<Self, sqlx::Error> {
        Ok(rows_where!("WHERE project_id = $1 FOR UPDATE", key.0).fetch_one(tx).await?.read()?)
    }

    async fn update(&self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "UPDATE projects SET change_id = $2, changed_at = $3, changed_by = $4, name = $5, members = $6, is_disabled = $7
             WHERE project_id = $1",
            self.project_id.0,
            self.change_id,
            self.changed.at,
            self.changed.by,
            self.settings.name,
            &members(self),
            self.settings.is_disabled
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

fn members(state: &ProjectState) -> Vec<String> {
    state.settings.members.iter().map(ToString::to_string).collect()
}

/// Reads rows by project. Missing rows are left out.
pub async fn by_ids(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<BTreeMap<ProjectId, ProjectState>, sqlx::Error> {
    let rows = rows_where!("WHERE project_id = ANY($1)", ids).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((ProjectId(row.project_id), row.read()?))).collect()
}

/// Reads up to `limit` projects after the project `after`, in the order of their ids, which is that of their creation.
pub async fn page(pool: &PgPool, after: Uuid, limit: i64) -> Result<Vec<ProjectState>, sqlx::Error> {
    let rows = rows_where!("WHERE project_id > $1 ORDER BY project_id LIMIT $2", after, limit).fetch_all(pool).await?;
    rows.into_iter().map(|row| Ok(row.read()?)).collect()
}

/// Reads up to `limit` projects of which the user is a member, in the order of their creation.
pub async fn of_member(pool: &PgPool, user: &UserId, limit: i64) -> Result<Vec<ProjectState>, sqlx::Error> {
    let rows = rows_where!("WHERE members @> ARRAY[$1::text] ORDER BY project_id LIMIT $2", user.as_str(), limit);
    rows.fetch_all(pool).await?.into_iter().map(|row| Ok(row.read()?)).collect()
}

/// The number of projects, counted up to `most`.
pub async fn count(pool: &PgPool, most: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM (SELECT FROM projects LIMIT $1) projects"#, most)
        .fetch_one(pool)
        .await
}

/// Reads all rows of the table.
pub(super) async fn read_all(connection: &mut PgConnection) -> Result<BTreeMap<ProjectId, ProjectState>, sqlx::Error> {
    let rows = rows_where!("").fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((ProjectId(row.project_id), row.read()?))).collect()
}

struct ProjectRow {
    project_id: Uuid,
    change_id: Uuid,
    changed_at: OffsetDateTime,
    changed_by: String,
    name: String,
    members: Vec<String>,
    is_disabled: bool,
}

impl ProjectRow {
    fn read(self) -> Result<ProjectState, UnreadableColumn> {
        let members: Result<_, _> = self.members.into_iter().map(user_id).collect();
        Ok(ProjectState {
            project_id: ProjectId(self.project_id),
            change_id: self.change_id,
            changed: Act { at: utc(self.changed_at), by: self.changed_by },
            settings: ProjectSettings { name: self.name, members: members?, is_disabled: self.is_disabled },
        })
    }
}
