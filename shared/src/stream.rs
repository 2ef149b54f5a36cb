//! Names and limits of the JetStream stream, the stream's consumer and the idempotency bucket, as both services expect.

use std::time::Duration;

/// The name of the stream that holds all events.
pub const NAME: &str = "CHATS";

/// The subjects of the stream.
pub const SUBJECTS: &str = "chats.>";

/// The name of the durable consumer that all recorders share.
pub const CONSUMER: &str = "recorder";

/// The time during which the broker drops a repeated event id. An optimisation only: correctness never depends on the
/// window, and every id in the window costs the broker about 240 bytes of memory.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The time after which the broker delivers an unacknowledged event to another recorder: the fail-over time for events
/// in the hands of a killed recorder. A living recorder tells the broker of work in progress, however long a batch takes.
pub const ACK_WAIT: Duration = Duration::from_secs(20);

/// The longest acknowledgement timeout that recorders accept: the value of consumers made by earlier versions.
pub const MAX_ACK_WAIT: Duration = Duration::from_secs(60);

/// The maximum number of unacknowledged events of all recorders together.
pub const MAX_ACK_PENDING: i64 = 20_000;

/// The name of the key-value bucket that maps each `Idempotency-Key` to a chat.
pub const IDEMPOTENCY_BUCKET: &str = "IDEMPOTENCY";

/// The time for which an idempotency key is kept in the bucket.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The maximum size of the idempotency bucket, in bytes. In a full bucket no more keys are stored: a new key is then
/// known only to the gateway that received the key.
pub const IDEMPOTENCY_MAX_BYTES: i64 = 256 << 20;

/// The name of the key-value bucket in which gateways grant themselves parts of limits.
pub const GRANTS_BUCKET: &str = "GRANTS";

/// The time for which an entry of the bucket of grants is kept after its last change. Gateways renew the entries that they hold.
pub const GRANTS_LIFETIME: Duration = Duration::from_secs(600);

/// The maximum size of the bucket of grants, in bytes: some hundred thousand users with limits in ten minutes.
pub const GRANTS_MAX_BYTES: i64 = 256 << 20;

/// Returns the server URLs of a setting: a single URL, or several URLs separated by commas.
pub fn servers(url: &str) -> Vec<&str> {
    url.split(',').map(str::trim).filter(|server| !server.is_empty()).collect()
}
