//! The bounds of what callers can make the gateway do.

use std::time::Duration;

use shared::config::{ConfigError, Environment, malformed};

/// The bounds of what callers can make the gateway do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The size of a request body.
    pub max_body_bytes: usize,
    /// How long a request's head, and then its body, may take to arrive.
    pub read_timeout: Duration,
    /// How long an answer may be silent.
    pub idle_timeout: Duration,
    /// How long an answer may take altogether.
    pub total_timeout: Duration,
    /// Chats at once.
    pub max_chats: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// How long running chats may take to finish when the gateway is asked to stop.
    pub shutdown_deadline: Duration,
    /// After how long a silence clients get a comment, if they do.
    pub keep_alive_comments: Option<Duration>,
}

impl Limits {
    /// Reads the environment.
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
