//! The bucket `ACCESS`: API keys, disabled users, ended sessions and limits, as gateways follow them.
//!
//! The recorder writes the bucket, by compare-and-set alone. Each state joins with every other state of the same subject, in any
//! order, so that an older state never replaces a newer state. The table `api_keys` joins by the same rule.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::event::{Event, KeySettings, LimitScope, UsageLimits};
use crate::id::{KeyId, ProjectId, UserId};

/// The name of the bucket.
pub const BUCKET: &str = "ACCESS";

/// The longest lifetime of an access token that belongs to a session: the bound of `RECORDER_TOKEN_TTL`. The entry of an ended session is
/// kept for this time, so that a shorter setting does not let an older token outlive its entry.
pub const LONGEST_SESSION_TOKEN: Duration = Duration::hours(24);

/// The state of an API key: the join of all events about the key. An event that is not known yet leaves its part empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// The key.
    pub key_id: KeyId,
    /// The owner.
    pub user_id: UserId,
    /// The project of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// The issue; none until the event `KeyIssued` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Act>,
    /// The settings in force; none until the event `KeyIssued` or a `KeyChanged` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsInForce>,
    /// The revocation; none for a key that was not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Act>,
}

/// The time and the author of an act on a key. Of two acts of one kind, the earlier counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Act {
    /// The time of the act.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The user; `cli` for the command line.
    pub by: String,
}

/// The settings of a key, and the change that they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsInForce {
    /// The change, or the key itself for the settings at issue. The settings of the greater id are in force.
    pub change_id: Uuid,
    /// The change's time and author.
    pub changed: Act,
    /// The settings.
    pub settings: KeySettings,
}

/// The state of a user: a user who is disabled is refused with sessions and keys alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserState {
    /// The user.
    pub user_id: UserId,
    /// True if the user is disabled.
    pub is_disabled: bool,
    /// The time of the change. The later of two states is in force.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
}

/// A session that ended before its tokens expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// The session.
    pub session_id: Uuid,
    /// The time from which every token of the session has expired. The entry is removed after that.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

/// The limits of a scope. The state with the greater change id is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// The scope.
    pub scope: LimitScope,
    /// The change that the limits come from.
    pub change_id: Uuid,
    /// The change's time and author.
    pub changed: Act,
    /// The limits.
    pub limits: UsageLimits,
}

/// An entry of the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An API key.
    Key(Box<KeyState>),
    /// A user who is disabled, or was.
    User(UserState),
    /// A session that ended.
    Session(EndedSession),
    /// The limits of a scope.
    Limit(LimitState),
}

impl KeyState {
    /// Returns the state that follows from one event; `None` for an event that is not about a key.
    pub fn from_event(event: &Event) -> Option<Self> {
        let bare = |key_id, user_id: &UserId| Self {
            key_id,
            user_id: user_id.clone(),
            project_id: None,
            issued: None,
            settings: None,
            revoked: None,
        };
        Some(match event {
            Event::KeyIssued(event) => {
                let issued = Act { at: event.issued_at, by: event.issued_by.clone() };
                let settings = SettingsInForce {
                    change_id: event.key_id.0,
                    changed: issued.clone(),
                    settings: event.settings.clone(),
                };
                Self {
                    project_id: event.project_id,
                    issued: Some(issued),
                    settings: Some(settings),
                    ..bare(event.key_id, &event.user_id)
                }
            }
            Event::KeyChanged(event) => {
                let settings = SettingsInForce {
                    change_id: event.change_id.0,
                    changed: Act { at: event.changed_at, by: event.changed_by.clone() },
                    settings: event.settings.clone(),
                };
                Self { settings: Some(settings), ..bare(event.key_id, &event.user_id) }
            }
            Event::KeyRevoked(event) => {
                let revoked = Act { at: event.revoked_at, by: event.revoked_by.clone() };
                Self { revoked: Some(revoked), ..bare(event.key_id, &event.user_id) }
            }
            _ => return None,
        })
    }

    /// Joins the facts of `other`, a state of the same key. The result is the same in any order and for any repetition.
    pub fn join(&mut self, other: Self) {
        self.user_id = self.user_id.clone().min(other.user_id);
        self.project_id = least(self.project_id, other.project_id);
        self.issued = least(self.issued.take(), other.issued);
        self.revoked = least(self.revoked.take(), other.revoked);
        let rank = |settings: &Option<SettingsInForce>| {
            settings.as_ref().map(|now| (now.change_id, now.changed.clone(), serde_json::to_string(&now.settings).ok()))
        };
        if self.settings.is_none() || (other.settings.is_some() && rank(&other.settings) > rank(&self.settings)) {
            self.settings = other.settings;
        }
    }
}

fn least<T: Ord>(mine: Option<T>, theirs: Option<T>) -> Option<T> {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
        (mine, theirs) => mine.or(theirs),
    }
}

impl Entry {
    /// Returns the name of the entry in the bucket.
    pub fn name(&self) -> String {
        match self {
            Self::Key(key) => format!("key.{}", key.key_id),
            Self::User(user) => user_name(&user.user_id),
            Self::Session(session) => {
                format!("session.{}.{}", EndedSession::hour_of(session.until), session.session_id)
            }
            Self::Limit(limit) => limit_name(&limit.scope),
        }
    }

    /// Reads an entry of the bucket. Returns `None` for an entry of a later version.
    pub fn read(name: &str, value: &[u8]) -> Option<Self> {
        match name.split_once('.')?.0 {
            "key" => serde_json::from_slice(value).ok().map(Self::Key),
            "user" => serde_json::from_slice(value).ok().map(Self::User),
            "session" => serde_json::from_slice(value).ok().map(Self::Session),
            "limit" => serde_json::from_slice(value).ok().map(Self::Limit),
            _ => None,
        }
    }

    /// Returns the value of the entry, a JSON object.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Key(key) => serde_json::to_vec(key),
            Self::User(user) => serde_json::to_vec(user),
            Self::Session(session) => serde_json::to_vec(session),
            Self::Limit(limit) => serde_json::to_vec(limit),
        }
    }

    /// Joins two states of one entry. States of different kinds do not join: the present state stays.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Key(mut key), Self::Key(other)) => {
                key.join(*other);
                Self::Key(key)
            }
            (Self::User(user), Self::User(other)) if other.changed_at > user.changed_at => Self::User(other),
            (Self::Session(session), Self::Session(other)) if other.until > session.until => Self::Session(other),
            (Self::Limit(mut limit), Self::Limit(other)) => {
                limit.join(other);
                Self::Limit(limit)
            }
            (present, _) => present,
        }
    }
}

impl LimitState {
    /// The limits that an event sets; none for other events.
    pub fn from_event(event: &Event) -> Option<Self> {
        let Event::LimitsChanged(event) = event else { return None };
        Some(Self {
            scope: event.scope.clone(),
            change_id: event.change_id.0,
            changed: Act { at: event.changed_at, by: event.changed_by.to_string() },
            limits: event.limits.clone(),
        })
    }

    /// Joins another state of the same scope. The result is the same in any order and for any repetition.
    pub fn join(&mut self, other: Self) {
        let rank = |state: &Self| (state.change_id, state.changed.clone(), state.limits.clone());
        if rank(&other) > rank(self) {
            *self = other;
        }
    }
}

impl EndedSession {
    /// Returns the hour of a time, counted from 1970. The names of sessions begin with the hour of their expiry, so that all entries of
    /// an hour are removed together.
    pub fn hour_of(at: OffsetDateTime) -> i64 {
        at.unix_timestamp().div_euclid(3600)
    }

    /// Returns the pattern of the names of all sessions whose tokens expire in this hour.
    pub fn names_of_hour(hour: i64) -> String {
        format!("session.{hour}.*")
    }
}

/// Returns the name of a user's entry.
pub fn user_name(user: &UserId) -> String {
    format!("user.{}", URL_SAFE_NO_PAD.encode(user.as_str()))
}

/// Returns the name of the entry of a scope's limits.
pub fn limit_name(scope: &LimitScope) -> String {
    format!("limit.{}", URL_SAFE_NO_PAD.encode(scope.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{KeyChanged, KeyIssued, KeyRevoked, RecordingMode};
    use crate::id::ChangeId;

    fn events() -> Vec<Event> {
        let (key_id, user_id): (KeyId, UserId) = (KeyId(Uuid::from_u128(1)), "ann".parse().unwrap());
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let settings = |name: &str| KeySettings {
            name: name.into(),
            models: vec![],
            operations: vec![],
            expires_at: None,
            recording: RecordingMode::Full,
        };
        let changed = |id, name: &str| {
            Event::KeyChanged(Box::new(KeyChanged {
                change_id: ChangeId(Uuid::from_u128(id)),
                key_id,
                user_id: user_id.clone(),
                changed_at: at(5),
                changed_by: "ann".into(),
                settings: settings(name),
            }))
        };
        let revoked = |seconds| {
            Event::KeyRevoked(Box::new(KeyRevoked {
                key_id,
                user_id: user_id.clone(),
                revoked_at: at(seconds),
                revoked_by: "ann".into(),
            }))
        };
        vec![
            Event::KeyIssued(Box::new(KeyIssued {
                key_id,
                user_id: user_id.clone(),
                project_id: None,
                issued_at: at(1),
                issued_by: "ann".into(),
                settings: settings("first"),
            })),
            changed(2, "second"),
            changed(3, "third"),
            revoked(9),
            revoked(7),
        ]
    }

    #[test]
    fn a_key_s_state_does_not_depend_on_the_order_or_repetition_of_events() {
        let states: Vec<KeyState> = events().iter().filter_map(KeyState::from_event).collect();
        let joined = |order: &[usize]| {
            let mut all = order.iter().map(|index| states[*index].clone());
            let first = all.next().unwrap();
            all.fold(first, |mut state, other| {
                state.join(other);
                state
            })
        };
        let expected = joined(&[0, 1, 2, 3, 4]);
        assert_eq!(expected.settings.as_ref().unwrap().settings.name, "third");
        assert_eq!(expected.revoked.as_ref().unwrap().at.unix_timestamp(), 7);
        for order in [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 2, 0, 3, 4]] {
            assert_eq!(joined(&order), expected, "{order:?}");
            let twice: Vec<usize> = order.iter().chain(&order).copied().collect();
            assert_eq!(joined(&twice), expected, "{order:?} twice");
        }
    }

    #[test]
    fn entries_keep_their_value_and_never_go_back() {
        let user = |is_disabled, seconds| {
            let changed_at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            Entry::User(UserState { user_id: "a|b ü".parse().unwrap(), is_disabled, changed_at })
        };
        let entry = user(true, 2);
        assert!(
            entry.name().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
            "{}",
            entry.name()
        );
        assert_eq!(Entry::read(&entry.name(), &entry.encode().unwrap()), Some(entry.clone()));
        assert_eq!(entry.clone().join(user(false, 1)), entry);
        assert_eq!(entry.join(user(false, 3)), user(false, 3));
        assert_eq!(Entry::read("budget.1", b"{}"), None, "an entry of a later version");
        let until = OffsetDateTime::from_unix_timestamp(7_199).unwrap();
        let session = Entry::Session(EndedSession { session_id: Uuid::from_u128(1), until });
        assert_eq!(session.name(), "session.1.00000000-0000-0000-0000-000000000001");
        assert_eq!(Entry::read(&session.name(), &session.encode().unwrap()), Some(session));
    }

    #[test]
    fn the_later_limits_of_a_scope_are_in_force() {
        let limit = |id, requests_per_minute| {
            let changed = Act { at: OffsetDateTime::UNIX_EPOCH, by: "ann".into() };
            let limits = UsageLimits { requests_per_minute, ..UsageLimits::default() };
            Entry::Limit(LimitState { scope: LimitScope::Everyone, change_id: Uuid::from_u128(id), changed, limits })
        };
        let (earlier, later) = (limit(1, Some(60)), limit(2, None));
        assert_eq!(later.name(), "limit.ZXZlcnlvbmU");
        assert_eq!(Entry::read(&earlier.name(), &earlier.encode().unwrap()), Some(earlier.clone()));
        assert_eq!(earlier.clone().join(later.clone()), later);
        assert_eq!(later.clone().join(earlier), later);
    }
}
