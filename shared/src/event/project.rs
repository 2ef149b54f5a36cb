//! The event for the settings of a project.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::restored::Restored;
use crate::id::{ChangeId, ProjectId, UserId};

/// The settings of a project: everything about a project that can change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProjectSettings {
    /// The name, for people.
    pub name: String,
    /// The users whose keys of the project are accepted, and who may see its usage. Left out for a project without members.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub members: BTreeSet<UserId>,
    /// True if the keys of the project are refused. Left out if they are not.
    #[serde(default, rename = "disabled", skip_serializing_if = "std::ops::Not::not")]
    pub is_disabled: bool,
}

impl ProjectSettings {
    /// Returns true if keys of the project that belong to the user are accepted.
    pub fn accepts(&self, owner: &UserId) -> bool {
        !self.is_disabled && self.members.contains(owner)
    }
}

/// A project was created or changed. Of two changes, the change with the greater id applies, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProjectChanged {
    /// The id of the change.
    pub change_id: ChangeId,
    /// The project.
    pub project_id: ProjectId,
    /// The time of the change.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub changed_at: OffsetDateTime,
    /// The administrator who made the change; `cli` for the command line.
    pub changed_by: UserId,
    /// All settings of the project from now on.
    pub settings: ProjectSettings,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}
