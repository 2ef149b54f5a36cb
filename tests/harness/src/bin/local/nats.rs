//! nats-server of a deployment.

use std::process::Command;

use anyhow::Context as _;
use harness::servers::nats::{READY, configuration};

use crate::directory::Directory;
use crate::environment::PassedOn;
use crate::output;
use crate::process::{self, Launch};
use crate::readiness;
use crate::service::Service;

/// Starts nats-server on this port, waits until clients can connect, and returns the URL.
pub(crate) async fn start(directory: &Directory, program: &std::path::Path, port: u16) -> anyhow::Result<String> {
    output::step("starting nats-server");
    let store = directory.data().join("nats");
    std::fs::create_dir_all(&store)?;
    let file = directory.nats_configuration();
    std::fs::write(&file, configuration(&store, port, None))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&file);
    let launch = Launch { command, passed_on: PassedOn::default(), variables: Vec::new() };
    process::start(directory, Service::Nats, launch)?;
    readiness::until_logged(directory, Service::Nats, READY).await?;
    Ok(format!("nats://127.0.0.1:{port}"))
}
