//! The services of a deployment.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::Signal;

/// A process of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    /// The gateway, run as `gateway`.
    Gateway,
    /// The recorder's API, `recorder serve`.
    Api,
    /// The consuming recorder, `recorder consume`.
    Recorder,
    /// The stand-in LLM, where no provider is named.
    Llm,
    /// The broker, nats-server with JetStream.
    Nats,
    /// The database server, PostgreSQL.
    Postgres,
}

impl Service {
    /// All services, in the order of a stop.
    pub(crate) const ALL: [Self; 6] = [Self::Gateway, Self::Api, Self::Recorder, Self::Llm, Self::Nats, Self::Postgres];

    /// Name in files, messages and arguments.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Api => "api",
            Self::Recorder => "recorder",
            Self::Llm => "llm",
            Self::Nats => "nats",
            Self::Postgres => "postgres",
        }
    }

    /// The signal that stops the service in good order, and the time that the service is given.
    pub(crate) fn stop(self) -> (Signal, Duration) {
        let (signal, seconds) = match self {
            Self::Gateway | Self::Recorder => (Signal::TERM, 40),
            Self::Api => (Signal::TERM, 20),
            Self::Llm => (Signal::TERM, 10),
            Self::Nats => (Signal::TERM, 30),
            // SIGINT is PostgreSQL's fast shutdown; at SIGTERM PostgreSQL would wait until the clients have left.
            Self::Postgres => (Signal::INT, 60),
        };
        (signal, Duration::from_secs(seconds))
    }

    /// Returns true if the service has `/health/ready`.
    pub(crate) fn has_health(self) -> bool {
        matches!(self, Self::Gateway | Self::Api | Self::Recorder)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Service {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|service| service.name() == name).ok_or(())
    }
}
