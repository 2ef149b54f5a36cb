//! Limits on the load that callers can put on the gateway.

use std::time::Duration;

use shared::config::{ConfigError, Environment, malformed};

/// The file descriptors that are kept for the journal, the connections to the broker and the recorder, the log, and unused
/// connections to upstreams.
const RESERVED_DESCRIPTORS: u64 = 256;

/// The maximum of `GATEWAY_DRAIN_DELAY`. A load balancer notices within seconds.
const MAX_DRAIN_DELAY: Duration = Duration::from_secs(600);

/// Limits on the load that callers can put on the gateway, read from the environment.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum size of a request body in bytes. The bound holds before and after decoding.
    /// `GATEWAY_MAX_BODY_BYTES`, default 64 MiB.
    pub max_body_bytes: usize,
    /// The maximum number of bytes that all request bodies may hold at a time. `GATEWAY_MAX_BODY_MEMORY`, default 1 GiB.
    pub max_body_memory: usize,
    /// The share of the body memory that the bodies of one user may hold, and the share of the chats' places that unfinished
    /// bodies of one user may take, in per cent. `GATEWAY_BODY_USER_SHARE`, default 50.
    pub body_user_share: usize,
    /// The minimum rate of a request body after the read timeout, in bytes per second. `GATEWAY_MIN_BODY_RATE`, default
    /// 65,536.
    pub min_body_rate: u64,
    /// The time limit for a request's head to arrive, and again for the body. `GATEWAY_READ_TIMEOUT`, default 30 s.
    /// The limit for a body grows with the bytes that arrive, see `min_body_rate`.
    pub read_timeout: Duration,
    /// The maximum silence within an answer. `GATEWAY_IDLE_TIMEOUT`, default 300 s.
    pub idle_timeout: Duration,
    /// The maximum duration of a whole answer. `GATEWAY_TOTAL_TIMEOUT`, default 3600 s.
    pub total_timeout: Duration,
    /// The maximum number of chats at a time. `GATEWAY_MAX_CHATS`, default 10,000.
    pub max_chats: usize,
    /// The share of the chats' places that one user may take, in per cent; at least one place. `GATEWAY_CHATS_USER_SHARE`, default 50.
    pub chats_user_share: usize,
    /// The maximum number of chats in the background that this gateway follows. `GATEWAY_MAX_BACKGROUND_CHATS`, default 1,000.
    pub max_background_chats: usize,
    /// The time after which a chat in the background is no longer followed. `GATEWAY_BACKGROUND_TIMEOUT`, default 12 h.
    pub background_timeout: Duration,
    /// The bounds on what each user may do in a minute or a day.
    pub user_rates: UserRateLimits,
    /// The maximum number of client connections at a time. `GATEWAY_MAX_CONNECTIONS`, default 20,000.
    pub max_connections: usize,
    /// The time from a stop request until the listener closes. Requests are served meanwhile. `GATEWAY_DRAIN_DELAY`, default
    /// 0 s, at most 10 minutes.
    pub drain_delay: Duration,
    /// The time that running chats get to finish after the drain delay. `GATEWAY_SHUTDOWN_DEADLINE`, default 30 s.
    pub shutdown_deadline: Duration,
    /// The silence after which a client gets a comment, or `None` for no comments. `GATEWAY_KEEP_ALIVE_COMMENTS`,
    /// default off.
    pub keep_alive_comments: Option<Duration>,
}

/// The bounds on what each user may do on one gateway, whatever limits are set.
#[derive(Clone, Copy, Debug)]
pub struct UserRateLimits {
    /// The maximum number of conversations created ahead of their first chat. `GATEWAY_USER_CONVERSATIONS_PER_MINUTE`, default 6,000.
    pub conversations_per_minute: u64,
    /// The maximum number of idempotency keys. `GATEWAY_USER_IDEMPOTENCY_KEYS_PER_MINUTE`, default 30,000.
    pub idempotency_keys_per_minute: u64,
    /// The maximum number of bytes of the bodies of chats and calls. `GATEWAY_USER_BODY_BYTES_PER_DAY`, default 20 GiB.
    pub body_bytes_per_day: u64,
}

impl UserRateLimits {
    fn read(env: &Environment) -> Result<Self, ConfigError> {
        let read = |name, default: u64, expected| match env.optional_or(name, default, expected)? {
            0 => Err(malformed(name, expected, &0)),
            max => Ok(max),
        };
        let a_minute = "a number from 1";
        Ok(Self {
            conversations_per_minute: read("GATEWAY_USER_CONVERSATIONS_PER_MINUTE", 6_000, a_minute)?,
            idempotency_keys_per_minute: read("GATEWAY_USER_IDEMPOTENCY_KEYS_PER_MINUTE", 30_000, a_minute)?,
            body_bytes_per_day: read("GATEWAY_USER_BODY_BYTES_PER_DAY", 20 << 30, "a number of bytes from 1")?,
        })
    }
}

impl Limits {
    /// Reads the limits from the environment, and checks their ranges.
    pub(crate) fn read(env: &Environment) -> Result<Self, ConfigError> {
        let max_body_bytes: usize = env.optional_or("GATEWAY_MAX_BODY_BYTES", 64 << 20, "a number of bytes")?;
        let standard_memory = (1 << 30).max(max_body_bytes.saturating_mul(4));
        let limits = Self {
            max_body_bytes,
            max_body_memory: env.optional_or("GATEWAY_MAX_BODY_MEMORY", standard_memory, "a number of bytes")?,
            body_user_share: env.optional_or("GATEWAY_BODY_USER_SHARE", 50, "a percentage")?,
            min_body_rate: env.optional_or("GATEWAY_MIN_BODY_RATE", 64 << 10, "a number of bytes per second")?,
            read_timeout: env.duration("GATEWAY_READ_TIMEOUT", Duration::from_secs(30))?,
            idle_timeout: env.duration("GATEWAY_IDLE_TIMEOUT", Duration::from_secs(300))?,
            total_timeout: env.duration("GATEWAY_TOTAL_TIMEOUT", Duration::from_secs(3600))?,
            max_chats: env.optional_or("GATEWAY_MAX_CHATS", 10_000, "a number of chats")?,
            chats_user_share: env.optional_or("GATEWAY_CHATS_USER_SHARE", 50, "a percentage")?,
            max_background_chats: env.optional_or("GATEWAY_MAX_BACKGROUND_CHATS", 1_000, "a number of chats")?,
            background_timeout: env.duration("GATEWAY_BACKGROUND_TIMEOUT", Duration::from_secs(12 * 3600))?,
            user_rates: UserRateLimits::read(env)?,
            max_connections: env.optional_or("GATEWAY_MAX_CONNECTIONS", 20_000, "a number of connections")?,
            drain_delay: env.duration("GATEWAY_DRAIN_DELAY", Duration::ZERO)?,
            shutdown_deadline: env.duration("GATEWAY_SHUTDOWN_DEADLINE", Duration::from_secs(30))?,
            keep_alive_comments: match env.text("GATEWAY_KEEP_ALIVE_COMMENTS") {
                None | Some("off") => None,
                Some(_) => Some(env.duration("GATEWAY_KEEP_ALIVE_COMMENTS", Duration::ZERO)?),
            },
        };
        if limits.keep_alive_comments.is_some_and(|every| every < Duration::from_millis(100)) {
            let expected = "off, or a duration of at least 100ms";
            return Err(malformed("GATEWAY_KEEP_ALIVE_COMMENTS", expected, &"too short"));
        }
        if limits.drain_delay > MAX_DRAIN_DELAY {
            return Err(malformed("GATEWAY_DRAIN_DELAY", "a duration of at most 10m", &"too long"));
        }
        limits.check_body_limits()?;
        if limits.max_chats == 0 || limits.max_chats > 1_000_000 {
            return Err(malformed("GATEWAY_MAX_CHATS", "a number of chats from 1 to 1000000", &limits.max_chats));
        }
        if !(1..=1_000_000).contains(&limits.max_background_chats) {
            let expected = "a number of chats from 1 to 1000000";
            return Err(malformed("GATEWAY_MAX_BACKGROUND_CHATS", expected, &limits.max_background_chats));
        }
        if !(1..=100).contains(&limits.chats_user_share) {
            let expected = "a percentage from 1 to 100";
            return Err(malformed("GATEWAY_CHATS_USER_SHARE", expected, &limits.chats_user_share));
        }
        if limits.max_connections == 0 || limits.max_connections > 1_000_000 {
            return Err(malformed(
                "GATEWAY_MAX_CONNECTIONS",
                "a number of connections from 1 to 1000000",
                &limits.max_connections,
            ));
        }
        Ok(limits)
    }

    fn check_body_limits(&self) -> Result<(), ConfigError> {
        if self.max_body_memory / 2 < self.max_body_bytes {
            let expected = "a number of bytes, at least twice GATEWAY_MAX_BODY_BYTES";
            return Err(malformed("GATEWAY_MAX_BODY_MEMORY", expected, &self.max_body_memory));
        }
        if !(1..=100).contains(&self.body_user_share) {
            return Err(malformed("GATEWAY_BODY_USER_SHARE", "a percentage from 1 to 100", &self.body_user_share));
        }
        if self.min_body_rate == 0 {
            return Err(malformed("GATEWAY_MIN_BODY_RATE", "a number of bytes per second from 1", &self.min_body_rate));
        }
        Ok(())
    }

    /// Returns the number of file descriptors that the limits can need: one for each client connection, one for the
    /// upstream connection of each chat, and the reserve.
    pub fn needed_descriptors(&self) -> u64 {
        (self.max_connections + self.max_chats) as u64 + RESERVED_DESCRIPTORS
    }

    /// Lowers the maximum numbers of chats and connections to numbers that `descriptors` suffice for. A number that needs at
    /// most half of them is kept, and only the other is lowered; otherwise both are lowered in proportion. At least one
    /// chat and two connections remain. A chat beyond the lowered number is refused like any chat beyond
    /// `GATEWAY_MAX_CHATS`; without the lower number, chats, health checks and the journal would run out of descriptors
    /// together.
    #[must_use]
    pub fn within_descriptors(self, descriptors: u64) -> Self {
        if descriptors >= self.needed_descriptors() {
            return self;
        }
        let available = usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX);
        let (chats, connections) = (self.max_chats, self.max_connections);
        let (chats, connections) = if chats <= available / 2 {
            (chats, connections.min(available - chats))
        } else if connections <= available / 2 {
            (chats.min(available - connections), connections)
        } else {
            let configured = (chats + connections) as u128;
            let share = |limit: usize| usize::try_from(limit as u128 * available as u128 / configured).unwrap_or(limit);
            (share(chats), share(connections))
        };
        Self { max_chats: chats.max(1), max_connections: connections.max(self.max_connections.min(2)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(max_chats: usize, max_connections: usize) -> Limits {
        let defaults = Limits::read(&Environment::from_pairs::<&str, &str>([])).unwrap();
        Limits { max_chats, max_connections, ..defaults }
    }

    #[test]
    fn sufficient_descriptors_change_nothing() {
        let limits = limits(10_000, 20_000);
        assert_eq!(limits.needed_descriptors(), 30_256);
        let within = limits.within_descriptors(30_256);
        assert_eq!((within.max_chats, within.max_connections), (10_000, 20_000));
        let within = limits.within_descriptors(1024);
        assert_eq!((within.max_chats, within.max_connections), (256, 512));
    }

    #[test]
    fn a_number_that_fits_is_kept() {
        let within = limits(4, 20_000).within_descriptors(1024);
        assert_eq!((within.max_chats, within.max_connections), (4, 764));
        let within = limits(20_000, 4).within_descriptors(1024);
        assert_eq!((within.max_chats, within.max_connections), (764, 4));
    }

    #[test]
    fn the_drain_delay_has_a_bound() {
        let read = |delay| Limits::read(&Environment::from_pairs([("GATEWAY_DRAIN_DELAY", delay)]));
        assert_eq!(read("15s").unwrap().drain_delay, Duration::from_secs(15));
        assert_eq!(read("10m").unwrap().drain_delay, MAX_DRAIN_DELAY);
        let refused = read("11m").unwrap_err().to_string();
        assert!(refused.contains("GATEWAY_DRAIN_DELAY"), "{refused}");
    }

    proptest! {
        #[test]
        fn lowered_limits_fit(
            chats in 1..=1_000_000_usize, connections in 1..=1_000_000_usize, descriptors in 300..2_000_000_u64,
        ) {
            let limits = limits(chats, connections);
            let within = limits.within_descriptors(descriptors);
            prop_assert!(within.needed_descriptors() <= descriptors.max(RESERVED_DESCRIPTORS + 3) + 2);
            prop_assert!(within.max_chats >= 1 && within.max_chats <= chats.max(1));
            prop_assert!(within.max_connections >= 2 || connections == 1);
        }
    }
}
