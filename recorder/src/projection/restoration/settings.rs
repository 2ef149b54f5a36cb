//! The events of API keys, limits, projects, prices and the audit log, made again from their rows.

use shared::access::{Act, KeyState, LimitState, ProjectState, SettingsInForce};
use shared::event::{
    AuditRecorded, AuditTarget, CostsRepriced, Event, KeyChanged, KeyIssued, KeyRevoked, LimitsChanged,
    PricesPublished, ProjectChanged, Restored,
};
use shared::id::{AuditId, ChangeId};
use time::OffsetDateTime;

use crate::projection::audit_log::AuditEntry;
use crate::projection::price_lists::PriceList;
use crate::projection::repricings::Repricing;

/// Makes the events of a key again, as far as `projected`, the row that the log gives, lacks their facts. The settings at issue are those in
/// force, because no row has the settings that a change replaced.
pub fn key_events(row: &KeyState, projected: Option<&KeyState>, restored_at: OffsetDateTime) -> Vec<Option<Event>> {
    let restored = Some(Restored::new(restored_at, None));
    let mut events = Vec::new();
    let issued = row.issued.as_ref().filter(|_| projected.is_none_or(|now| now.issued.is_none()));
    if let Some(Act { at, by }) = issued {
        let issue = |now: &SettingsInForce| {
            Event::KeyIssued(Box::new(KeyIssued {
                key_id: row.key_id,
                user_id: row.user_id.clone(),
                project_id: row.project_id,
                issued_at: *at,
                issued_by: by.clone(),
                settings: now.settings.clone(),
                restored: restored.clone(),
            }))
        };
        events.push(row.settings.as_ref().map(issue));
    }
    let of_issue = |now: &SettingsInForce| issued == Some(&now.changed) && now.change_id == row.key_id.0;
    let is_lost = |now: &SettingsInForce| projected.and_then(|row| row.settings.as_ref()) != Some(now);
    if let Some(now) = row.settings.as_ref().filter(|now| is_lost(now) && !of_issue(now)) {
        events.push(Some(Event::KeyChanged(Box::new(KeyChanged {
            change_id: ChangeId(now.change_id),
            key_id: row.key_id,
            user_id: row.user_id.clone(),
            changed_at: now.changed.at,
            changed_by: now.changed.by.clone(),
            settings: now.settings.clone(),
            restored: restored.clone(),
        }))));
    }
    if let Some(Act { at, by }) = row.revoked.as_ref().filter(|_| projected.is_none_or(|now| now.revoked.is_none())) {
        events.push(Some(Event::KeyRevoked(Box::new(KeyRevoked {
            key_id: row.key_id,
            user_id: row.user_id.clone(),
            revoked_at: *at,
            revoked_by: by.clone(),
            restored,
        }))));
    }
    events
}

/// Makes the change of limits that is in force again. None for an author that is no user id.
pub fn limits_event(row: &LimitState, restored_at: OffsetDateTime) -> Option<Event> {
    Some(Event::LimitsChanged(Box::new(LimitsChanged {
        change_id: ChangeId(row.change_id),
        scope: row.scope.clone(),
        changed_at: row.changed.at,
        changed_by: row.changed.by.parse().ok()?,
        limits: row.limits.clone(),
        restored: Some(Restored::new(restored_at, None)),
    })))
}

/// Makes the change of a project that is in force again. None for an author that is no user id.
pub fn project_event(row: &ProjectState, restored_at: OffsetDateTime) -> Option<Event> {
    Some(Event::ProjectChanged(Box::new(ProjectChanged {
        change_id: ChangeId(row.change_id),
        project_id: row.project_id,
        changed_at: row.changed.at,
        changed_by: row.changed.by.parse().ok()?,
        settings: row.settings.clone(),
        restored: Some(Restored::new(restored_at, None)),
    })))
}

/// Makes the publication of a price list again. None for an author that is no user id.
pub fn price_list_event(row: &PriceList, restored_at: OffsetDateTime) -> Option<Event> {
    Some(Event::PricesPublished(Box::new(PricesPublished {
        change_id: ChangeId(row.change_id),
        layer: row.layer.clone(),
        in_force_from: row.in_force_from,
        in_force_until: row.in_force_until,
        published_at: row.published_at,
        published_by: row.published_by.parse().ok()?,
        sha256: row.sha256.clone(),
        size: row.list.len() as u64,
        list: row.list.to_string(),
        restored: Some(Restored::new(restored_at, None)),
    })))
}

/// Makes a repricing again. None for an author that is no user id.
pub fn repricing_event(row: &Repricing, restored_at: OffsetDateTime) -> Option<Event> {
    Some(Event::CostsRepriced(Box::new(CostsRepriced {
        change_id: ChangeId(row.change_id),
        since: row.since,
        until: row.until,
        repriced_at: row.repriced_at,
        repriced_by: row.repriced_by.parse().ok()?,
        restored: Some(Restored::new(restored_at, None)),
    })))
}

/// Makes an entry of the audit log again. None for words that no event has.
pub fn audit_event(row: &AuditEntry, restored_at: OffsetDateTime) -> Option<Event> {
    let target = |(kind, id): &(String, String)| Some(AuditTarget { kind: kind.parse().ok()?, id: id.clone() });
    Some(Event::AuditRecorded(Box::new(AuditRecorded {
        audit_id: AuditId(row.audit_id),
        recorded_at: row.recorded_at,
        actor: row.actor.parse().ok()?,
        action: row.action.parse().ok()?,
        target: match &row.target {
            None => None,
            Some(stored) => Some(target(stored)?),
        },
        outcome: row.outcome.parse().ok()?,
        address: row.address.clone(),
        count: row.count.unsigned_abs(),
        restored: Some(Restored::new(restored_at, None)),
    })))
}
