//! Creating and changing projects.

use std::sync::Arc;

use shared::access::ProjectState;
use shared::event::{Event, ProjectChanged, ProjectSettings};
use shared::id::{ChangeId, ProjectId, UserId};
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::bucket::AccessBucket;
use super::change::{ChangeError, States};
use crate::store::projects;

/// The maximum number of projects of a deployment: every gateway has all of them in memory.
pub const MAX_PROJECTS: i64 = 10_000;
/// The maximum number of members of a project.
pub const MAX_MEMBERS: usize = 500;
/// The maximum length of a project's name, in characters.
const MAX_NAME_CHARACTERS: usize = 100;

/// Reads, creates and changes projects.
#[derive(Debug)]
pub struct AccessProjects(States);

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
    /// The project could not be read or changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
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
        Self(States { pool, bucket })
    }

    /// Creates a project. Returns after the event and the project's entry are durable.
    pub async fn create(&self, by: &UserId, settings: ProjectSettings) -> Result<ProjectState, ProjectError> {
        let settings = checked(settings)?;
        if projects::count(&self.0.pool, MAX_PROJECTS).await.map_err(ChangeError::from)? >= MAX_PROJECTS {
            return Err(ProjectError::TooMany);
        }
        self.record(ProjectId::mint(), by, settings, None).await
    }

    /// Changes the settings of a project; none for a project that does not exist. Returns after the event and the project's entry
    /// are durable. Fails without the broker, because a change has to get a greater id.
    pub async fn change(
        &self,
        id: ProjectId,
        by: &UserId,
        change: impl FnOnce(&mut ProjectSettings),
    ) -> Result<Option<ProjectState>, ProjectError> {
        let Some(present) = self.0.present::<ProjectState>(&id).await? else { return Ok(None) };
        let mut settings = present.settings.clone();
        change(&mut settings);
        if settings == present.settings {
            self.0.put(present.clone()).await?;
            return Ok(Some(present));
        }
        self.record(id, by, checked(settings)?, Some(present)).await.map(Some)
    }

    /// Finds a project, in the bucket and in the table.
    pub async fn find(&self, id: ProjectId) -> Result<Option<ProjectState>, ProjectError> {
        Ok(self.0.find(&id).await?)
    }

    /// Returns the project if keys of the user may be issued in it. A project that does not exist fails like one of others.
    pub async fn for_key_of(&self, owner: &UserId, id: ProjectId) -> Result<ProjectId, ProjectError> {
        let found = self.find(id).await?.filter(|project| project.settings.accepts(owner));
        found.map(|project| project.project_id).ok_or(ProjectError::Invalid {
            field: "projectId",
            expected: "expected a project that is not disabled, and of which the owner of the key is a member",
        })
    }

    async fn record(
        &self,
        project_id: ProjectId,
        by: &UserId,
        settings: ProjectSettings,
        present: Option<ProjectState>,
    ) -> Result<ProjectState, ProjectError> {
        let event = Event::ProjectChanged(Box::new(ProjectChanged {
            change_id: ChangeId::after(present.as_ref().map_or(Uuid::nil(), |present| present.change_id)),
            project_id,
            changed_at: shared::event::now(),
            changed_by: by.clone(),
            settings,
            restored: None,
        }));
        let state = self.0.record(&event, present).await?;
        tracing::info!(project = %project_id, by = %by, "a project was created or changed");
        Ok(state)
    }
}
