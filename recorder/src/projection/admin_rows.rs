//! The rows that are about the deployment in place of chats: API keys, limits, projects, prices, and the audit log.

use shared::access::{KeyState, LimitState, ProjectState};
use shared::event::Event;

use super::audit_log::AuditEntry;
use super::price_lists::PriceList;
use super::repricings::Repricing;
use super::row::{Rows, has_all, join_into};
use super::{api_keys, limits, projects};

/// Rows about the deployment, or facts to be joined into such rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdminRows {
    /// Rows of the table `api_keys`, by key.
    pub api_keys: Rows<KeyState>,
    /// Rows of the table `limits`, by scope.
    pub limits: Rows<LimitState>,
    /// Rows of the table `projects`, by project.
    pub projects: Rows<ProjectState>,
    /// Rows of the table `price_lists`, by publication.
    pub price_lists: Rows<PriceList>,
    /// Rows of the table `repricings`, by change.
    pub repricings: Rows<Repricing>,
    /// Rows of the table `audit_log`, by entry.
    pub audit_log: Rows<AuditEntry>,
}

impl AdminRows {
    /// Joins the facts of an event. Events about chats and conversations have none.
    pub(super) fn add(&mut self, event: &Event) {
        match event {
            Event::KeyIssued(_) | Event::KeyChanged(_) | Event::KeyRevoked(_) => {
                join_into(&mut self.api_keys, api_keys::from_event(event));
            }
            Event::LimitsChanged(_) => join_into(&mut self.limits, limits::from_event(event)),
            Event::ProjectChanged(_) => join_into(&mut self.projects, projects::from_event(event)),
            Event::PricesPublished(event) => join_into(&mut self.price_lists, [PriceList::from_published(event)]),
            Event::CostsRepriced(event) => join_into(&mut self.repricings, [Repricing::from_repriced(event)]),
            Event::AuditRecorded(event) => join_into(&mut self.audit_log, [AuditEntry::from_recorded(event)]),
            Event::ChatStarted(_)
            | Event::MessageCompleted(_)
            | Event::ChatFailed(_)
            | Event::ChatDeferred(_)
            | Event::ConversationCreated(_)
            | Event::ConversationChanged(_)
            | Event::ConversationDeleted(_) => {}
        }
    }

    /// Joins facts into the rows.
    pub(super) fn join(&mut self, facts: Self) {
        let Self { api_keys, limits, projects, price_lists, repricings, audit_log } = facts;
        join_into(&mut self.api_keys, api_keys.into_values());
        join_into(&mut self.limits, limits.into_values());
        join_into(&mut self.projects, projects.into_values());
        join_into(&mut self.price_lists, price_lists.into_values());
        join_into(&mut self.repricings, repricings.into_values());
        join_into(&mut self.audit_log, audit_log.into_values());
    }

    /// Returns true if the rows have the facts already, so that joining the facts changes no row.
    pub(super) fn has_all(&self, facts: Self) -> bool {
        let Self { api_keys, limits, projects, price_lists, repricings, audit_log } = facts;
        has_all(&self.api_keys, api_keys.into_values())
            && has_all(&self.limits, limits.into_values())
            && has_all(&self.projects, projects.into_values())
            && has_all(&self.price_lists, price_lists.into_values())
            && has_all(&self.repricings, repricings.into_values())
            && has_all(&self.audit_log, audit_log.into_values())
    }

    /// Returns true if the facts may change the costs of chats that have ended before.
    pub fn has_prices(&self) -> bool {
        !self.price_lists.is_empty() || !self.repricings.is_empty()
    }
}
