//! Entries of the audit log: rows of `audit_log`.

use shared::event::AuditRecorded;
use time::OffsetDateTime;
use uuid::Uuid;

use super::pg_value::{pg_text, pg_timestamp};

/// The maximum length of an id of a target and of an address, in characters. An index has both.
const MAX_CHARACTERS: usize = 300;

/// A row of `audit_log`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditEntry {
    /// The key of the row: the entry.
    pub audit_id: Uuid,
    /// The time of the act; of several acts, the time of the last one.
    pub recorded_at: OffsetDateTime,
    /// The user who acted, `cli` or `anonymous`.
    pub actor: String,
    /// The kind of the act.
    pub action: String,
    /// The kind and the id of the thing that the act is about.
    pub target: Option<(String, String)>,
    /// The outcome.
    pub outcome: String,
    /// The address of the client.
    pub address: Option<String>,
    /// The number of acts.
    pub count: i64,
}

impl AuditEntry {
    /// Makes the row of an event.
    pub fn from_recorded(event: &AuditRecorded) -> Self {
        let bounded = |text: &str| pg_text(text).chars().take(MAX_CHARACTERS).collect::<String>();
        Self {
            audit_id: event.audit_id.0,
            recorded_at: pg_timestamp(event.recorded_at),
            actor: pg_text(event.actor.as_str()),
            action: event.action.as_str().to_owned(),
            target: event.target.as_ref().map(|target| (target.kind.as_str().to_owned(), bounded(&target.id))),
            outcome: event.outcome.as_str().to_owned(),
            address: event.address.as_deref().map(bounded),
            count: i64::try_from(event.count).unwrap_or(i64::MAX).max(1),
        }
    }

    /// Joins another row of the same entry. Of two different rows, the greater counts.
    pub fn join(&mut self, other: Self) {
        if other > *self {
            *self = other;
        }
    }
}
