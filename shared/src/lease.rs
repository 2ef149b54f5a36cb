//! Leases of gateways. A gateway renews a lease while the process runs; a recorder ends the open chats of a gateway
//! whose lease has expired.
//!
//! A lease is an entry in a key-value bucket of the broker, and entries of the bucket expire. An expired lease alone is
//! no proof of a lost gateway: the broker may have been unreachable while the gateway was running. See the recorder's
//! `orphans`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// The name of the key-value bucket, with one entry for each gateway instance.
pub const BUCKET: &str = "GATEWAYS";

/// The default lifetime of an entry that is not renewed: the bucket's `max_age`, unless the operator sets another.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// The minimum lifetime that an operator can set.
pub const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// The value of an entry, stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The name of the gateway instance, as in events.
    pub instance: String,
    /// The id of the run: a new UUID each time the gateway process starts.
    pub incarnation: Uuid,
    /// The id of the journal's directory, which one process at a time can use: a run that finds the lease of another run
    /// with the same journal knows that the other run has ended. Absent in leases of version 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Uuid>,
    /// A time by the gateway's clock: the start of the run, or the start time of a chat of this run if a chat has an earlier
    /// one, because the clock was set back. No chat of the run has an earlier start time.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The time of the last renewal, by the gateway's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub renewed_at: OffsetDateTime,
}

/// Returns the interval between renewals: a quarter of the lifetime, so that a single late renewal does not expire the
/// lease.
pub fn renewal_interval(lifetime: Duration) -> Duration {
    lifetime / 4
}

/// Returns the bucket key of a gateway instance, or `None` if the instance name is invalid.
///
/// Valid names have 1 to 64 characters: ASCII letters, digits, `-`, `_` and `.`. Each dot becomes `=`, because a bucket
/// key may have a dot only between other characters.
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
