//! The stream and its consumer, as both services expect to find them.

use std::time::Duration;

/// The stream that holds the record.
pub const NAME: &str = "CHATS";

/// Everything in it.
pub const SUBJECTS: &str = "chats.>";

/// The consumer that all recorders share.
pub const CONSUMER: &str = "recorder";

/// How long the broker itself notices a repeated event id. An optimisation only: correctness never rests on it, and every
/// id in the window costs the broker about 240 bytes.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How long the broker waits for a recorder before it gives its events to another: the fail-over time for work in hand.
pub const ACK_WAIT: Duration = Duration::from_secs(60);

/// How many events may be in the hands of all recorders together.
pub const MAX_ACK_PENDING: i64 = 20_000;

/// The bucket that keeps which chat an `Idempotency-Key` belongs to.
pub const IDEMPOTENCY_BUCKET: &str = "IDEMPOTENCY";

/// How long a key is kept in it.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// How large the bucket may grow. Past that, keys are known to the gateway that they came to and to no other.
pub const IDEMPOTENCY_MAX_BYTES: i64 = 256 << 20;

/// The servers that a setting names: one, or several with commas between them.
pub fn servers(url: &str) -> Vec<&str> {
    url.split(',').map(str::trim).filter(|server| !server.is_empty()).collect()
}
