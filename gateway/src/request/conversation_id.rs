//! Conversation ids are capabilities: an id works only for the user for whom the id was made. The gateway verifies an
//! id by its tag alone, without a database.
//!
//! ```text
//!  bits  48            4        1         3     8        2         22       40
//!        time in ms    version  derived?  key   random   variant   random   tag
//! ```
//!
//! The tag is a truncated HMAC-SHA-256 over the user and every other bit. Forging an id takes 2^40 requests, and each
//! failed request is answered with 404. A new id carries the time of its creation, so that ids sort by time. An id
//! derived from a client's own thread id carries bits of a hash in place of time and randomness, so that the same
//! thread always leads to the same id.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use shared::id::{ConversationId, UserId};
use time::OffsetDateTime;
use uuid::Uuid;

/// The keys that sign and verify conversation ids. All gateways of a deployment share the same keys.
pub struct ConversationKeys {
    /// The first key signs new ids. The last key derives ids from thread ids, so that adding a new first key leaves the
    /// ids of threads unchanged. Never empty.
    keys: Vec<ConversationKey>,
    /// Keys that only verify ids, like every key: a new key that not all gateways know yet, or an old key that is to be
    /// retired.
    check_only: Vec<ConversationKey>,
    /// Counter for the random bits of new ids: ids of the same millisecond always differ within a process. The counter
    /// starts at a random number, so that ids of two processes almost surely differ too.
    counter: AtomicU32,
}

struct ConversationKey {
    number: u8,
    mac: Hmac<Sha256>,
}

/// The expected format of a key list, for error messages.
pub const EXPECTED_KEYS: &str = "comma-separated keys, each a number from 0 to 7, a colon and 32 bytes in base64url, optionally followed by :check; at least one key without :check";

/// The suffix of a key that only verifies ids.
const CHECK_SUFFIX: &str = ":check";

const TAG_BYTES: usize = 5;

impl std::fmt::Debug for ConversationKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().chain(&self.check_only).map(|key| key.number)).finish()
    }
}

impl ConversationKeys {
    /// Parses a key list such as `2:<base64url>,1:<base64url>:check`. `None` if a key is malformed, if a key number is
    /// repeated, or if each key only verifies ids.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut keys, mut check_only): (Vec<ConversationKey>, Vec<ConversationKey>) = Default::default();
        for part in text.split(',') {
            let part = part.trim();
            let (part, list) = match part.strip_suffix(CHECK_SUFFIX) {
                Some(part) => (part, &mut check_only),
                None => (part, &mut keys),
            };
            let (number, key) = part.split_once(':')?;
            let number: u8 = number.parse().ok().filter(|number| *number < 8)?;
            let key = URL_SAFE_NO_PAD.decode(key.trim_end_matches('=')).ok().filter(|key| key.len() == 32)?;
            list.push(ConversationKey { number, mac: Hmac::new_from_slice(&key).ok()? });
        }
        let numbers: BTreeSet<u8> = keys.iter().chain(&check_only).map(|key| key.number).collect();
        let is_valid = !keys.is_empty() && numbers.len() == keys.len() + check_only.len();
        is_valid.then(|| Self { keys, check_only, counter: AtomicU32::new(rand::random()) })
    }

    /// Makes a new id for a user.
    pub fn mint(&self, user: &UserId, now: OffsetDateTime) -> ConversationId {
        let key = &self.keys[0];
        let millis = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let random = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        bytes[6] = key.number;
        bytes[7] = random[0];
        bytes[8..11].copy_from_slice(&random[1..]);
        key.seal(user, bytes)
    }

    /// Derives the conversation id of a user's own thread id: always the same id for the same user and thread, and a
    /// different id for every other user.
    pub fn derive(&self, user: &UserId, thread: &str) -> ConversationId {
        let key = &self.keys[self.keys.len() - 1];
        let hash = key.hash(&[b"thread", user.as_str().as_bytes(), thread.as_bytes()]);
        let mut bytes = [0; 16];
        bytes[..11].copy_from_slice(&hash[..11]);
        bytes[6] = 0b1000 | key.number;
        key.seal(user, bytes)
    }

    /// Parses an id and verifies that the id was made for this user. `None` otherwise.
    pub fn verify(&self, user: &UserId, text: &str) -> Option<ConversationId> {
        let id = Uuid::try_parse(text).ok()?;
        if id.get_version_num() != 8 {
            return None;
        }
        let number = id.as_bytes()[6] & 0b0111;
        let key = self.keys.iter().chain(&self.check_only).find(|key| key.number == number)?;
        let bytes = *id.as_bytes();
        key.tag(user, &bytes).verify_truncated_left(&bytes[11..]).ok()?;
        Some(ConversationId(id))
    }
}

impl ConversationKey {
    /// Sets the version, the variant and the tag.
    fn seal(&self, user: &UserId, bytes: [u8; 16]) -> ConversationId {
        let mut bytes = *uuid::Builder::from_custom_bytes(bytes).as_uuid().as_bytes();
        let tag = self.tag(user, &bytes).finalize().into_bytes();
        bytes[11..].copy_from_slice(&tag[..TAG_BYTES]);
        ConversationId(Uuid::from_bytes(bytes))
    }

    fn tag(&self, user: &UserId, bytes: &[u8; 16]) -> Hmac<Sha256> {
        self.absorb(&[b"id", user.as_str().as_bytes(), &bytes[..11]])
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.absorb(parts).finalize().into_bytes().into()
    }

    /// Hashes a list of parts. The length of each part is hashed before the part, so that two different lists never
    /// hash the same bytes.
    fn absorb(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8, byte: u8) -> String {
        format!("{number}:{}", URL_SAFE_NO_PAD.encode([byte; 32]))
    }

    fn keys() -> ConversationKeys {
        ConversationKeys::parse(&key(1, 7)).unwrap()
    }

    fn user(id: &str) -> UserId {
        id.parse().unwrap()
    }

    #[test]
    fn an_id_is_valid_for_its_user_alone() {
        let (keys, alice, bob) = (keys(), user("alice"), user("bob"));
        let id = keys.mint(&alice, OffsetDateTime::now_utc()).to_string();
        assert!(keys.verify(&alice, &id).is_some());
        assert!(keys.verify(&bob, &id).is_none());
        assert!(keys.verify(&alice, "not an id").is_none());
        assert!(keys.verify(&alice, &Uuid::now_v7().to_string()).is_none());
    }

    #[test]
    fn ids_of_one_millisecond_differ_and_sort_by_time() {
        let (keys, alice) = (keys(), user("alice"));
        let now = OffsetDateTime::now_utc();
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| keys.mint(&alice, now)).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(keys.mint(&alice, now) < keys.mint(&alice, now + time::Duration::milliseconds(1)));
    }

    #[test]
    fn a_thread_leads_to_one_conversation_per_user_on_any_gateway() {
        let (here, there) = (keys(), keys());
        let (alice, bob) = (user("alice"), user("bob"));
        let id = here.derive(&alice, "thread-1");
        assert_eq!(id, there.derive(&alice, "thread-1"));
        assert_ne!(id, here.derive(&alice, "thread-2"));
        assert_ne!(id, here.derive(&bob, "thread-1"));
        assert!(
            here.verify(&alice, &id.to_string()).is_some(),
            "a derived id must be valid in later requests of the same user"
        );
        assert!(here.verify(&bob, &id.to_string()).is_none());
        // The boundary between user and thread is part of the hashed bytes.
        assert_ne!(here.derive(&user("ab"), "c"), here.derive(&user("a"), "bc"));
    }

    #[test]
    fn rotation_keeps_old_ids_and_threads() {
        let alice = user("alice");
        let old = keys();
        let new = ConversationKeys::parse(&format!("{},{}", key(2, 9), key(1, 7))).unwrap();
        let id = old.mint(&alice, OffsetDateTime::now_utc()).to_string();
        assert!(new.verify(&alice, &id).is_some());
        assert_eq!(new.derive(&alice, "t"), old.derive(&alice, "t"));
        let id = new.mint(&alice, OffsetDateTime::now_utc()).to_string();
        assert!(old.verify(&alice, &id).is_none(), "the old gateway does not know the new key");
    }

    /// The steps of docs/OPERATIONS.md. In each step some gateways have the list before and some the list after.
    #[test]
    fn a_rotation_in_steps_is_safe_at_every_gateway() {
        let (old, new) = (key(1, 7), key(2, 9));
        let lists = [old.clone(), format!("{old},{new}:check"), format!("{new},{old}"), format!("{new},{old}:check")];
        let (alice, now) = (user("alice"), OffsetDateTime::now_utc());
        let keys: Vec<_> = lists.iter().map(|list| ConversationKeys::parse(list).unwrap()).collect();
        for step in keys.windows(2) {
            for (from, to) in [(&step[0], &step[1]), (&step[1], &step[0])] {
                for id in [from.mint(&alice, now), from.derive(&alice, "thread")] {
                    assert!(to.verify(&alice, &id.to_string()).is_some(), "from {from:?} to {to:?}");
                }
            }
        }
        // Until the last step a thread keeps its conversation at every gateway.
        for list in &keys[..3] {
            assert_eq!(list.derive(&alice, "thread"), keys[0].derive(&alice, "thread"));
        }
        assert_ne!(keys[2].mint(&alice, now).0.as_bytes()[6], keys[1].mint(&alice, now).0.as_bytes()[6]);
        let retired = ConversationKeys::parse(&new).unwrap();
        assert!(retired.verify(&alice, &keys[3].mint(&alice, now).to_string()).is_some());
        assert!(retired.verify(&alice, &keys[0].mint(&alice, now).to_string()).is_none());
    }

    #[test]
    fn malformed_key_lists_are_refused() {
        for text in [
            "",
            "1",
            "1:AAAA",
            "9:x",
            &format!("8:{}", &key(0, 1)[2..]),
            &format!("{0},{0}", key(1, 1)),
            &format!("{0}:check", key(1, 1)),
            &format!("{0},{0}:check", key(1, 1)),
            &format!("{0}:mint", key(1, 1)),
        ] {
            assert!(ConversationKeys::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_with_a_changed_bit_is_refused(bit in 0..128_usize) {
            let (keys, alice) = (keys(), user("alice"));
            let mut bytes = *keys.mint(&alice, OffsetDateTime::now_utc()).0.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(keys.verify(&alice, &Uuid::from_bytes(bytes).to_string()).is_none());
        }
    }
}
