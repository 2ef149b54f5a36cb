//! The JSON shape of users.

use serde::{Deserialize, Serialize};
use shared::token::Role;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::store::users;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    /// The id, as in events and tokens.
    pub(crate) id: String,
    /// The login name; null for a user of an external identity provider, of whom only the id is known.
    pub(crate) name: Option<String>,
    /// What they may do beyond their own record.
    pub(crate) role: Option<UserRole>,
    /// When the account was made.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) created_at: Option<OffsetDateTime>,
    /// Since when it is disabled.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) disabled_at: Option<OffsetDateTime>,
    /// The id of who invited them.
    pub(crate) invited_by: Option<String>,
}

/// What a user may do beyond their own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UserRole {
    /// Reads everyone's.
    Admin,
}

impl From<Role> for UserRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
        }
    }
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self {
            id: user.user_id.as_str().to_owned(),
            name: Some(user.name),
            role: user.role.map(UserRole::from),
            created_at: Some(user.created_at),
            disabled_at: user.disabled_at,
            invited_by: user.invited_by,
        }
    }
}

impl User {
    /// Returns a user without an account, of whom only the id is known.
    pub(crate) fn unknown(id: String) -> Self {
        Self { id, name: None, role: None, created_at: None, disabled_at: None, invited_by: None }
    }
}
