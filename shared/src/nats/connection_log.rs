//! The log of one connection to the broker: each change once, not each try.

use std::sync::Mutex;

use async_nats::{ClientError, Event, ServerError};

/// Logs the events of a connection. A refusal or an error that repeats is logged once until the connection is made.
#[derive(Debug)]
pub struct ConnectionLog {
    /// The name of the connection, as the broker shows it too.
    name: String,
    /// The settings with the credentials, for the message about a refusal.
    settings: &'static str,
    /// The last problem that was logged since the connection was last made.
    last_problem: Mutex<Option<String>>,
}

impl ConnectionLog {
    /// Makes the log of the connection called `name`. `settings` are the settings with the credentials.
    pub(super) fn new(name: &str, settings: &'static str) -> Self {
        Self { name: name.to_owned(), settings, last_problem: Mutex::default() }
    }

    /// Logs an event, unless the same problem was logged last.
    pub(super) fn observe(&self, event: &Event) {
        let name = self.name.as_str();
        let problem = match event {
            Event::Connected => {
                *self.last_problem() = None;
                tracing::info!(connection = name, "connected to the broker");
                return;
            }
            Event::LameDuckMode | Event::Draining | Event::Closed => {
                tracing::info!(connection = name, %event, "the connection to the broker is ending");
                return;
            }
            Event::ServerError(ServerError::AuthorizationViolation) => "authorization violation".to_owned(),
            Event::ServerError(ServerError::Other(error)) => error.clone(),
            Event::ClientError(ClientError::Other(error)) => error.clone(),
            other => other.to_string(),
        };
        if self.last_problem().replace(problem.clone()).as_ref() == Some(&problem) {
            return;
        }
        let lowered = problem.to_lowercase();
        if matches!(event, Event::Disconnected) {
            tracing::warn!(connection = name, "disconnected from the broker");
        } else if lowered.contains("permissions violation") {
            tracing::error!(
                connection = name,
                error = problem,
                "the broker does not allow this: compare the user's permissions with docs/SECURITY.md"
            );
        } else if ["authorization", "authentication", "signing nonce"].iter().any(|word| lowered.contains(word)) {
            tracing::error!(
                connection = name,
                error = problem,
                settings = self.settings,
                "the broker refuses the credentials; the connection is tried again"
            );
        } else {
            tracing::warn!(connection = name, error = problem, "the connection to the broker is disturbed");
        }
    }

    fn last_problem(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
