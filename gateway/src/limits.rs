//! Limits on the load that callers can put on the gateway.

use std::time::Duration;

use shared::config::{ConfigError, Environment, malformed};

/// Limits on the load that callers can put on the gateway, read from the environment.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum size of a request body in bytes. `GATEWAY_MAX_BODY_BYTES`, default 3 MiB.
    pub max_body_bytes: usize,
    /// The time limit for a request's head to arrive, and again for the body. `GATEWAY_READ_TIMEOUT`, default 30 s.
    pub read_timeout: Duration,
    /// The maximum silence within an answer. `GATEWAY_IDLE_TIMEOUT`, default 300 s.
    pub idle_timeout: Duration,
    /// The maximum duration of a whole answer. `GATEWAY_TOTAL_TIMEOUT`, default 3600 s.
    pub total_timeout: Duration,
    /// The maximum number of chats at a time. `GATEWAY_MAX_CHATS`, default 10,000.
    pub max_chats: usize,
    /// The maximum number of client connections at a time. `GATEWAY_MAX_CONNECTIONS`, default 20,000.
    pub max_connections: usize,
    /// The time that running chats get to finish after a stop request. `GATEWAY_SHUTDOWN_DEADLINE`, default 30 s.
    pub shutdown_deadline: Duration,
    /// The silence after which a client gets a comment, or `None` for no comments. `GATEWAY_KEEP_ALIVE_COMMENTS`,
    /// default off.
    pub keep_alive_comments: Option<Duration>,
}

impl Limits {
    /// Reads the limits from the environment, and checks their ranges.
    pub(crate) fn read(env: &Environment) -> Result<Self, ConfigError> {
        let limits = Self {
            max_body_bytes: env.optional_or("GATEWAY_MAX_BODY_BYTES", 3 << 20, "a number of bytes")?,
            read_timeout: env.duration("GATEWAY_READ_TIMEOUT", Duration::from_secs(30))?,
            idle_timeout: env.duration("GATEWAY_IDLE_TIMEOUT", Duration::from_secs(300))?,
            total_timeout: env.duration("GATEWAY_TOTAL_TIMEOUT", Duration::from_secs(3600))?,
            max_chats: env.optional_or("GATEWAY_MAX_CHATS", 10_000, "a number of chats")?,
            max_connections: env.optional_or("GATEWAY_MAX_CONNECTIONS", 20_000, "a number of connections")?,
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
        if limits.max_chats == 0 || limits.max_chats > 1_000_000 {
            return Err(malformed("GATEWAY_MAX_CHATS", "a number of chats from 1 to 1000000", &limits.max_chats));
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
}
