//! The event for the limits of a scope: how much of the deployment a user, project, key or model may use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::budget::Budget;
use crate::event::restored::Restored;
use crate::id::{ChangeId, KeyId, ProjectId, UserId};

/// The calls that a set of limits counts together. As text: `deployment`, `everyone`, `user:ID`, `project:ID`, `key:ID` or
/// `model:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
pub enum LimitScope {
    /// All calls of the deployment, counted together.
    Deployment,
    /// The default of each user: the calls of each user are counted apart. A limit of the user's own replaces the default.
    Everyone,
    /// The calls of one user, with sessions and keys alike.
    User(UserId),
    /// The calls with the keys of one project.
    Project(ProjectId),
    /// The calls with one API key.
    Key(KeyId),
    /// The calls that name one model, as the request names it.
    Model(String),
}

/// The error for a text that is no scope.
#[derive(Debug, thiserror::Error)]
#[error("expected deployment, everyone, user:ID, project:ID, key:ID, or model:NAME with a name of 1 to 256 bytes")]
pub struct InvalidLimitScope;

/// The limits of a scope. A limit that is left out does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub struct UsageLimits {
    /// The maximum number of calls that begin in a minute of the clock (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// The maximum number of tokens, of prompts and answers together, in a minute of the clock (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// The maximum number of calls that run at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_chats: Option<u64>,
    /// The money that the calls may cost in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Box<Budget>>,
}

/// A change of the limits of a scope. Of two changes, the change with the greater id applies, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LimitsChanged {
    /// The id of the change.
    pub change_id: ChangeId,
    /// The scope.
    pub scope: LimitScope,
    /// The time of the change.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub changed_at: OffsetDateTime,
    /// The administrator who made the change; `cli` for the command line.
    pub changed_by: UserId,
    /// All limits of the scope from now on. Without any limit, the scope is unlimited.
    pub limits: UsageLimits,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

impl LimitScope {
    /// The maximum length of a model's name in a scope, in bytes.
    pub const MAX_MODEL_BYTES: usize = 256;
}

impl UsageLimits {
    /// The greatest limit. A greater limit in an event counts as this one.
    pub const MAX: u64 = 1_000_000_000_000;

    /// Returns true if the scope is unlimited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment => f.write_str("deployment"),
            Self::Everyone => f.write_str("everyone"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Project(id) => write!(f, "project:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Model(name) => write!(f, "model:{name}"),
        }
    }
}

impl FromStr for LimitScope {
    type Err = InvalidLimitScope;

    fn from_str(text: &str) -> Result<Self, InvalidLimitScope> {
        match text {
            "deployment" => return Ok(Self::Deployment),
            "everyone" => return Ok(Self::Everyone),
            _ => {}
        }
        let (kind, id) = text.split_once(':').ok_or(InvalidLimitScope)?;
        match kind {
            "user" => id.parse().map(Self::User).map_err(|_| InvalidLimitScope),
            "project" => id.parse().map(Self::Project).map_err(|_| InvalidLimitScope),
            "key" => id.parse().map(Self::Key).map_err(|_| InvalidLimitScope),
            "model" if (1..=Self::MAX_MODEL_BYTES).contains(&id.len()) && !id.chars().any(char::is_control) => {
                Ok(Self::Model(id.to_owned()))
            }
            _ => Err(InvalidLimitScope),
        }
    }
}

impl TryFrom<String> for LimitScope {
    type Error = InvalidLimitScope;

    fn try_from(text: String) -> Result<Self, InvalidLimitScope> {
        text.parse()
    }
}

impl From<LimitScope> for String {
    fn from(scope: LimitScope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        let id = "01936b6e-2f00-7abc-8def-0123456789ab";
        for text in ["deployment", "everyone", "user:a|b:c", &format!("project:{id}"), &format!("key:{id}"), "model:o3"]
        {
            assert_eq!(text.parse::<LimitScope>().unwrap().to_string(), text);
        }
        for text in ["", "user", "user:", "team:1", "project:1", "model:", "model:a\nb", "Deployment"] {
            assert!(text.parse::<LimitScope>().is_err(), "{text:?}");
        }
    }
}
