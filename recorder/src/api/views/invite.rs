//! The JSON shape of invites.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::user::UserRole;
use crate::store::invite_codes;

/// An invite, without its code.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Invite {
    /// The id.
    id: Uuid,
    /// What it is for.
    note: Option<String>,
    /// The role of accounts made with it.
    role: Option<UserRole>,
    /// The id of who made it; null: an operator.
    created_by: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// How many accounts may be made with it.
    max_uses: i32,
    /// How many have been.
    uses: i32,
    /// Since when it is good for nothing.
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
}

impl From<invite_codes::Invite> for Invite {
    fn from(invite: invite_codes::Invite) -> Self {
        Self {
            id: invite.invite_id,
            note: invite.note,
            role: invite.role.map(UserRole::from),
            created_by: invite.created_by,
            created_at: invite.created_at,
            expires_at: invite.expires_at,
            max_uses: invite.max_uses,
            uses: invite.uses,
            revoked_at: invite.revoked_at,
        }
    }
}
