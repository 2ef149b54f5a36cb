//! The JSON shape of an entry of the audit log.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::reads::audit::AuditRecord;

/// An act that concerns access to the record, or several equal ones.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// The entry; for an act that another table has, the key, the change or the conversation.
    id: Uuid,
    /// The time of the act; of several acts, of the last one.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// The user who acted; `cli` for the command line, `anonymous` for somebody who has not logged in.
    actor: String,
    /// The kind of the act. Clients must accept words that they do not know.
    action: String,
    /// The thing that the act is about; null for no single thing, and for a thing that does not exist.
    target: Option<AuditTarget>,
    /// The outcome: `success`, `failure` or `throttled`. Clients must accept words that they do not know.
    outcome: String,
    /// The address of the client: an IPv4 address, or the /64 network of an IPv6 address; null for the command line, for several addresses,
    /// and for acts that other tables have.
    address: Option<String>,
    /// The number of equal acts that the entry stands for.
    count: i64,
}

/// The thing that an act is about.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditTarget {
    /// The kind: `user`, `invite`, `conversation`, `chat`, `quarantine`, `key`, `scope` or `layer`. Clients must accept words that they do not
    /// know.
    kind: String,
    /// The id.
    id: String,
}

impl From<AuditRecord> for AuditEntry {
    fn from(row: AuditRecord) -> Self {
        let AuditRecord { id, at, actor, action, target_kind, target_id, outcome, address, count } = row;
        let target = target_kind.zip(target_id).map(|(kind, id)| AuditTarget { kind, id });
        Self { id, at, actor, action, target, outcome, address, count }
    }
}
