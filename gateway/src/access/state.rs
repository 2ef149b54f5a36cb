//! The state in memory, and the checks of callers against it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use shared::access::{EndedSession, Entry, KeyState, UserState};
use shared::event::{LimitScope, Operation, UsageLimits};
use shared::id::{KeyId, ProjectId, UserId};
use shared::model_pattern::ModelPattern;
use shared::token::Claims;
use time::OffsetDateTime;
use uuid::Uuid;

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
    users: HashMap<UserId, UserState>,
    /// The ended sessions, with the time from which all of their tokens have expired.
    sessions: HashMap<Uuid, OffsetDateTime>,
    limits: LimitTable,
}

/// An API key, in the form in which requests are checked.
#[derive(Clone, Debug)]
pub struct Key {
    /// The id of the key.
    pub id: KeyId,
    /// The owner.
    pub owner: UserId,
    /// The project of the key.
    pub project: Option<ProjectId>,
    /// The rules about models and kinds of calls.
    pub rules: KeyRules,
    pub(super) state: KeyState,
}

/// The models and the kinds of calls that a key may use.
#[derive(Clone, Debug, Default)]
pub struct KeyRules {
    /// The allowed models; empty for all models.
    models: Vec<ModelPattern>,
    /// The allowed kinds of calls; empty for all kinds.
    operations: Vec<Operation>,
}

/// A request that the rules of its key do not allow. The message is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// The key may not make calls of this kind.
    #[error("this API key may not make calls of the kind {}", .0.as_str())]
    Operation(Operation),
    /// The key may not use the model.
    #[error("this API key may not use the model {0:?}")]
    Model(String),
    /// The key is limited to some models, and the request names none.
    #[error("this API key is limited to some models, so it may only make calls that name a model")]
    NoModel,
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
        let (found, is_disabled) = {
            let entries = self.read();
            (entries.keys.get(&id).map(Arc::clone), entries.is_disabled(owner))
        };
        let Some(key) = found.filter(|key| key.owner == *owner) else {
            return Err(self.refusal_of_unknown(id, now));
        };
        if key.state.revoked.is_some() {
            return Err(AccessRefusal::RevokedKey);
        }
        if is_disabled {
            return Err(AccessRefusal::DisabledUser);
        }
        match &key.state.settings {
            // Only the issue or a change of the key has settings: a revocation that came first was handled above.
            None => Err(AccessRefusal::NotKnownYet),
            Some(settings) if settings.settings.expires_at.is_some_and(|at| at <= now) => {
                Err(AccessRefusal::ExpiredKey)
            }
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
        self.entries.write().unwrap_or_else(PoisonError::into_inner).sessions.retain(|_, until| *until > now);
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
                let key = match self.keys.remove(&state.key_id) {
                    None => Key::new(*state),
                    Some(present) => {
                        let mut joined = Arc::unwrap_or_clone(present).state;
                        joined.join(*state);
                        Key::new(joined)
                    }
                };
                self.keys.insert(key.id, Arc::new(key));
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
        }
    }

    /// Returns the number of keys.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Returns all entries in the form of the bucket.
    pub fn all(&self) -> impl Iterator<Item = Entry> {
        let keys = self.keys.values().map(|key| Entry::Key(Box::new(key.state.clone())));
        let users = self.users.values().map(|user| Entry::User(user.clone()));
        let sessions = self.sessions.iter();
        let sessions =
            sessions.map(|(session_id, until)| Entry::Session(EndedSession { session_id: *session_id, until: *until }));
        let limits = self.limits.all().map(|limit| Entry::Limit(limit.clone()));
        keys.chain(users).chain(sessions).chain(limits)
    }

    fn is_disabled(&self, user: &UserId) -> bool {
        self.users.get(user).is_some_and(|user| user.is_disabled)
    }
}

impl Key {
    fn new(state: KeyState) -> Self {
        let settings = state.settings.as_ref().map(|now| &now.settings);
        // A pattern that this version cannot read allows nothing more than it says: it matches no model.
        let models = settings.iter().flat_map(|settings| &settings.models);
        let models = models.map(|text| ModelPattern::parse(text).unwrap_or_else(|_| ModelPattern::match_none()));
        let rules = KeyRules {
            models: models.collect(),
            operations: settings.map(|settings| settings.operations.clone()).unwrap_or_default(),
        };
        Self { id: state.key_id, owner: state.user_id.clone(), project: state.project_id, rules, state }
    }
}

impl KeyRules {
    /// Returns an error if the key may not make this kind of call, or not with this model. `None`: the call names no model.
    pub fn check(&self, operation: Operation, model: Option<&str>) -> Result<(), NotAllowed> {
        if !self.operations.is_empty() && !self.operations.contains(&operation) {
            return Err(NotAllowed::Operation(operation));
        }
        match model {
            _ if self.models.is_empty() => Ok(()),
            Some(model) => self.check_model(model),
            None => Err(NotAllowed::NoModel),
        }
    }

    /// Returns an error if the key may not use this model.
    pub fn check_model(&self, model: &str) -> Result<(), NotAllowed> {
        let is_allowed = self.models.is_empty() || self.models.iter().any(|pattern| pattern.matches(model));
        if is_allowed { Ok(()) } else { Err(NotAllowed::Model(model.to_owned())) }
    }

    /// Returns true if the key is limited to some models.
    pub fn is_limited_to_models(&self) -> bool {
        !self.models.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use shared::access::{Act, SettingsInForce};
    use shared::event::KeySettings;

    use super::*;

    fn state(id: KeyId, models: &[&str]) -> KeyState {
        let act = Act { at: OffsetDateTime::UNIX_EPOCH, by: "ann".into() };
        let settings = KeySettings {
            name: "k".into(),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
            operations: vec![],
            expires_at: OffsetDateTime::from_unix_timestamp(5_000_000_000).ok(),
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
    fn an_unknown_key_that_was_issued_just_now_may_be_on_its_way() {
        let access = Access::default();
        access.replace(AccessEntries::default());
        access.set_current(true);
        let (id, now) = (KeyId::mint(), OffsetDateTime::now_utc());
        let refusal = |now| access.check_key(id, &"ann".parse().unwrap(), now).map(drop).unwrap_err();
        assert_eq!(refusal(now), AccessRefusal::NotKnownYet);
        assert_eq!(refusal(now + time::Duration::minutes(1)), AccessRefusal::UnknownKey);
    }

    #[test]
    fn the_rules_of_a_key_name_models_and_kinds_of_calls() {
        let key = Key::new(state(KeyId(Uuid::nil()), &["gpt-*", "o3"]));
        assert_eq!(key.rules.check(Operation::Chat, Some("gpt-5")), Ok(()));
        assert_eq!(key.rules.check(Operation::Chat, Some("o3-mini")), Err(NotAllowed::Model("o3-mini".into())));
        assert_eq!(key.rules.check(Operation::PassThrough, None), Err(NotAllowed::NoModel));
        let rules = KeyRules { operations: vec![Operation::Embeddings], ..KeyRules::default() };
        assert_eq!(rules.check(Operation::Chat, Some("m")), Err(NotAllowed::Operation(Operation::Chat)));
        assert_eq!(rules.check(Operation::Embeddings, Some("m")), Ok(()));
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
