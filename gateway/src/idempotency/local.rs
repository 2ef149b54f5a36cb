//! The idempotency keys that the process knows, bounded in number and time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use shared::id::ChatId;

use super::key::{KeyHash, KeyOwner, Progress};

/// The maximum number of known keys. The oldest keys are forgotten first, and stay in the bucket.
const MAX_LOCAL_KEYS: usize = 20_000;

/// The time for which a key is known.
const LOCAL_KEY_LIFETIME: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct LocalKeys {
    keys: HashMap<KeyHash, KeyOwner>,
    /// The claims, the oldest first. Some of the keys may have been forgotten already.
    order: VecDeque<(Instant, KeyHash, ChatId)>,
}

impl LocalKeys {
    /// Claims a key, or returns the chat that owns the key.
    pub(super) fn claim(&mut self, key_hash: KeyHash, owner: KeyOwner, now: Instant) -> Result<(), KeyOwner> {
        while let Some((since, key_hash, chat)) = self.order.front().copied() {
            if now.duration_since(since) <= LOCAL_KEY_LIFETIME && self.order.len() < MAX_LOCAL_KEYS {
                break;
            }
            self.order.pop_front();
            if self.keys.get(&key_hash).is_some_and(|known| known.chat == chat) {
                self.keys.remove(&key_hash);
            }
        }
        if let Some(known) = self.keys.get(&key_hash) {
            return Err(*known);
        }
        self.keys.insert(key_hash, owner);
        self.order.push_back((now, key_hash, owner.chat));
        Ok(())
    }

    /// Replaces the owner of a known key, for a new owner or new progress.
    pub(super) fn replace(&mut self, key_hash: KeyHash, owner: KeyOwner) {
        if let Some(known) = self.keys.get_mut(&key_hash) {
            // The process cannot see the end of another gateway's chat, so the key is forgotten and the next claim asks
            // the bucket.
            if known.chat != owner.chat && owner.progress == Progress::UnderWay {
                self.keys.remove(&key_hash);
            } else {
                *known = owner;
                if let Some((_, _, chat)) = self.order.iter_mut().rev().find(|(_, known, _)| *known == key_hash) {
                    *chat = owner.chat;
                }
            }
        }
    }

    /// Forgets a key, which is free from then on.
    pub(super) fn forget(&mut self, key_hash: KeyHash) {
        self.keys.remove(&key_hash);
    }
}

#[cfg(test)]
mod tests {
    use shared::id::{ConversationId, UserId};

    use super::*;

    fn key_hash(key: &str) -> KeyHash {
        KeyHash::new(&"ann".parse::<UserId>().unwrap(), key)
    }

    fn owner() -> KeyOwner {
        let conversation = ConversationId(uuid::Uuid::nil());
        KeyOwner { chat: ChatId::mint(), conversation, fingerprint: 1, progress: Progress::UnderWay }
    }

    #[test]
    fn a_key_is_claimed_once_until_it_is_released_or_expires() {
        let (mut keys, start, first) = (LocalKeys::default(), Instant::now(), owner());
        assert_eq!(keys.claim(key_hash("k"), first, start), Ok(()));
        assert_eq!(keys.claim(key_hash("k"), owner(), start), Err(first));
        let done = KeyOwner { progress: Progress::Done, ..first };
        keys.replace(key_hash("k"), done);
        assert_eq!(keys.claim(key_hash("k"), owner(), start), Err(done));
        keys.forget(key_hash("k"));
        let second = owner();
        assert_eq!(keys.claim(key_hash("k"), second, start), Ok(()));
        assert_eq!(keys.claim(key_hash("k"), owner(), start + LOCAL_KEY_LIFETIME), Err(second));
        assert_eq!(keys.claim(key_hash("k"), owner(), start + LOCAL_KEY_LIFETIME * 2), Ok(()));
    }

    #[test]
    fn the_oldest_keys_are_forgotten_first() {
        let (mut keys, start) = (LocalKeys::default(), Instant::now());
        for number in 0..MAX_LOCAL_KEYS + 10 {
            keys.claim(key_hash(&number.to_string()), owner(), start).unwrap();
        }
        assert!(keys.keys.len() <= MAX_LOCAL_KEYS && keys.order.len() <= MAX_LOCAL_KEYS);
        assert!(keys.claim(key_hash("0"), owner(), start).is_ok());
        assert!(keys.claim(key_hash("20005"), owner(), start).is_err());
    }
}
