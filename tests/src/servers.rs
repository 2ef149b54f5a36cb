//! The servers that the services need, as private child processes on the loopback address. Each can be stopped, killed,
//! paused and started again on the same data and port.

pub mod nats;
mod owner;
pub mod postgres;

use std::path::Path;
use std::time::Duration;

pub use nats::Nats;
pub use postgres::Postgres;

use crate::keeper;

/// How long a server may take to start or to stop. Generous: a machine that builds something else at the same time is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for a server's data that goes with it.
#[derive(Debug)]
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn temporary(name: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix(&format!("stenograph-{name}-")).tempdir()?;
        keeper::delete_at_the_end(directory.path());
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
