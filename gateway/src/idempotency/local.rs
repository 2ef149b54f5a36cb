//! The keys that this process knows of, within bounds of number and time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use shared::id::ChatId;

use super::key::{Progress, Taken, Token};

/// How many keys are known at most: the oldest are forgotten first. The bucket knows them still.
const MAX_KEYS: usize = 20_000;

/// How long a key is known.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct Known {
    keys: HashMap<Token, Taken>,
    /// When each was claimed, the oldest first. Some are forgotten already.
    order: VecDeque<(Instant, Token, ChatId)>,
}

impl Known {
    /// Claims a key, or says whose it is.
    pub(super) fn claim(&mut self, token: Token, taken: Taken, now: Instant) -> Result<(), Taken> {
        while let Some((since, token, chat)) = self.order.front().copied() {
            if now.duration_since(since) <= KNOWN_FOR && self.order.len() < MAX_KEYS {
                break;
            }
            self.order.pop_front();
            if self.keys.get(&token).is_some_and(|known| known.chat == chat) {
                self.keys.remove(&token);
            }
        }
        if let Some(known) = self.keys.get(&token) {
            return Err(*known);
        }
        self.keys.insert(token, taken);
        self.order.push_back((now, token, taken.chat));
        Ok(())
    }

    /// What is known of the key changes.
    pub(super) fn replace(&mut self, token: Token, taken: Taken) {
        if let Some(known) = self.keys.get_mut(&token) {
            // Another gateway's chat goes on where nobody here sees it end: asked again, the bucket knows better.
            if known.chat != taken.chat && taken.progress == Progress::UnderWay {
                self.keys.remove(&token);
            } else {
                *known = taken;
                if let Some((_, _, chat)) = self.order.iter_mut().rev().find(|(_, known, _)| *known == token) {
                    *chat = taken.chat;
                }
            }
        }
    }

    /// The key is free.
    pub(super) fn forget(&mut self, token: Token) {
        self.keys.remove(&token);
    }
}

#[cfg(test)]
mod tests {
    use shared::id::{ConversationId, UserId};

    use super::*;

    fn token(key: &str) -> Token {
        Token::new(&"ann".parse::<UserId>().unwrap(), key)
    }

    fn taken() -> Taken {
        let conversation = ConversationId(uuid::Uuid::nil());
        Taken { chat: ChatId::mint(), conversation, fingerprint: 1, progress: Progress::UnderWay }
    }

    #[test]
    fn a_key_is_claimed_once_until_it_is_given_back_or_old() {
        let (mut known, start, first) = (Known::default(), Instant::now(), taken());
        assert_eq!(known.claim(token("k"), first, start), Ok(()));
        assert_eq!(known.claim(token("k"), taken(), start), Err(first));
        let done = Taken { progress: Progress::Done, ..first };
        known.replace(token("k"), done);
        assert_eq!(known.claim(token("k"), taken(), start), Err(done));
        known.forget(token("k"));
        let second = taken();
        assert_eq!(known.claim(token("k"), second, start), Ok(()));
        assert_eq!(known.claim(token("k"), taken(), start + KNOWN_FOR), Err(second));
        assert_eq!(known.claim(token("k"), taken(), start + KNOWN_FOR * 2), Ok(()));
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let (mut known, start) = (Known::default(), Instant::now());
        for number in 0..MAX_KEYS + 10 {
            known.claim(token(&number.to_string()), taken(), start).unwrap();
        }
        assert!(known.keys.len() <= MAX_KEYS && known.order.len() <= MAX_KEYS);
        assert!(known.claim(token("0"), taken(), start).is_ok());
        assert!(known.claim(token("20005"), taken(), start).is_err());
    }
}
