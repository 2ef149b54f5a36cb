//! The bucket `ACCESS`: API keys, projects, disabled users, ended sessions and limits, as gateways follow them.
//!
//! The recorder writes the bucket, by compare-and-set alone. Each state joins with every other state of the same subject, in any
//! order, so that an older state never replaces a newer state. The tables `api_keys`, `projects` and `limits` join by the same
//! rule.

mod act;
mod key;
mod limit;
mod project;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::id::UserId;

pub use act::Act;
pub use key::{KeyState, SettingsInForce};
pub use limit::{LimitState, limit_name};
pub use project::{ProjectState, project_name};

/// The name of the bucket.
pub const BUCKET: &str = "ACCESS";

/// The longest lifetime of an access token that belongs to a session: the bound of `RECORDER_TOKEN_TTL`. The entry of an ended session is
/// kept for this time, so that a shorter setting does not let an older token outlive its entry.
pub const LONGEST_SESSION_TOKEN: Duration = Duration::hours(24);

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
    /// A project.
    Project(Box<ProjectState>),
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
            Self::Project(project) => project_name(project.project_id),
        }
    }

    /// Reads an entry of the bucket. Returns `None` for an entry of a later version.
    pub fn read(name: &str, value: &[u8]) -> Option<Self> {
        match name.split_once('.')?.0 {
            "key" => serde_json::from_slice(value).ok().map(Self::Key),
            "user" => serde_json::from_slice(value).ok().map(Self::User),
            "session" => serde_json::from_slice(value).ok().map(Self::Session),
            "limit" => serde_json::from_slice(value).ok().map(Self::Limit),
            "project" => serde_json::from_slice(value).ok().map(Self::Project),
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
            Self::Project(project) => serde_json::to_vec(project),
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
            (Self::Project(mut project), Self::Project(other)) => {
                project.join(*other);
                Self::Project(project)
            }
            (present, _) => present,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        Event, KeyChanged, KeyIssued, KeyRevoked, KeySettings, LimitScope, ProjectSettings, RecordingMode, UsageLimits,
    };
    use crate::id::{ChangeId, KeyId, ProjectId};

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
                restored: None,
            }))
        };
        let revoked = |seconds| {
            Event::KeyRevoked(Box::new(KeyRevoked {
                key_id,
                user_id: user_id.clone(),
                revoked_at: at(seconds),
                revoked_by: "ann".into(),
                restored: None,
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
                restored: None,
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

    #[test]
    fn the_later_settings_of_a_project_are_in_force() {
        let project = |id, is_disabled| {
            let changed = Act { at: OffsetDateTime::UNIX_EPOCH, by: "ann".into() };
            let members = ["ann".parse().unwrap()].into();
            let settings = ProjectSettings { name: "p".into(), members, is_disabled };
            let project_id = ProjectId(Uuid::from_u128(7));
            Entry::Project(Box::new(ProjectState { project_id, change_id: Uuid::from_u128(id), changed, settings }))
        };
        let (earlier, later) = (project(1, true), project(2, false));
        assert_eq!(later.name(), "project.00000000-0000-0000-0000-000000000007");
        assert_eq!(Entry::read(&earlier.name(), &earlier.encode().unwrap()), Some(earlier.clone()));
        assert_eq!(earlier.clone().join(later.clone()), later);
        assert_eq!(later.clone().join(earlier), later);
        // Two states with one change id, which only a forged event can cause, join to the same state in both orders.
        let contradicting = project(2, true);
        assert_eq!(later.clone().join(contradicting.clone()), contradicting.join(later));
    }
}
