//! The state in memory, and the checks of callers against it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use shared::access::{EndedSession, Entry, ProjectState, UserState};
use shared::event::{LimitScope, UsageLimits};
use shared::id::{KeyId, ProjectId, UserId};
use shared::token::Claims;
use time::OffsetDateTime;
use uuid::Uuid;

use super::key::{CommonParts, Key};
use super::limit_table::{CallOrigin, LimitTable};

/// The age up to which an unknown key may be too new for this gateway: the client is told to try again.
const NEW_KEY_SECONDS: u64 = 10;

/// The state of a gateway's access checks.
#[derive(Debug, Default)]
pub struct Access {
    entries: RwLock<AccessEntries>,
    /// True once a whole state was loaded, from the broker or from the copy on disk.
    is_loaded: AtomicBool,
    /// True while the state is that of the broker: followed, and the connection is up.
    is_current: AtomicBool,
}

/// All entries of the bucket, by subject.
#[derive(Clone, Debug, Default)]
pub struct AccessEntries {
    keys: HashMap<KeyId, Arc<Key>>,
    common: CommonParts,
    users: HashMap<UserId, UserState>,
    /// The ended sessions, with the time from which all of their tokens have expired.
    sessions: HashMap<Uuid, OffsetDateTime>,
    limits: LimitTable,
    projects: HashMap<ProjectId, Arc<ProjectState>>,
}

/// The reason for which a credential with a valid signature is refused. The message is sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    /// No such key is in force.
    #[error("the API key is not known")]
    UnknownKey,
    /// The key was revoked.
    #[error("the API key has been revoked")]
    RevokedKey,
    /// The key has expired.
    #[error("the API key has expired")]
    ExpiredKey,
    /// The user is disabled.
    #[error("the user of this credential is disabled")]
    DisabledUser,
    /// The project of the key is disabled.
    #[error("the project of this API key is disabled")]
    DisabledProject,
    /// The owner of the key is no member of its project.
    #[error("the owner of this API key is not a member of its project any more")]
    NoMember,
    /// The session of the token has ended.
    #[error("the session has ended: log in again")]
    EndedSession,
    /// The gateway does not know the present keys, so it cannot tell if the key is in force: the client should try again.
    #[error("the gateway does not know this API key yet: try again shortly")]
    NotKnownYet,
}

impl Access {
    /// Checks an API key whose signature is valid. Returns the key if it is in force.
    pub fn check_key(&self, id: KeyId, owner: &UserId, now: OffsetDateTime) -> Result<Arc<Key>, AccessRefusal> {
        let (found, is_disabled, refusal) = {
            let entries = self.read();
            let found = entries.keys.get(&id).map(Arc::clone);
            let refusal = found.as_ref().and_then(|key| entries.refusal_of_project(key.project, owner));
            (found, entries.is_disabled(owner), refusal)
        };
        let Some(key) = found.filter(|key| key.owner == *owner) else {
            return Err(self.refusal_of_unknown(id, now));
        };
        if key.is_revoked() {
            return Err(AccessRefusal::RevokedKey);
        }
        if is_disabled {
            return Err(AccessRefusal::DisabledUser);
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        match key.terms() {
            // Only the issue or a change of the key has settings: a revocation that came first was handled above.
            None => Err(AccessRefusal::NotKnownYet),
            Some(terms) if terms.expires_at.is_some_and(|at| at <= now) => Err(AccessRefusal::ExpiredKey),
            Some(_) => Ok(key),
        }
    }

    fn refusal_of_unknown(&self, id: KeyId, now: OffsetDateTime) -> AccessRefusal {
        let issued = id.0.get_timestamp().map(|at| at.to_unix().0);
        let is_new = issued.is_some_and(|at| u64::try_from(now.unix_timestamp()).unwrap_or(0) < at + NEW_KEY_SECONDS);
        if self.is_current() && !is_new { AccessRefusal::UnknownKey } else { AccessRefusal::NotKnownYet }
    }

    /// Checks the claims of a valid token: the user must not be disabled, and the session not ended.
    pub fn check_token(&self, claims: &Claims) -> Result<(), AccessRefusal> {
        let entries = self.read();
        if entries.is_disabled(&claims.sub) {
            return Err(AccessRefusal::DisabledUser);
        }
        match claims.sid {
            Some(session) if entries.sessions.contains_key(&session) => Err(AccessRefusal::EndedSession),
            _ => Ok(()),
        }
    }

    /// Returns the limits that apply to a call, each with the scope that counts the call.
    pub fn limits_of_call(&self, call: &CallOrigin<'_>) -> Vec<(LimitScope, UsageLimits)> {
        self.read().limits.of_call(call)
    }

    /// Replaces all entries: a whole state was loaded.
    pub fn replace(&self, entries: AccessEntries) {
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        self.is_loaded.store(true, Ordering::Relaxed);
    }

    /// Adds a new state of one entry.
    pub fn apply(&self, entry: Entry) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).apply(entry);
    }

    /// Removes the ended sessions whose tokens have all expired.
    pub fn forget_expired(&self, now: OffsetDateTime) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.sessions.retain(|_, until| *until > now);
        entries.common.forget_unused();
    }

    /// Returns a copy of all entries, for the disk. The keys themselves are shared.
    pub fn entries(&self) -> AccessEntries {
        self.read().clone()
    }

    /// Returns the number of keys.
    pub fn keys(&self) -> usize {
        self.read().key_count()
    }

    /// Returns true once a whole state was loaded, from the broker or from the copy on disk.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
    }

    /// Returns true while the state is that of the broker.
    pub fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    /// Notes that the state follows the broker, or does not any more.
    pub fn set_current(&self, is_current: bool) {
        self.is_current.store(is_current, Ordering::Relaxed);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, AccessEntries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessEntries {
    /// Adds a new state of one entry, which joins with the present state.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Key(state) => {
                let joined = match self.keys.remove(&state.key_id) {
                    None => *state,
                    Some(present) => {
                        let mut joined = present.state();
                        joined.join(*state);
                        joined
                    }
                };
                self.keys.insert(joined.key_id, Arc::new(self.common.key(joined)));
            }
            Entry::User(user) => {
                let is_older =
                    self.users.get(&user.user_id).is_some_and(|present| present.changed_at > user.changed_at);
                if !is_older {
                    self.users.insert(user.user_id.clone(), user);
                }
            }
            Entry::Session(EndedSession { session_id, until }) => drop(self.sessions.insert(session_id, until)),
            Entry::Limit(limit) => self.limits.apply(limit),
            Entry::Project(state) => {
                let joined = match self.projects.remove(&state.project_id) {
                    None => state,
                    Some(present) => {
                        let mut joined = Box::new(present.as_ref().clone());
                        joined.join(*state);
                        joined
                    }
                };
                self.projects.insert(joined.project_id, joined.into());
            }
        }
    }

    /// Returns the number of keys.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Returns all entries in the form of the bucket.
    pub fn all(&self) -> impl Iterator<Item = Entry> {
        let keys = self.keys.values().map(|key| Entry::Key(Box::new(key.state())));
        let users = self.users.values().map(|user| Entry::User(user.clone()));
        let sessions = self.sessions.iter();
        let sessions =
            sessions.map(|(session_id, until)| Entry::Session(EndedSession { session_id: *session_id, until: *until }));
        let limits = self.limits.all().map(|limit| Entry::Limit(limit.clone()));
        let projects = self.projects.values().map(|project| Entry::Project(Box::new(project.as_ref().clone())));
        keys.chain(users).chain(sessions).chain(limits).chain(projects)
    }

    /// Returns the reason for which the project refuses a key of the user. A project that is not known refuses nobody: nothing says that
    /// it is disabled.
    fn refusal_of_project(&self, project: Option<ProjectId>, owner: &UserId) -> Option<AccessRefusal> {
        let settings = &self.projects.get(&project?)?.settings;
        if settings.is_disabled {
            return Some(AccessRefusal::DisabledProject);
        }
        (!settings.accepts(owner)).then_some(AccessRefusal::NoMember)
    }

    fn is_disabled(&self, user: &UserId) -> bool {
        self.users.get(user).is_some_and(|user| user.is_disabled)
    }
}

#[cfg(test)]
mod tests {
    use shared::access::{Act, KeyState, SettingsInForce};
    use shared::event::{KeySettings, ProjectSettings, RecordingMode};

    use super::*;

    fn state(id: KeyId, models: &[&str]) -> KeyState {
        let act = Act { at: OffsetDateTime::UNIX_EPOCH, by: "ann".into() };
        let settings = KeySettings {
            name: "k".into(),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
            operations: vec![],
            expires_at: OffsetDateTime::from_unix_timestamp(5_000_000_000).ok(),
            recording: RecordingMode::Full,
        };
        KeyState {
            key_id: id,
            user_id: "ann".parse().unwrap(),
            project_id: None,
            issued: Some(act.clone()),
            settings: Some(SettingsInForce { change_id: id.0, changed: act, settings }),
            revoked: None,
        }
    }

    #[test]
    fn a_key_is_checked_for_its_owner_its_expiry_and_its_revocation() {
        let (access, ann) = (Access::default(), "ann".parse().unwrap());
        let (id, now) = (KeyId(Uuid::from_u128(1)), OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap());
        let check = |access: &Access, at| access.check_key(id, &ann, at).map(|key| key.id);
        assert_eq!(check(&access, now), Err(AccessRefusal::NotKnownYet), "nothing was ever loaded");
        access.replace(AccessEntries::default());
        access.set_current(true);
        assert_eq!(check(&access, now), Err(AccessRefusal::UnknownKey));
        access.apply(Entry::Key(Box::new(state(id, &[]))));
        assert_eq!(check(&access, now), Ok(id));
        assert!(access.check_key(id, &"bob".parse().unwrap(), now).is_err(), "the key of someone else");
        let late = OffsetDateTime::from_unix_timestamp(5_000_000_000).unwrap();
        assert_eq!(check(&access, late), Err(AccessRefusal::ExpiredKey));
        let user = |is_disabled, seconds| {
            let changed_at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            Entry::User(UserState { user_id: "ann".parse().unwrap(), is_disabled, changed_at })
        };
        access.apply(user(true, 2));
        access.apply(user(false, 1));
        assert_eq!(check(&access, now), Err(AccessRefusal::DisabledUser), "an older state changes nothing");
        access.apply(user(false, 3));
        let revoked = KeyState { revoked: Some(Act { at: now, by: "ann".into() }), ..state(id, &[]) };
        access.apply(Entry::Key(Box::new(revoked)));
        access.apply(Entry::Key(Box::new(state(id, &[]))));
        assert_eq!(check(&access, now), Err(AccessRefusal::RevokedKey), "an older state changes nothing");
    }

    #[test]
    fn a_key_of_a_project_is_refused_while_the_project_is_disabled_or_without_its_owner() {
        let (access, ann): (_, UserId) = (Access::default(), "ann".parse().unwrap());
        let (id, now) = (KeyId(Uuid::from_u128(1)), OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap());
        let project_id = ProjectId(Uuid::from_u128(7));
        let project = |change, members: &[&str], is_disabled| {
            let members = members.iter().map(|member| member.parse().unwrap()).collect();
            let settings = ProjectSettings { name: "p".into(), members, is_disabled };
            let changed = Act { at: OffsetDateTime::UNIX_EPOCH, by: "admin".into() };
            Entry::Project(Box::new(ProjectState { project_id, change_id: Uuid::from_u128(change), changed, settings }))
        };
        let check = || access.check_key(id, &ann, now).map(|key| key.project);
        access.replace(AccessEntries::default());
        access.apply(Entry::Key(Box::new(KeyState { project_id: Some(project_id), ..state(id, &[]) })));
        assert_eq!(check(), Ok(Some(project_id)), "nothing says that the project is disabled");
        access.apply(project(2, &["ann", "bob"], false));
        assert_eq!(check(), Ok(Some(project_id)));
        access.apply(project(3, &["ann"], true));
        assert_eq!(check(), Err(AccessRefusal::DisabledProject));
        access.apply(project(2, &["ann"], false));
        assert_eq!(check(), Err(AccessRefusal::DisabledProject), "an older state changes nothing");
        access.apply(project(4, &["bob"], false));
        assert_eq!(check(), Err(AccessRefusal::NoMember));
        let directory = tempfile::tempdir().unwrap();
        let copy = crate::access::disk_copy::DiskCopy::in_directory(directory.path());
        copy.write(&access.entries()).unwrap();
        access.replace(copy.read().unwrap().unwrap());
        assert_eq!(check(), Err(AccessRefusal::NoMember), "the copy on disk has the project");
    }

    #[test]
    fn an_unknown_key_that_was_issued_just_now_may_be_on_its_way() {
        let access = Access::default();
        access.replace(AccessEntries::default());
        access.set_current(true);
        let (id, now) = (KeyId::mint(), OffsetDateTime::now_utc());
        let refusal = |now| access.check_key(id, &"ann".parse().unwrap(), now).map(drop).unwrap_err();
        assert_eq!(refusal(now), AccessRefusal::NotKnownYet);
        assert_eq!(refusal(now + time::Duration::minutes(1)), AccessRefusal::UnknownKey);
    }

    /// Prints the time; the bound is generous, because other programs may have the processors.
    #[test]
    fn one_hundred_thousand_keys_load_and_are_copied() {
        let names = (0..100_000).map(|number| Entry::Key(Box::new(state(KeyId(Uuid::from_u128(number)), &["gpt-*"]))));
        let lines: Vec<_> = names.map(|entry| (entry.name(), entry.encode().unwrap())).collect();
        let began = std::time::Instant::now();
        let mut entries = AccessEntries::default();
        lines.iter().filter_map(|(name, value)| Entry::read(name, value)).for_each(|entry| entries.apply(entry));
        let loaded = began.elapsed();
        assert_eq!(entries.keys.len(), 100_000);
        let directory = tempfile::tempdir().unwrap();
        let copy = crate::access::disk_copy::DiskCopy::in_directory(directory.path());
        copy.write(&entries).unwrap();
        let began = std::time::Instant::now();
        let read = copy.read().unwrap().unwrap();
        println!("100,000 keys: read from messages in {loaded:?}, from the copy in {:?}", began.elapsed());
        assert_eq!(read.keys.len(), 100_000);
    }
}
