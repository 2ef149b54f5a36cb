//! API keys as a gateway holds them: what a check needs, and no more, so that a hundred thousand keys take little memory. Names and
//! authors are left out, and keys share what is equal.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shared::access::{Act, KeyState, SettingsInForce};
use shared::event::{KeySettings, Operation, RecordingMode};
use shared::id::{KeyId, ProjectId, UserId};
use shared::model_pattern::ModelPattern;
use time::OffsetDateTime;
use uuid::Uuid;

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
    pub rules: Arc<KeyRules>,
    issued_at: Option<OffsetDateTime>,
    terms: Option<KeyTerms>,
    revoked_at: Option<OffsetDateTime>,
}

/// The change from which the settings of a key come, and the expiry that it sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyTerms {
    change_id: Uuid,
    changed_at: OffsetDateTime,
    pub(super) expires_at: Option<OffsetDateTime>,
}

/// The models and the kinds of calls that a key may use.
#[derive(Clone, Debug, Default)]
pub struct KeyRules {
    /// The allowed models; empty for all models.
    models: Vec<ModelPattern>,
    /// The allowed kinds of calls; empty for all kinds.
    operations: Vec<Operation>,
    /// The most that events keep of calls with the key.
    recording: RecordingMode,
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

/// The parts that keys have in common: owners, and rules by the text of the settings.
#[derive(Clone, Debug, Default)]
pub(super) struct CommonParts {
    owners: HashSet<UserId>,
    rules: HashMap<String, Arc<KeyRules>>,
}

impl CommonParts {
    /// Returns the key in this state.
    pub(super) fn key(&mut self, state: KeyState) -> Key {
        let owner = match self.owners.get(&state.user_id) {
            Some(owner) => owner.clone(),
            None => {
                self.owners.insert(state.user_id.clone());
                state.user_id
            }
        };
        let terms = state.settings.as_ref().map(|now| KeyTerms {
            change_id: now.change_id,
            changed_at: now.changed.at,
            expires_at: now.settings.expires_at,
        });
        Key {
            id: state.key_id,
            owner,
            project: state.project_id,
            rules: self.rules(state.settings.map(|now| now.settings)),
            issued_at: state.issued.map(|act| act.at),
            terms,
            revoked_at: state.revoked.map(|act| act.at),
        }
    }

    fn rules(&mut self, settings: Option<KeySettings>) -> Arc<KeyRules> {
        let Some(settings) = settings else { return Arc::default() };
        let settings = KeySettings { name: String::new(), expires_at: None, ..settings };
        let Ok(text) = serde_json::to_string(&settings) else { return Arc::new(KeyRules::new(&settings)) };
        Arc::clone(self.rules.entry(text).or_insert_with(|| Arc::new(KeyRules::new(&settings))))
    }

    /// Forgets the rules that no key has any more.
    pub(super) fn forget_unused(&mut self) {
        self.rules.retain(|_, rules| Arc::strong_count(rules) > 1);
    }
}

impl Key {
    /// Returns true if the key was revoked.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked_at.is_some()
    }

    /// Returns the terms in force; none until the issue or a change of the key is known.
    pub(super) fn terms(&self) -> Option<&KeyTerms> {
        self.terms.as_ref()
    }

    /// Returns the state of the key in the form of the bucket, without names and authors.
    pub(super) fn state(&self) -> KeyState {
        let act = |at| Act { at, by: String::new() };
        KeyState {
            key_id: self.id,
            user_id: self.owner.clone(),
            project_id: self.project,
            issued: self.issued_at.map(act),
            settings: self.terms.map(|terms| SettingsInForce {
                change_id: terms.change_id,
                changed: act(terms.changed_at),
                settings: self.rules.settings(terms.expires_at),
            }),
            revoked: self.revoked_at.map(act),
        }
    }
}

impl KeyRules {
    fn new(settings: &KeySettings) -> Self {
        // A pattern that this version cannot read allows nothing more than it says: it matches no model.
        let models = settings.models.iter();
        let models = models.map(|text| ModelPattern::parse(text).unwrap_or_else(|_| ModelPattern::match_none()));
        Self { models: models.collect(), operations: settings.operations.clone(), recording: settings.recording }
    }

    /// Returns the settings with these rules.
    fn settings(&self, expires_at: Option<OffsetDateTime>) -> KeySettings {
        KeySettings {
            name: String::new(),
            models: self.models.iter().map(ToString::to_string).collect(),
            operations: self.operations.clone(),
            expires_at,
            recording: self.recording,
        }
    }

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

    /// Returns the most that events keep of calls with the key.
    pub fn recording(&self) -> RecordingMode {
        self.recording
    }

    /// Returns true if the key is limited to some models.
    pub fn is_limited_to_models(&self) -> bool {
        !self.models.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: u128, name: &str, models: &[&str]) -> KeyState {
        let act = Act { at: OffsetDateTime::UNIX_EPOCH, by: "ann".into() };
        let settings = KeySettings {
            name: name.into(),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
            operations: vec![],
            expires_at: OffsetDateTime::from_unix_timestamp(5_000_000_000).ok(),
            recording: RecordingMode::Full,
        };
        KeyState {
            key_id: KeyId(Uuid::from_u128(id)),
            user_id: "ann".parse().unwrap(),
            project_id: None,
            issued: Some(act.clone()),
            settings: Some(SettingsInForce { change_id: Uuid::from_u128(id), changed: act.clone(), settings }),
            revoked: Some(act),
        }
    }

    #[test]
    fn the_rules_of_a_key_name_models_and_kinds_of_calls() {
        let key = CommonParts::default().key(state(1, "k", &["gpt-*", "o3"]));
        assert_eq!(key.rules.check(Operation::Chat, Some("gpt-5")), Ok(()));
        assert_eq!(key.rules.check(Operation::Chat, Some("o3-mini")), Err(NotAllowed::Model("o3-mini".into())));
        assert_eq!(key.rules.check(Operation::PassThrough, None), Err(NotAllowed::NoModel));
        let rules = KeyRules { operations: vec![Operation::Embeddings], ..KeyRules::default() };
        assert_eq!(rules.check(Operation::Chat, Some("m")), Err(NotAllowed::Operation(Operation::Chat)));
        assert_eq!(rules.check(Operation::Embeddings, Some("m")), Ok(()));
    }

    #[test]
    fn keys_share_owners_and_rules_and_keep_their_state() {
        let mut common = CommonParts::default();
        let (one, two) = (common.key(state(1, "a", &["gpt-*"])), common.key(state(2, "b", &["gpt-*"])));
        assert!(Arc::ptr_eq(&one.rules, &two.rules));
        assert_eq!((common.owners.len(), common.rules.len()), (1, 1));
        // The state without names and authors joins with the whole state as if it were the whole.
        let (mut reduced, whole) = (one.state(), state(1, "a", &["gpt-*"]));
        assert_eq!(reduced.settings.as_ref().unwrap().settings.models, ["gpt-*"]);
        assert_eq!(
            reduced.settings.as_ref().unwrap().settings.expires_at,
            whole.settings.as_ref().unwrap().settings.expires_at
        );
        reduced.join(whole.clone());
        assert_eq!(reduced.settings, whole.settings);
        assert!(reduced.revoked.is_some() && reduced.issued.is_some());
        drop((one, two));
        common.forget_unused();
        assert!(common.rules.is_empty());
    }
}
