//! The event of the audit log: an act that concerns access to the record, and that no other event says.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::restored::Restored;
use crate::id::{AuditId, UserId};
use crate::word::open_words;

/// The actor of an act without a user who is known: a login that failed.
pub const ANONYMOUS: &str = "anonymous";
/// The actor of an act of the command line, as in other events.
pub const COMMAND_LINE: &str = "cli";

open_words! {
    /// The kind of an act. Readers must accept words that they do not know.
    pub enum AuditAction {
        /// A session began with a name and a password.
        Login = "login",
        /// A user ended the own session.
        Logout = "logout",
        /// Sessions ended: after a change of the password, the second use of a refresh token, or the disabling of the user.
        SessionEnd = "session_end",
        /// An account was made with an invite.
        Register = "register",
        /// A user changed the own password.
        PasswordChange = "password_change",
        /// An operator set a password.
        PasswordReset = "password_reset",
        /// A user became an administrator.
        AdminGrant = "admin_grant",
        /// A user is no administrator any more.
        AdminRevoke = "admin_revoke",
        /// An operator made an account.
        UserCreate = "user_create",
        /// A user was disabled.
        UserDisable = "user_disable",
        /// A user was enabled again.
        UserEnable = "user_enable",
        /// An operator signed a session token for a user.
        TokenIssue = "token_issue",
        /// An invite was made.
        InviteCreate = "invite_create",
        /// An invite was revoked.
        InviteRevoke = "invite_revoke",
        /// An administrator read chats of somebody else.
        ChatsRead = "chats_read",
        /// An administrator asked for chats of deleted conversations.
        DeletedRead = "deleted_read",
        /// An operator read an event in quarantine.
        QuarantineRead = "quarantine_read",
        /// An operator had an event in quarantine projected again.
        QuarantineRetry = "quarantine_retry",
        /// An operator deleted an event from quarantine.
        QuarantineDrop = "quarantine_drop",
    }
}

open_words! {
    /// The outcome of an act. Readers must accept words that they do not know.
    pub enum AuditOutcome {
        /// The act was done.
        Success = "success",
        /// The act was refused or failed.
        Failure = "failure",
        /// The act was refused because of too many failures before.
        Throttled = "throttled",
    }
}

open_words! {
    /// The kind of the thing that an act is about. Readers must accept words that they do not know.
    pub enum AuditTargetKind {
        /// A user, by id.
        User = "user",
        /// An invite, by id.
        Invite = "invite",
        /// A conversation, by id.
        Conversation = "conversation",
        /// A chat, by id.
        Chat = "chat",
        /// An event in quarantine, by its id there.
        Quarantine = "quarantine",
    }
}

/// An act that concerns access to the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditRecorded {
    /// The id of the entry.
    pub audit_id: AuditId,
    /// The time of the act; of several acts, the time of the last one.
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::date_time::DateTime"))]
    pub recorded_at: OffsetDateTime,
    /// The user who acted; `cli` for the command line, `anonymous` for somebody who has not logged in.
    pub actor: UserId,
    /// The kind of the act.
    pub action: AuditAction,
    /// The thing that the act is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<AuditTarget>,
    /// The outcome.
    pub outcome: AuditOutcome,
    /// The address of the client: an IPv4 address, or the /64 network of an IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The number of acts that the entry stands for: at least 1.
    pub count: u64,
    /// The mark of an event that was made again from the tables. Left out for every other event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The thing that an act is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AuditTarget {
    /// The kind of the thing.
    pub kind: AuditTargetKind,
    /// The id of the thing.
    pub id: String,
}
