//! Leases: how a gateway says that it lives, so that its open chats can be ended for it when it does not.
//!
//! A lease is an entry in a key-value bucket of the broker, whose entries expire. Nothing is decided by a lease alone: the
//! broker may have been away while the gateway was not. See the recorder's `orphans`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// The bucket that holds them, one entry a gateway instance.
pub const BUCKET: &str = "GATEWAYS";

/// How long an entry lives unless it is renewed, where an operator does not choose otherwise: the bucket's `max_age`.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// The shortest life of an entry that can be chosen.
pub const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The gateway's name, as in events.
    pub instance: String,
    /// This run of it: another one each time the process starts.
    pub incarnation: Uuid,
    /// When this run began, by the gateway's clock: before its first chat.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When it was renewed, by the gateway's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub renewed_at: OffsetDateTime,
}

/// How often an entry that lives so long has to be renewed: several times, so that one that is late does no harm.
pub fn renewal_interval(lifetime: Duration) -> Duration {
    lifetime / 4
}

/// The key of an instance's entry; none for a name that no gateway can have: theirs are 1 to 64 letters, digits, `-`, `_`
/// and `.`, and a key may have a dot only between other characters.
pub fn key(instance: &str) -> Option<String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_valid = (1..=64).contains(&instance.len()) && instance.chars().all(is_allowed);
    is_valid.then(|| instance.replace('.', "="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_and_distinct() {
        assert_eq!(key("gateway-1_a").as_deref(), Some("gateway-1_a"));
        assert_eq!(key("..a.").as_deref(), Some("==a="));
        assert_eq!(key("a=b"), None);
        assert_eq!(key(""), None);
        assert_eq!(renewal_interval(DEFAULT_LIFETIME), Duration::from_secs(15));
    }
}
