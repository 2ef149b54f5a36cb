//! Creating and changing projects: each change is an event first, and then the project's entry in the bucket.
//!
//! A crash between the two heals: a recorder that projects the event writes the entry as well.

use std::sync::Arc;

use shared::access::{Act, Entry, ProjectState, project_name};
use shared::event::{Event, ProjectChanged, ProjectSettings};
use shared::id::{ChangeId, ProjectId, UserId};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::bucket::{AccessBucket, BucketError};
use super::publication::publish;
use crate::store::projects;

/// The maximum number of projects of a deployment: every gateway has all of them in memory.
pub const MAX_PROJECTS: i64 = 10_000;
/// The maximum number of members of a project.
pub const MAX_MEMBERS: usize = 500;
/// The maximum length of a project's name, in characters.
const MAX_NAME_CHARACTERS: usize = 100;

/// Reads, creates and changes projects.
#[derive(Debug)]
pub struct AccessProjects {
    pool: PgPool,
    bucket: Arc<AccessBucket>,
}

/// The reason for which a project was not read, created or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// A setting is invalid.
    #[error("{field}: {expected}")]
    Invalid {
        /// The name of the setting, as in the API.
        field: &'static str,
        /// The expected value.
        expected: &'static str,
    },
    /// The deployment has as many projects as it may have.
    #[error("there are {MAX_PROJECTS} projects, and there may be no more")]
    TooMany,
    /// The present settings could not be read from the bucket, so nothing was changed.
    #[error("{0}")]
    Present(BucketError),
    /// The broker did not acknowledge the event. If the event was stored all the same, recorders bring the bucket up to date.
    #[error("the broker did not acknowledge the change of the project: {0:#}")]
    Broker(anyhow::Error),
    /// The bucket could not be written. The event is on the record, and recorders bring the bucket up to date.
    #[error("{0}")]
    Entry(BucketError),
    /// The database failed.
    #[error("the database failed: {}", crate::store::describe(.0))]
    Database(#[from] sqlx::Error),
}

/// Returns the settings if they are within their bounds.
fn checked(settings: ProjectSettings) -> Result<ProjectSettings, ProjectError> {
    let length = settings.name.chars().count();
    if !(1..=MAX_NAME_CHARACTERS).contains(&length) || settings.name.chars().any(char::is_control) {
        let expected = "expected 1 to 100 characters, none of them control characters";
        return Err(ProjectError::Invalid { field: "name", expected });
    }
    if settings.members.len() > MAX_MEMBERS {
        return Err(ProjectError::Invalid { field: "members", expected: "expected at most 500 users" });
    }
    Ok(settings)
}

impl AccessProjects {
    /// Creates the projects over the table `projects` and the bucket.
    pub fn new(pool: PgPool, bucket: Arc<AccessBucket>) -> Self {
        Self { pool, bucket }
    }

    /// Creates a project. Returns after the event and the project's entry are durable.
    pub async fn create(&self, by: &UserId, settings: ProjectSettings) -> Result<ProjectState, ProjectError> {
        let settings = checked(settings)?;
        if projects::count(&self.pool, MAX_PROJECTS).await? >= MAX_PROJECTS {
            return Err(ProjectError::TooMany);
        }
        self.record(ProjectId::mint(), by, settings, Uuid::nil()).await
    }

    /// Changes the settings of a project; none for a project that does not exist. Returns after the event and the project's entry
    /// are durable. Fails without the broker, because a change has to get a greater id.
    pub async fn change(
        &self,
        id: ProjectId,
        by: &UserId,
        change: impl FnOnce(&mut ProjectSettings),
    ) -> Result<Option<ProjectState>, ProjectError> {
        let row = self.row(id).await?;
        let entry = self.bucket.get(&project_name(id)).await.map_err(ProjectError::Present)?;
        let Some(present) = joined(row, entry) else { return Ok(None) };
        let mut settings = present.settings.clone();
        change(&mut settings);
        if settings == present.settings {
            // The bucket may lack the change after a failure of an earlier call.
            self.bucket.put(&Entry::Project(Box::new(present.clone()))).await.map_err(ProjectError::Entry)?;
            return Ok(Some(present));
        }
        self.record(id, by, checked(settings)?, present.change_id).await.map(Some)
    }

    /// Finds a project, in the bucket and in the table: a change of just now may not be in the table yet. Without the broker, the
    /// table alone answers.
    pub async fn find(&self, id: ProjectId) -> Result<Option<ProjectState>, ProjectError> {
        let row = self.row(id).await?;
        match self.bucket.get(&project_name(id)).await {
            Ok(entry) => Ok(joined(row, entry)),
            Err(error) => {
                tracing::debug!(%error, "a project was read from the table alone");
                Ok(row)
            }
        }
    }

    /// Returns the project if keys of the user may be issued in it. A project that does not exist fails like one of others.
    pub async fn for_key_of(&self, owner: &UserId, id: ProjectId) -> Result<ProjectId, ProjectError> {
        let found = self.find(id).await?.filter(|project| project.settings.accepts(owner));
        found.map(|project| project.project_id).ok_or(ProjectError::Invalid {
            field: "projectId",
            expected: "expected a project that is not disabled, and of which the owner of the key is a member",
        })
    }

    async fn row(&self, id: ProjectId) -> Result<Option<ProjectState>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        Ok(projects::by_ids(&mut connection, &[id.0]).await?.remove(&id))
    }

    async fn record(
        &self,
        project_id: ProjectId,
        by: &UserId,
        settings: ProjectSettings,
        replaced: Uuid,
    ) -> Result<ProjectState, ProjectError> {
        let (change_id, changed_at) = (ChangeId::after(replaced), shared::event::now());
        let event = Event::ProjectChanged(Box::new(ProjectChanged {
            change_id,
            project_id,
            changed_at,
            changed_by: by.clone(),
            settings: settings.clone(),
        }));
        publish(self.bucket.client(), &event).await.map_err(ProjectError::Broker)?;
        let changed = Act { at: changed_at, by: by.to_string() };
        let state = ProjectState { project_id, change_id: change_id.0, changed, settings };
        self.bucket.put(&Entry::Project(Box::new(state.clone()))).await.map_err(ProjectError::Entry)?;
        tracing::info!(project = %project_id, by = %by, "a project was created or changed");
        Ok(state)
    }
}

fn joined(row: Option<ProjectState>, entry: Option<Entry>) -> Option<ProjectState> {
    match (row, entry) {
        (Some(mut row), Some(Entry::Project(entry))) => {
            row.join(*entry);
            Some(row)
        }
        (None, Some(Entry::Project(entry))) => Some(*entry),
        (row, _) => row,
    }
}
